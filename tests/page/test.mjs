// The page in Chromium, against the real server: everything that a visitor does, and that nothing else happens.
//
//   scripts/test-page
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { api, draw, drawn, end, errorsWereWanted, home, look, open, part, search, settled, violations } from "./browser.mjs";
import { marked, told } from "./cut.mjs";
import { archive, grid, together } from "./grid.mjs";
import { drop, hostile } from "./hostile.mjs";
import { images, named } from "./images.mjs";
import { presets } from "./presets.mjs";

const QUICK = { sampler: "dpmms", steps: 10, cache: "N3" };
const LONG = { sampler: "ddim", steps: 100, cache: "N6" };
const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");
const fits = (page) => page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);

await part("the page before anything was drawn", async () => {
  const page = await open();
  await page.getByText("Nothing drawn yet").waitFor();
  assert.deepEqual(await violations(page), []);
  await look(page, "empty");
  await page.getByRole("button", { name: "a cat sitting in the snow" }).click();
  assert.equal(await page.inputValue("#prompt"), "a cat sitting in the snow");
  await page.evaluate(() => document.querySelectorAll("#form details").forEach((one) => (one.open = true)));
  const asks = await page.locator(".ask:visible").all();
  for (const ask of asks) await ask.click();
  assert.ok(asks.length > 10);
  assert.equal(await page.locator(".help:visible").count(), asks.length, "every field is explained");
  assert.deepEqual(await violations(page), []);
});

await part("its weight, and what it is sent with", async () => {
  const page = await open();
  const [weight, sent] = await page.evaluate(() => {
    const files = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")].filter(({ name }) => !name.includes("/v1/"));
    return ["decodedBodySize", "encodedBodySize"].map((size) => files.reduce((sum, file) => sum + file[size], 0));
  });
  assert.ok(weight > 20_000 && weight <= 150_000 && sent <= weight / 2, `${weight} bytes, sent as ${sent}`);
  console.log(`     ${weight} bytes, sent as ${sent}`);
});

await part("a first picture, its strip and its parameters", async () => {
  const page = await open();
  const job = await draw(page, { prompt: "a red apple on a white background", ...QUICK, seed: 7 });
  await drawn(page, job);
  const done = await api(`/v1/jobs/${job.id}`);
  assert.deepEqual([done.status, done.request.cache, done.request.metadata], ["done", "N3-700-50", true]);
  const marks = await page.locator("#stage .marks span").evaluateAll((all) => all.map((one) => one.className));
  assert.deepEqual(marks, done.plan);
  assert.match(await page.getAttribute("#stage .marks", "aria-label"), /10 steps: \d+ ran the core/);
  const told = await page.textContent("#stage .told");
  assert.ok(told.includes(`${done.core_runs} of 10 steps`), told);
  assert.match(await page.getAttribute("#stage .marks span", "title"), /Step 1: ran the core, [\d.]+ m?s/);
  assert.deepEqual(await page.evaluate(() => { const { naturalWidth, naturalHeight } = document.querySelector("#stage .shown"); return [naturalWidth, naturalHeight]; }), [128, 128]);
  await page.getByText("All settings").click();
  assert.ok((await page.textContent("dl")).includes("Skip-CacheN3-700-50"));
  assert.equal(page.url(), `${home}/`);
  assert.equal(await page.locator(".grid li").count(), 1);
  assert.deepEqual(await violations(page), []);
  await look(page, "done");
});

