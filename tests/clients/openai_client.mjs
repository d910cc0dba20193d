// OpenAI's official JavaScript client against a server: node openai_client.mjs URL KEY

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import OpenAI, { toFile } from 'openai';
import { VERSION } from 'openai/version';

const [url, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
const draw = (fields) =>
  client.images.generate({ prompt: '蓝色背景上的猫', model: 'emoji', steps: 3, seed: 7, ...fields });
const picture = (image) => Buffer.from(image.b64_json, 'base64');
const size = (png) => {
  assert.equal(png.subarray(1, 4).toString(), 'PNG');
  return [png.readUInt32BE(16), png.readUInt32BE(20)];
};
const refused = async (kind, fields) => {
  const error = await draw(fields).then(() => assert.fail('it was taken'), (error) => error);
  assert.ok(error instanceof kind, `${error}`);
  return error;
};

const answer = await draw({ size: '192x128' });
assert.deepEqual(size(picture(answer.data[0])), [192, 128]);
assert.equal(answer.size, '192x128');
assert.equal(answer.usage.total_tokens, 96);
assert.deepEqual(answer.hydit.seeds, [7]);
console.log('generate: a 192x128 PNG');

const two = await draw({ n: 2 });
assert.equal(two.data.length, 2);
assert.notEqual(two.data[0].b64_json, two.data[1].b64_json);
console.log('n=2: two pictures');

const fox = await readFile('tests/reference/image_to_image/image-fox.png');
const edited = await client.images.edit({
  image: await toFile(fox, 'fox.png', { type: 'image/png' }),
  prompt: '蓝色背景上的猫', model: 'emoji', steps: 6, seed: 7, strength: 0.5,
});
assert.deepEqual(size(picture(edited.data[0])), [128, 128]);
assert.equal(edited.hydit.steps, 3);
console.log('edit: from an image');

assert.equal(picture((await draw({ output_format: 'jpeg' })).data[0]).readUInt16BE(0), 0xffd8);
assert.equal(picture((await draw({ output_format: 'webp' })).data[0]).toString('latin1', 8, 12), 'WEBP');
console.log('jpeg and webp');

const [lent] = (await draw({ size: '192x128', response_format: 'url' })).data;
const fetched = await fetch(lent.url); // without the key
assert.deepEqual([fetched.status, fetched.headers.get('content-type')], [200, 'image/png']);
assert.deepEqual(size(Buffer.from(await fetched.arrayBuffer())), [192, 128]);
console.log('url: an address that gives the picture without the key');

const events = [];
for await (const event of await draw({ size: '192x128', steps: 6, stream: true, partial_images: 2 })) {
  events.push(event);
}
const partial = 'image_generation.partial_image';
assert.deepEqual(events.map((event) => event.type), [partial, partial, 'image_generation.completed']);
assert.deepEqual(events.slice(0, 2).map((event) => event.partial_image_index), [0, 1]);
for (const event of events) assert.deepEqual(size(picture(event)), [192, 128]);
assert.equal(events[2].b64_json, (await draw({ size: '192x128', steps: 6 })).data[0].b64_json);
console.log('stream: two pictures on the way, then the very picture of a plain request');

const error = await refused(OpenAI.BadRequestError, { size: '100x100' });
assert.deepEqual([error.status, error.param, error.code], [400, 'size', 'invalid_value']);
assert.equal((await refused(OpenAI.BadRequestError, { colour: 'red' })).param, 'colour');
assert.equal((await refused(OpenAI.NotFoundError, { model: 'other' })).code, 'model_not_found');
const stranger = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'wrong', maxRetries: 0 });
await assert.rejects(stranger.images.generate({ prompt: 'a cat' }), OpenAI.AuthenticationError);
console.log('errors: bad fields by name, unknown models, wrong keys');

const late = (_, seed) => draw({ seed, steps: 50 }).catch((error) => error);
const answers = await Promise.all(Array.from({ length: 16 }, late));
const full = answers.filter((answer) => answer instanceof OpenAI.RateLimitError);
assert.ok(full.length > 0 && full.length < 16, `${full.length} of 16 were refused`);
for (const error of full) assert.ok(Number(error.headers.get('retry-after')) >= 1);
console.log(`overload: ${full.length} of 16 got RateLimitError with Retry-After`);

const models = [];
for await (const model of client.models.list()) models.push(model.id);
assert.deepEqual(models, ['emoji']);
assert.equal((await client.models.retrieve('emoji')).object, 'model');
console.log('models: listed and retrieved');
console.log(`openai ${VERSION} (npm) passed`);
