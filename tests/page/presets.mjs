// Presets: saved, used, replaced, exported, imported, deleted.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { api, errorsWereWanted, look, open, violations } from "./browser.mjs";

const names = async () => (await api("/v1/presets")).data.map(({ name }) => name);

async function save(page, name) {
  await page.locator(".presets").getByRole("button", { name: "Save" }).click();
  await page.fill("#asked", name);
  await page.getByRole("dialog").getByRole("button", { name: "Save" }).click();
}

/// The part of the test.
export async function presets() {
  const page = await open();
  const values = () => page.evaluate(() => ["steps", "cache", "sampler", "seed"].map((id) => document.getElementById(id).value));
  await page.fill("#steps", "9");
  await page.selectOption("#sampler", "ddim");
  await page.selectOption("#cache", "N3");
  const name = "蓝 <b>/quick</b>?#%";
  await save(page, name);
  await page.waitForFunction((name) => document.querySelector("#preset").selectedOptions[0]?.text === name, name);
  assert.deepEqual(await violations(page), []);
  await page.fill("#steps", "20");
  await save(page, "slow");
  await page.waitForFunction(() => document.querySelector("#preset").selectedOptions[0]?.text === "slow");
  assert.deepEqual((await names()).sort(), [name, "slow"].sort());

  await page.reload();
  await page.waitForSelector("body[data-ready]");
  await page.getByRole("button", { name: "The model's defaults" }).click();
  await page.selectOption("#preset", { label: name });
  assert.deepEqual(await values(), ["9", "N3", "ddim", ""]);
  await look(page, "presets");
  await page.fill("#steps", "11");
  await save(page, name);
  errorsWereWanted();
  await page.getByText(`There is a preset “${name}”. Replace it?`).waitFor();
  await page.getByRole("button", { name: "Leave it" }).click();
  const stored = async () => (await api("/v1/presets")).data.find((one) => one.name === name).settings.steps;
  assert.equal(await stored(), 9);
  await save(page, name);
  errorsWereWanted();
  await page.getByText("Replace it?").waitFor();
  await page.getByRole("dialog").getByRole("button", { name: "Save" }).click();
  await page.waitForFunction(() => document.getElementById("news").textContent.includes("saved"));
  assert.equal(await stored(), 11);

  const download = page.waitForEvent("download");
  await page.getByRole("button", { name: "Export" }).click();
  const exported = readFileSync(await (await download).path());
  assert.deepEqual(JSON.parse(exported).presets.map((one) => one.name).sort(), [name, "slow"].sort());
  await page.selectOption("#preset", { label: "slow" });
  await page.getByRole("button", { name: "Delete the preset" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await page.waitForFunction(() => document.querySelector("#preset").options.length === 2);
  assert.deepEqual(await names(), [name]);
  const input = ".presets input[type=file]";
  await page.setInputFiles(input, { name: "presets.json", mimeType: "application/json", buffer: exported });
  await page.getByText(/1 presets were added. These names were taken/).waitFor();
  errorsWereWanted();
  assert.deepEqual((await names()).sort(), [name, "slow"].sort());
  for (const wrong of ["{", "{}", '{"presets": [1]}', '{"presets": [{"name": 1, "settings": {}}]}']) {
    await page.getByRole("button", { name: "Close" }).click();
    await page.setInputFiles(input, { name: "presets.json", mimeType: "application/json", buffer: Buffer.from(wrong) });
    await page.getByText("This is not a file of presets.").waitFor();
  }
  for (const each of await names()) await api(`/v1/presets/${encodeURIComponent(each)}`, { method: "DELETE" });
}