await part("previews, the queue, cancelling, and coming back in the middle", async () => {
  const page = await open();
  const [one, two] = [await draw(page, { prompt: "cat one", n: 8, ...LONG }), await draw(page, { prompt: "cat two", n: 1, ...LONG })];
  const three = await draw(page, { prompt: "cat three", ...LONG });
  await page.getByText(/Waiting: \d before it|Next in line/).first().waitFor();
  assert.equal(await page.locator("#orders li").count(), 2, "and the one on the stage");
  await page.getByRole("button", { name: "cat one", exact: true }).click();
  await page.waitForSelector("#stage .preview[src^='blob:']:visible");
  await page.waitForFunction(() => document.querySelector("#stage .preview").naturalWidth === 16);
  await page.getByText(/Step \d+ of 100 · about .* left/).first().waitFor();
  assert.deepEqual(await violations(page), []);
  await look(page, "under-way");
  await page.getByRole("button", { name: "Cancel: cat two" }).click();
  await page.getByRole("button", { name: "Put away: cat two" }).waitFor();
  assert.equal((await api(`/v1/jobs/${two.id}`)).status, "cancelled");
  await page.reload();
  await page.waitForSelector("body[data-ready]");
  await page.waitForSelector(`#orders [data-id="${three.id}"]`);
  await page.locator("#stage [data-act=cancel]").click();
  await page.waitForSelector(`#stage[data-id="${one.id}"][data-status="cancelled"]`);
  assert.equal((await api(`/v1/jobs/${one.id}`)).status, "cancelled");
  await page.locator(`#orders [data-id="${three.id}"] .title`).click();
  await drawn(page, three);
  assert.equal(await page.locator("#stage .marks span:not(.pending)").count(), 100);
  for (const name of ["cat one", "cat two"]) await page.getByRole("button", { name: `Put away: ${name}` }).click();
  await page.waitForSelector("#orders[hidden]", { state: "attached" });
});

await part("mistakes are told in words, beside their field", async () => {
  const page = await open();
  await page.getByRole("button", { name: "Draw", exact: true }).click();
  await page.getByText("prompt is empty").waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.id), "prompt");
  assert.equal(await page.getAttribute("#prompt", "aria-invalid"), "true");
  await page.fill("#prompt", "cat");
  assert.equal(await page.getAttribute("#prompt", "aria-invalid"), null);
  await page.getByText("Free", { exact: true }).click();
  await page.fill("#width", "100");
  await page.click("#draw");
  await page.getByText("the width 100 is not a multiple of 16").waitFor();
  await page.fill("#width", "128");
  await page.selectOption("#cache", "other");
  await page.fill("#cache-text", "N0");
  await page.click("#draw");
  await page.locator("#cache-wrong:visible").waitFor();
  assert.deepEqual(await violations(page), []);
  await look(page, "mistake");
  const late = await api("/v1/jobs", { method: "POST", body: { prompt: "too late", steps: 100, n: 8, deadline: 1 } });
  while ((await api(`/v1/jobs/${late.id}`)).status !== "failed");
  await page.reload();
  await page.locator(`#orders .failed[data-id="${late.id}"] .title`).click();
  await page.getByText("Try fewer steps or a smaller size").waitFor();
  await look(page, "failed");
  await page.locator("#stage [data-act=dismiss]").click();
  await page.route("**/v1/jobs", (route) => route.abort());
  await page.fill("#prompt", "cat");
  await page.selectOption("#cache", "off");
  await page.click("#draw");
  await page.getByText("The server does not answer").waitFor({ timeout: 20_000 });
  errorsWereWanted();
});

await part("keyboard alone", async () => {
  const page = await open();
  const press = async (key, count = 1) => { while (count--) await page.keyboard.press(key); };
  const focus = () => page.evaluate(() => document.activeElement.id || document.activeElement.dataset.act || document.activeElement.textContent);
  const tabTo = async (wanted) => {
    for (let i = 0; i < 80 && (await focus()) !== wanted; i++) await press("Tab");
    assert.equal(await focus(), wanted);
    assert.notEqual(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle), "none", wanted);
  };
  await press("Tab");
  assert.equal(await focus(), "To the picture");
  await tabTo("prompt");
  await page.keyboard.type("a bus on a yellow background");
  await tabTo("steps");
  await page.keyboard.press("Control+A");
  await page.keyboard.type("10");
  await tabTo("cache");
  for (let i = 0; i < 6 && (await page.inputValue("#cache")) !== "N3"; i++) await press("ArrowDown");
  await tabTo("sampler");
  await page.keyboard.type("ddim");
  await page.keyboard.press("Control+Enter");
  await page.getByRole("heading", { name: "a bus on a yellow background" }).waitFor();
  await drawn(page);
  await tabTo("compare");
  await press("Enter");
  await page.waitForSelector(".compare", { timeout: 60_000 });
  assert.equal(await focus(), "compare", "the focus stays on what was pressed");
  await page.locator(".compare input").focus();
  await press("ArrowLeft", 10);
  assert.equal(await page.locator(".compare input").inputValue(), "45");
  await tabTo("delete");
  await press("Enter");
  await page.getByText("Delete this picture from the server?").waitFor();
  await press("Escape");
  assert.equal(await page.locator("#stage .compare").count(), 1, "nothing was deleted");
});

