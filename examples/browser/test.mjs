// The page in Chromium: draws what `generate` draws, with and without the cache, and asks no other server.
//
//   node examples/browser/test.mjs FOLDER [--webgpu]       FOLDER of examples/browser/build
//
// With --webgpu one picture of 4 steps by WebGPU on Chromium's own processor-made GPU, which takes minutes. It has no
// shader-f16: the FOLDER is of `build FOLDER fp32 4`.
//
// Needs hydit-serve and its export as HYDIT_BIN and HYDIT_MODEL, and CHROMIUM if that is not /usr/bin/chromium.
import { execFileSync } from "node:child_process";
import { readFileSync, mkdtempSync } from "node:fs";
import http from "node:http";
import os from "node:os";
import path from "node:path";
import { chromium } from "playwright-core";

const folder = path.resolve(process.argv[2]);
const webgpu = process.argv[3] === "--webgpu";
const [steps, patience] = webgpu ? ["4", 1_800_000] : ["25", 120_000];
const types = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".json": "application/json", ".wasm": "application/wasm" };
const server = http.createServer((request, response) => {
  const file = path.join(folder, path.normalize(new URL(request.url, "http://x").pathname).replace(/\/$/, "/index.html"));
  try {
    const body = readFileSync(file);
    response.writeHead(200, { "content-type": types[path.extname(file)] ?? "application/octet-stream" }).end(body);
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const home = `http://127.0.0.1:${server.address().port}/`;

const args = ["--no-sandbox", ...(webgpu ? ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"] : [])];
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args });
const page = await browser.newPage({ viewport: { width: 390, height: 844 } });
const trouble = [];
page.on("console", (message) => message.type() === "error" && trouble.push(message.text()));
page.on("pageerror", (error) => trouble.push(error.message));
page.on("request", (request) => request.url().startsWith(home) || /^(data|blob):/.test(request.url()) || trouble.push(request.url()));

/// The largest difference of a channel between the page's picture and the PNG `file`.
async function distance(file) {
  const expected = `data:image/png;base64,${readFileSync(file).toString("base64")}`;
  return page.evaluate(async (expected) => {
    const pixels = (source, width, height) => {
      const context = new OffscreenCanvas(width, height).getContext("2d");
      context.drawImage(source, 0, 0);
      return context.getImageData(0, 0, width, height).data;
    };
    const canvas = document.getElementById("picture");
    const image = new Image();
    image.src = expected;
    await image.decode();
    const [ours, theirs] = [canvas, image].map((source) => pixels(source, canvas.width, canvas.height));
    return ours.reduce((most, value, i) => Math.max(most, Math.abs(value - theirs[i])), 0);
  }, expected);
}

const scratch = mkdtempSync(path.join(os.tmpdir(), "hydit-page-"));
let failed = false;
try {
  await page.goto(home);
  await page.getByText("ready", { exact: true }).waitFor({ timeout: patience });
  const engine = await page.textContent("#engine");
  const expected = webgpu ? /^Runs in WebGPU/ : /^Runs in WebAssembly: (this browser|WebGPU)/;
  if (!expected.test(engine)) throw new Error(`not the engine that was expected: ${engine}`);
  const pictures = [
    ["off", 0, "蓝色背景上的猫", 42],
    ["N3", 2, "蓝色背景上的猫", 42],
    ["N6", 4, "a red apple on a white background", 7],
  ];
  for (const [name, place, prompt, seed] of webgpu ? pictures.slice(1, 2) : pictures) {
    await page.fill("#prompt", prompt);
    await page.fill("#seed", String(seed));
    await page.locator("#plan").fill(String(place));
    await page.click("#draw");
    await page.waitForFunction(() => !document.getElementById("draw").disabled, undefined, { timeout: patience });
    const file = path.join(scratch, `${name}.png`);
    const policy = name === "off" ? "off" : `${name}-700-50`;
    execFileSync(path.join(process.env.HYDIT_BIN, "hydit-serve"), ["generate", "--model", process.env.HYDIT_MODEL, "--prompt", prompt,
      "--seed", String(seed), "--sampler", "dpmms", "--infer-steps", steps, "--cache-policy", policy, "-o", file], { stdio: "ignore" });
    const far = await distance(file);
    console.log(`${name}: ${far} of 255 from generate; ${await page.textContent("#status")}`);
    failed ||= far > 2;
    if (process.env.SCREENSHOTS) await page.screenshot({ path: path.join(process.env.SCREENSHOTS, `${name}.png`) });
  }
  if (!webgpu) {
    await page.fill("#prompt", "猫 ".repeat(400));
    await page.click("#draw");
    await page.getByText("longer than the model reads").waitFor({ timeout: patience });
  }
} catch (error) {
  console.error(`${error.message}\n${await page.textContent("#status").catch(() => "")}`);
  failed = true;
} finally {
  await browser.close();
  server.close();
}
trouble.forEach((line) => console.error(line));
process.exitCode = failed || trouble.length ? 1 : 0;
