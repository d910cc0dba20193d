// Draws an image with onnxruntime-node alone: no sampler and no cache policy in JavaScript, no hydit at run time.
//
//   hydit-export --checkpoint models/emoji --out artifacts/emoji --single
//   hydit-serve plan --model artifacts/emoji --prompt '蓝色背景上的猫' --use-cache --tensors cat.safetensors
//   npm install --ignore-scripts onnxruntime-node pngjs
//   node examples/hosts/draw.mjs artifacts/emoji cat.safetensors cat.png
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

// The packages of the folder that it is run in.
const load = createRequire(path.resolve("package.json"));
const ort = load("onnxruntime-node");
const { PNG } = load("pngjs");

const [model, request, image] = process.argv.slice(2);

// safetensors: the length of a header, the header in JSON, and the numbers.
const file = readFileSync(request);
const start = 8 + Number(file.readBigUInt64LE(0));
const header = JSON.parse(file.subarray(8, start).toString());
const kinds = { F32: ["float32", Float32Array], I64: ["int64", BigInt64Array], BOOL: ["bool", Uint8Array] };
const inputs = {};
for (const [name, { dtype, shape, data_offsets: [from, to] }] of Object.entries(header)) {
  const [type, Numbers] = kinds[dtype];
  const bytes = Uint8Array.from(file.subarray(start + from, start + to));
  inputs[name] = new ort.Tensor(type, new Numbers(bytes.buffer), shape);
}

const session = await ort.InferenceSession.create(path.join(model, "pipeline.onnx"));
const began = performance.now();
const { images } = await session.run(inputs);
const [count, height, width] = images.dims;
console.log(`${count} of ${height}x${width} in ${((performance.now() - began) / 1000).toFixed(2)} s`);

for (let i = 0; i < count; i++) {
  const size = 3 * height * width;
  const pixels = Buffer.from(images.data.subarray(i * size, (i + 1) * size));
  const png = PNG.sync.write({ width, height, data: pixels }, { inputColorType: 2, colorType: 2, inputHasAlpha: false });
  writeFileSync(i === 0 ? image : image.replace(/(\.\w+)?$/, `-${i}$1`), png);
}