await part("compared with uncached: the figures of `generate --compare`", async () => {
  const page = await open();
  const fields = { prompt: "蓝色背景上的猫", sampler: "dpmms", steps: 25, seed: 42, cache: "N4" };
  await drawn(page, await draw(page, fields));
  await page.getByRole("button", { name: "Compare with uncached" }).click();
  await page.getByText(/PSNR [\d.]+ dB · SSIM/).waitFor({ timeout: 60_000 });
  const [, psnr, ssim] = /PSNR ([\d.]+) dB · SSIM ([\d.]+)/.exec(await page.textContent(".figures"));
  const flags = ["--prompt", fields.prompt, "--sampler", "dpmms", "--infer-steps", "25", "--seed", "42", "--cache-policy", "N4",
    "--compare", "-o", path.join(mkdtempSync(path.join(os.tmpdir(), "hydit-page-")), "cat.png")];
  const said = execFileSync(path.join(process.env.HYDIT_BIN, "hydit-serve"), ["generate", "--json", "--model", process.env.HYDIT_MODEL, ...flags]);
  const figures = JSON.stringify(JSON.parse(said));
  const [theirs, alike] = ["psnr", "ssim"].map((name) => Number(new RegExp(`"${name}[a-z_]*":\\[?([\\d.]+)`).exec(figures)[1]));
  // Rounding of what is shown; drawn with --exact, the pictures have the same bits.
  assert.ok(Math.abs(psnr - theirs) <= 0.051 && Math.abs(ssim - alike) <= 0.000051, `${psnr} ${ssim}; ${figures}`);
  console.log(`     PSNR ${psnr} dB, SSIM ${ssim}; generate: ${theirs}, ${alike}`);
  await page.locator(".compare input").fill("20");
  assert.equal(await page.locator(".compare").evaluate((frame) => frame.style.getPropertyValue("--at")), "20%");
  assert.equal(await page.locator("#stage .strip").count(), 2);
  assert.deepEqual(await violations(page), []);
  await look(page, "compare");
  const before = (await api("/v1/jobs")).data.length;
  await page.getByRole("button", { name: "End comparing" }).click();
  await page.getByRole("button", { name: "Compare with uncached" }).click();
  await page.getByText(/PSNR [\d.]+ dB/).waitFor();
  assert.equal((await api("/v1/jobs")).data.length, before, "the twin is drawn once");
});

