// A grid over two settings, and many pictures in one archive.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { api, errorsWereWanted, look, open, search, violations } from "./browser.mjs";

const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

/// A grid is drawn, measured against a reference, compared by a slider, and there after a reload.
export async function grid() {
  const page = await open();
  await page.fill("#prompt", "a grid of cats");
  await page.fill("#seed", "11");
  await page.fill("#steps", "10");
  await page.locator("#axes > summary").click();
  await page.getByRole("button", { name: "Draw the grid" }).click();
  await page.getByText("Give two different settings at most").waitFor();
  await page.getByRole("button", { name: "Close", exact: true }).click();
  await page.fill("#axis-values-0", "off, N2, N4");
  await page.selectOption("#axis-1", "sampler");
  await page.fill("#axis-values-1", "ddim，dpmms");
  await page.getByRole("button", { name: "Draw the grid" }).click();
  await page.waitForFunction(() => document.querySelectorAll("#grid .cell img[src^='blob:']").length === 6, null, { timeout: 120_000 });
  const done = (await api("/v1/jobs?limit=6")).data.map(({ request }) => [request.cache.replace("-700-50", ""), request.sampler, request.seed]);
  const wanted = ["ddim", "dpmms"].flatMap((sampler) => ["off", "N2", "N4"].map((cache) => [cache, sampler, 11]));
  assert.deepEqual(done.reverse(), wanted);
  assert.deepEqual(await page.locator("#grid thead th").allTextContents(), ["Skip-Cache off", "Skip-Cache N2", "Skip-Cache N4"]);
  assert.deepEqual(await page.locator("#grid tbody th").allTextContents(), ["Sampler ddim", "Sampler dpmms"]);
  await page.waitForFunction(() => [...document.querySelectorAll("#grid .alike")].filter((one) => /PSNR [\d.]+ dB/.test(one.textContent)).length === 5);
  assert.equal(await page.textContent("#grid [data-cell='0']"), "the reference");
  assert.match(await page.textContent("#grid .cell"), /core 10\/10 · [\d.]+ m?s/);
  const alike = (i) => page.textContent(`#grid [data-cell='${i}']`).then((text) => Number(/PSNR ([\d.]+)/.exec(text)[1]));
  assert.ok((await alike(1)) > (await alike(2)), "more refreshes, more alike");
  await page.locator("#grid [data-act=cell-5]").click();
  assert.deepEqual(await page.locator("#grid .tag").allTextContents(), ["off · ddim", "N4 · dpmms"]);
  await page.locator("#grid [data-act=reference-3]").click();
  assert.equal(await page.textContent("#grid [data-cell='3']"), "the reference");
  assert.deepEqual(await page.locator("#grid .tag").allTextContents(), ["off · dpmms", "N4 · dpmms"]);
  await page.locator("#grid .compare input").fill("20");
  assert.equal(await page.locator("#grid .compare").evaluate((frame) => frame.style.getPropertyValue("--at")), "20%");
  await page.waitForFunction(() => [...document.querySelectorAll("#grid .alike")].filter((one) => /PSNR/.test(one.textContent)).length === 5);
  assert.deepEqual(await violations(page), []);
  await page.locator("#grid").scrollIntoViewIfNeeded();
  await look(page, "grid", { fullPage: true });
  await page.getByRole("button", { name: "All as favourites" }).click();
  await page.getByRole("button", { name: "No favourites" }).waitFor();
  assert.equal(await page.locator(".grid .favourite").count(), 6);
  const download = page.waitForEvent("download");
  await page.locator("#grid").getByRole("button", { name: "Download 6 as zip" }).click();
  assert.equal((await download).suggestedFilename(), "hydit.zip");
  await page.reload();
  await page.waitForSelector("body[data-ready]");
  assert.equal(await page.locator(".grid .favourite").count(), 6);
  await page.getByRole("button", { name: "No favourites" }).click();
  await page.getByRole("button", { name: "All as favourites" }).waitFor();
  assert.equal(await page.locator(".grid .favourite").count(), 0);
  await page.waitForFunction(() => document.querySelectorAll("#grid .cell img[src^='blob:']").length === 6);
  for (const [colorScheme, locale] of [["dark", "zh-CN"]]) {
    const phone = await open({ viewport: { width: 360, height: 740 }, colorScheme, locale, storageState: await page.context().storageState() });
    await phone.waitForFunction(() => document.querySelectorAll("#grid .cell img[src^='blob:']").length === 6);
    assert.ok(await phone.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
    assert.deepEqual(await violations(phone), []);
    await look(phone, `grid-phone-${locale}-${colorScheme}`, { fullPage: true });
  }
  await page.getByRole("button", { name: "Close the grid" }).click();
  assert.ok(await page.locator("#grid").isHidden());

  // What the server refuses ends the grid, with its words.
  await page.locator("#axes").evaluate((axes) => axes.setAttribute("open", ""));
  await page.fill("#axis-values-0", "N0, off");
  await page.getByRole("button", { name: "Draw the grid" }).click();
  await page.getByText(/cache: /).waitFor();
  assert.ok(await page.locator("#grid").isHidden());
  errorsWereWanted();
}

/// Several pictures are saved as one archive, which other programs read.
export async function archive() {
  const page = await open();
  await search(page, "a grid of cats");
  await page.getByRole("button", { name: "Select", exact: true }).click();
  const tiles = page.locator(".grid button");
  for (const i of [0, 1, 2, 3]) await tiles.nth(i).click();
  await tiles.nth(3).click();
  assert.deepEqual(await violations(page), []);
  await look(page, "select");
  const download = page.waitForEvent("download");
  await page.getByRole("button", { name: "Download 3 as zip" }).click();
  const folder = mkdtempSync(path.join(os.tmpdir(), "hydit-zip-"));
  const zip = path.join(folder, "hydit.zip");
  await (await download).saveAs(zip);
  const files = JSON.parse(execFileSync("python3", ["-c", `
import hashlib, json, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as archive:
    assert archive.testzip() is None
    print(json.dumps([[name, hashlib.sha256(archive.read(name)).hexdigest()] for name in archive.namelist()]))`, zip]));
  const jobs = (await api("/v1/jobs?limit=100")).data.filter(({ request, result }) => request.prompt === "a grid of cats" && result).slice(0, 3);
  assert.deepEqual(files.map(([name]) => name), ["hydit-11.png", "hydit-11-2.png", "hydit-11-3.png"]);
  assert.deepEqual(files.map(([, hash]) => hash), jobs.map(({ result }) => result.pictures[0].sha256));
  assert.equal(sha256(readFileSync(zip)).length, 64);
  await page.getByRole("button", { name: "Select", exact: true }).click();
  await tiles.first().click();
  await page.waitForSelector(`#stage[data-id="${jobs[0].id}"]`);
}

/// What is selected becomes favourites in one go, and is deleted in one, with what belongs to its orders.
export async function together() {
  const page = await open();
  let four = await api("/v1/jobs", { method: "POST", body: { prompt: "four together", n: 4, steps: 2, sampler: "ddim" } });
  const one = await api("/v1/jobs", { method: "POST", body: { prompt: "one together", steps: 2, sampler: "ddim" } });
  for (const { id } of [four, one]) while ((await api(`/v1/jobs/${id}`)).status !== "done");
  four = await api(`/v1/jobs/${four.id}`);
  await page.reload();
  await page.waitForSelector("body[data-ready]");
  await search(page, "together");
  const tiles = page.locator(".grid button");
  assert.equal(await tiles.count(), 5);
  await page.getByRole("button", { name: "Select", exact: true }).click();
  for (const i of [0, 1, 2]) await tiles.nth(i).click();
  await page.getByRole("button", { name: "♡ Favourite 3" }).click();
  assert.equal(await page.locator(".grid .favourite").count(), 3);
  await page.getByRole("button", { name: "♥ No favourites" }).waitFor();
  assert.deepEqual(await violations(page), []);
  await page.locator("#gallery").scrollIntoViewIfNeeded();
  await look(page, "together");
  await tiles.nth(4).click();
  await page.getByRole("button", { name: "♡ Favourite 4" }).click();
  await page.getByRole("button", { name: "♥ No favourites" }).click();
  assert.equal(await page.locator(".grid .favourite").count(), 0);
  await tiles.nth(4).click();
  await page.getByRole("button", { name: "Delete 3" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByText("Orders are deleted as a whole: 5 pictures in all.").waitFor();
  await dialog.getByRole("button", { name: "Leave it" }).click();
  assert.equal(await tiles.count(), 5);
  await page.getByRole("button", { name: "Delete 3" }).click();
  await dialog.getByRole("button", { name: "Delete", exact: true }).click();
  await page.getByText("No picture fits.").waitFor();
  for (const { id } of [four, one]) assert.equal((await api(`/v1/jobs/${id}`)).error.code, "job_not_found");
  assert.ok(await page.getByRole("button", { name: "Delete 3" }).isHidden(), "nothing is selected any more");
}
