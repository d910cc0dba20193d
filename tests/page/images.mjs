// Images on the page: one to change with a painted mask, one to be like, one for a ControlNet.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { api, draw, drawn, errorsWereWanted, look, open, violations } from "./browser.mjs";

const FOX = process.env.HYDIT_FOX ?? "tests/reference/image_to_image/image-fox.png";
const file = (name = "fox.png") => ({ name, mimeType: "image/png", buffer: readFileSync(FOX) });

/// Drops or pastes the fox on an element.
async function give(page, selector, kind) {
  await page.evaluate(({ selector, kind, bytes }) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(bytes)], "fox.png", { type: "image/png" }));
    const event = kind === "drop" ? new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true })
      : new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true });
    document.querySelector(selector).dispatchEvent(event);
  }, { selector, kind, bytes: [...readFileSync(FOX)] });
}

const asked = (page) => page.waitForRequest((request) => request.url().endsWith("/v1/jobs") && request.method() === "POST")
  .then((request) => request.postDataJSON());
const shown = (page) => page.waitForSelector("#field-image .filled img[src^='blob:']");

/// A picture from an image that is chosen, pasted or dropped; a part of it by a mask that is painted.
export async function images() {
  const page = await open();
  await page.locator("#images > summary").click();
  assert.ok(!(await page.locator("#field-control, #field-image_prompt").first().isVisible()), "this model takes no others");
  await page.setInputFiles("#image", file());
  await shown(page);
  await page.fill("#strength", "0.5");
  let order = asked(page);
  const job = await draw(page, { prompt: "a fox in the snow", sampler: "ddim", steps: 8, seed: 5, cache: "N2" });
  let body = await order;
  assert.equal(body.image, readFileSync(FOX).toString("base64"));
  assert.deepEqual([body.strength, body.mask], [0.5, undefined]);
  await drawn(page, job);
  const done = await api(`/v1/jobs/${job.id}`);
  assert.deepEqual([done.request.strength, done.steps], [0.5, 4], "the image gave the others");

  const box = await page.locator(".brush canvas").boundingBox();
  await page.locator(".brush canvas").scrollIntoViewIfNeeded();
  await page.locator(".brush canvas").hover({ position: { x: box.width / 4, y: box.height / 2 } });
  await page.mouse.down();
  const at = await page.locator(".brush canvas").boundingBox();
  await page.mouse.move(at.x + at.width * 0.75, at.y + at.height / 2, { steps: 8 });
  await page.mouse.up();
  await page.locator("#images").scrollIntoViewIfNeeded();
  await look(page, "images");
  assert.deepEqual(await violations(page), []);
  order = asked(page);
  const masked = await draw(page, { seed: 6 });
  body = await order;
  const [inside, outside] = await page.evaluate(async (mask) => {
    const bytes = Uint8Array.from(atob(mask), (character) => character.charCodeAt(0));
    const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
    context.drawImage(bitmap, 0, 0);
    const alpha = (x, y) => context.getImageData(x * bitmap.width, y * bitmap.height, 1, 1).data[3];
    return [alpha(0.5, 0.5), alpha(0.5, 0.1)];
  }, body.mask);
  assert.deepEqual([inside, outside], [0, 255], "transparent where it was painted");
  await drawn(page, masked);
  assert.match((await api(`/v1/jobs/${masked.id}`)).request.mask, /^[0-9a-f]{64}$/);

  // This page knows the image, so it draws the same without the cache and with another seed.
  await page.locator("[data-act=compare]").click();
  await page.getByText(/PSNR [\d.]+ dB|Every pixel/).waitFor({ timeout: 60_000 });
  const twin = (await api("/v1/jobs?limit=1")).data[0].request;
  assert.deepEqual([twin.cache, twin.image, twin.mask], ["off", done.request.image, (await api(`/v1/jobs/${masked.id}`)).request.mask]);

  await page.getByRole("button", { name: "Take away: Made from the image" }).click();
  assert.ok(!(await page.locator("#strength").isVisible()));
  for (const [selector, kind] of [["body", "paste"], ["#field-image .pick", "drop"]]) {
    await give(page, selector, kind);
    await shown(page);
    await page.getByRole("button", { name: "Take away: Made from the image" }).click();
  }
  await page.setInputFiles("#image", { name: "x.png", mimeType: "image/png", buffer: Buffer.from("no picture") });
  await page.getByText("This is not an image that can be shown").waitFor();
  await page.reload();
  await page.waitForSelector("body[data-ready]");
  await page.locator(".grid button").first().click();
  await drawn(page);
  assert.equal(await page.locator("[data-act=again]").count(), 0, "after a reload the page has no more than its hash");
}

/// Fields of images are there where the capabilities name them.
export async function named() {
  const real = await api("/v1/capabilities");
  const page = await open({ ready: false });
  const models = real.models.map((model, i) => ({ ...model, image_to_image: false, image_prompt: i === 0, controls: i === 0 ? ["canny", "depth"] : [] }));
  await page.route("**/v1/capabilities", (route) => route.fulfill({ json: { ...real, models } }));
  let body;
  await page.route("**/v1/jobs", (route) => {
    if (route.request().method() !== "POST") return route.continue();
    body = route.request().postDataJSON();
    return route.fulfill({ status: 400, json: { error: { message: "control: no more than a test", code: "invalid_value", param: "control" } } });
  });
  await page.reload();
  await page.waitForSelector("body[data-ready]");
  await page.locator("#images > summary").click();
  assert.ok(!(await page.locator("#field-image").isVisible()));
  await page.setInputFiles("#image_prompt", file());
  await page.fill("#image_prompt_weight", "0.7");
  await page.setInputFiles("#control-1", file());
  await page.fill("#control-weight-1", "0.5");
  await page.fill("#control-end-1", "0.8");
  await page.locator("#control-edges-1").check();
  await page.fill("#prompt", "a fox");
  await page.click("#draw");
  await page.getByText("no more than a test").waitFor();
  const fox = readFileSync(FOX).toString("base64");
  assert.deepEqual([body.image_prompt, body.image_prompt_weight, body.image], [fox, 0.7, undefined]);
  assert.deepEqual(body.control, [{ name: "depth", image: fox, weight: 0.5, start: 0, end: 0.8, preprocess: "canny" }]);
  assert.deepEqual(await violations(page), []);
  await look(page, "controls");
  if (models.length > 1) {
    await page.selectOption("#model", models[1].id);
    assert.ok(!(await page.locator("#images").isVisible()), "this model takes none");
  }
  errorsWereWanted();
}