await part("gallery: search, favourites, the same again, another seed, download, delete", async () => {
  const page = await open();
  const count = () => page.locator(".grid li").count();
  const all = await count();
  await search(page, "YELLOW bus");
  assert.ok((await count()) >= 1 && (await count()) < all);
  await search(page, "nothing like that");
  await page.getByText("No picture fits.").waitFor();
  await search(page, "apple");
  await page.locator(".grid button").first().click();
  await drawn(page);
  await page.getByRole("button", { name: "Favourite", exact: true }).click();
  await page.reload();
  await page.waitForSelector("body[data-ready]");
  await page.getByRole("button", { name: "♥ Favourites" }).click();
  await settled(page);
  assert.equal(await count(), 1);
  await page.locator(".grid button").first().click();
  await page.getByRole("button", { name: "Same again" }).click();
  assert.deepEqual(await page.evaluate(() => ["prompt", "steps", "seed", "cache", "sampler"].map((id) => document.getElementById(id).value)),
    ["a red apple on a white background", "10", "7", "N3", "dpmms"]);
  const saved = page.waitForEvent("download");
  await page.getByRole("button", { name: "Download" }).click();
  const file = await saved;
  assert.equal(file.suggestedFilename(), "hydit-7.png");
  const [job] = (await api("/v1/jobs?limit=100")).data.filter(({ request }) => request.seed === 7);
  assert.equal(sha256(readFileSync(await file.path())), job.result.pictures[0].sha256);
  await page.getByRole("button", { name: "Vary the seed" }).click();
  await page.waitForFunction((id) => document.getElementById("stage").dataset.id !== id, job.id);
  await drawn(page);
  assert.equal((await api("/v1/jobs?limit=1")).data[0].request.prompt, job.request.prompt);
  assert.notEqual((await api("/v1/jobs?limit=1")).data[0].request.seed, 7);
  await page.locator(".grid button").first().click();
  await page.getByRole("button", { name: "Delete" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await page.getByText("No picture fits.").waitFor();
  assert.equal((await api(`/v1/jobs/${job.id}`)).error.code, "job_not_found");
});

await part("a prompt that is longer than the encoders read is marked where it is cut", marked);

await part("and the picture of such a prompt says so", told);

await part("a PNG that is dropped fills the form", async () => {
  const page = await open();
  for (const prompt of ["蓝色背景上的猫：“引号”", "plain words, é too"]) {
    const fields = { prompt, steps: 6, seed: 9, sampler: "ddim", cache: "N2", guidance: 3.5, size: "192x128", metadata: true, negative_prompt: "red" };
    let job = await api("/v1/jobs", { method: "POST", body: fields });
    while (!job.result) job = await api(`/v1/jobs/${job.id}`);
    const png = Buffer.from(await (await fetch(home + job.result.pictures[0].url)).arrayBuffer());
    await drop(page, "picture.png", [...png]);
    await page.waitForFunction((prompt) => document.getElementById("prompt").value === prompt, prompt);
    const values = await page.evaluate(() => ["width", "height", "steps", "seed", "sampler", "cache", "guidance", "negative_prompt"].map((id) => document.getElementById(id).value));
    assert.deepEqual(values, ["192", "128", "6", "9", "ddim", "N2", "3.5", "red"]);
  }
  await drop(page, "notes.txt", [1, 2, 3]);
  await page.getByText("This is not a PNG.").waitFor();
  await drop(page, "plain.png", [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  await page.getByText("does not say how it was made").waitFor();
});

await part("the policy chooser: a curve where there is a calibration, else what to type", async () => {
  const page = await open();
  await page.selectOption("#model", "calibrated");
  await page.selectOption("#sampler", "dpmms");
  await page.fill("#steps", "12");
  await page.getByText("hydit-serve calibrate --model DIR --prompts FILE --sampler dpmms --spacing linspace --infer-steps 12").waitFor();
  await page.getByRole("button", { name: "dpmms, 10 steps" }).click();
  assert.equal(await page.inputValue("#steps"), "10");
  assert.equal(await page.locator(".plot .point").count(), 3);
  await page.getByText(/5 core runs of 10: 41.0 dB/).waitFor();
  await page.locator("#runs").fill("0");
  await page.getByText(/3 core runs of 10: 31.0 dB/).waitFor();
  assert.deepEqual(await violations(page), []);
  await look(page, "policy");
  const job = await draw(page, { prompt: "a calibrated cat" });
  await drawn(page, job);
  assert.deepEqual([job.request.cache, (await api(`/v1/jobs/${job.id}`)).core_runs], ["auto:3runs", 3]);
});

await part("perturbed attention, where the model has layers for it", async () => {
  const page = await open();
  assert.ok(!(await page.locator("#field-pag_scale").isVisible()), "this model has none");
  assert.equal(await page.locator("#axis-0 option[value=pag_scale]").isDisabled(), true);
  await page.selectOption("#model", "calibrated");
  assert.equal(await page.locator("#axis-0 option[value=pag_scale]").isDisabled(), false);
  const job = await draw(page, { prompt: "a firm cat", ...QUICK, pag_scale: 3, pag_adaptive_scale: 0.002 });
  await drawn(page, job);
  const done = await api(`/v1/jobs/${job.id}`);
  assert.deepEqual([done.request.pag_scale, done.request.pag_adaptive_scale], [3, 0.002]);
  await page.locator("#field-pag_scale").scrollIntoViewIfNeeded();
  await look(page, "perturbed");
  await page.selectOption("#model", "emoji");
  const plain = await draw(page, { prompt: "a plain cat", steps: 2 });
  assert.deepEqual([plain.request?.prompt, plain.request?.pag_scale], ["a plain cat", undefined], "nothing is asked that it lacks");
  const png = Buffer.from(await (await fetch(home + done.result.pictures[0].url)).arrayBuffer());
  await page.selectOption("#model", "calibrated");
  assert.equal(await page.inputValue("#pag_scale"), "0");
  await drop(page, "picture.png", [...png]);
  await page.waitForFunction(() => document.getElementById("pag_scale").value === "3");
  assert.equal(await page.inputValue("#pag_adaptive_scale"), "0.002");
});

await part("pictures from images: chosen, dropped, pasted, painted over", images);

await part("images beside the prompt and for ControlNets, where the model takes them", named);

await part("presets: saved, used, replaced, exported, imported, deleted", presets);

await part("a grid over two settings, measured and compared", grid);

await part("several pictures as one archive", archive);

await part("several pictures as favourites, and deleted", together);

await part("LoRAs of a server that has some", async () => {
  const real = await api("/v1/capabilities");
  const page = await open({ ready: false });
  const models = real.models.map((model, i) => ({ ...model, lora_slots: i === 0 ? 64 : null }));
  await page.route("**/v1/capabilities", (route) => route.fulfill({ json: { ...real, models, loras: ["ink", "woodcut"] } }));
  let asked;
  await page.route("**/v1/jobs", (route) => {
    if (route.request().method() !== "POST") return route.continue();
    asked = route.request().postDataJSON();
    return route.fulfill({ status: 400, json: { error: { message: "lora: no more than a test", code: "invalid_value", param: "lora" } } });
  });
  await page.reload();
  await page.waitForSelector("body[data-ready]");
  await page.getByLabel("woodcut").fill("0.8");
  await page.fill("#prompt", "a cat");
  await page.click("#draw");
  await page.getByText("no more than a test").waitFor();
  assert.deepEqual(asked.lora, [{ name: "woodcut", weight: 0.8 }]);
  assert.deepEqual(await violations(page), []);
  await page.selectOption("#model", "calibrated");
  assert.ok(!(await page.getByLabel("woodcut").isVisible()), "this model has no slots");
  await page.click("#draw");
  await page.waitForSelector("#trouble .trouble");
  assert.equal(asked.lora, undefined);
  errorsWereWanted();
});

await part("phone width, in both languages and colours", async () => {
  for (const [locale, colorScheme] of [["en-GB", "dark"], ["zh-CN", "light"], ["zh-CN", "dark"]]) {
    const page = await open({ viewport: { width: 360, height: 740 }, locale, colorScheme });
    assert.equal(await page.getAttribute("html", "lang"), locale.startsWith("zh") ? "zh-CN" : "en");
    await page.locator(".grid button").first().click();
    await drawn(page);
    assert.ok(await fits(page), "a picture");
    await page.evaluate(() => document.querySelectorAll("#form details").forEach((one) => (one.open = true)));
    assert.ok(await fits(page), "settings");
    for (const ask of await page.locator(".ask:visible").all()) await ask.click();
    assert.ok(await fits(page), "sentences");
    assert.deepEqual(await violations(page), []);
    const words = await page.evaluate(() => document.body.innerText);
    assert.ok(!/\{\w+\}|undefined|null|NaN/.test(words), words);
    await look(page, `phone-${locale}-${colorScheme}`, { fullPage: true });
  }
});

await part("dark colours, and the other language", async () => {
  const page = await open({ colorScheme: "dark" });
  await drawn(page);
  const paper = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  assert.equal(paper, "rgb(20, 19, 24)");
  assert.deepEqual(await violations(page), []);
  await page.fill("#prompt", "kept over the change");
  await page.getByRole("button", { name: "中文" }).click();
  await page.getByText("图库").waitFor();
  await page.waitForSelector("body[data-ready]");
  assert.equal(await page.inputValue("#prompt"), "kept over the change");
  await page.reload();
  await page.getByText("图库").waitFor();
  await look(page, "dark-zh");
});

await part("hostile texts stay texts", hostile);

await end();
