// The page of a server with API keys: asked for once, kept in the browser, sent to the server alone.
//
//   scripts/test-page
import assert from "node:assert/strict";
import { api, draw, drawn, end, errorsWereWanted, home, look, open, part, violations } from "./browser.mjs";

const key = process.env.HYDIT_KEY;

await part("the key is asked for once", async () => {
  const page = await open({ ready: false });
  const dialog = page.getByRole("dialog");
  await dialog.getByText("This server asks for an API key").waitFor();
  assert.deepEqual(await violations(page), []);
  await look(page, "key");
  await page.keyboard.type("a-key-of-somebody-else");
  await page.keyboard.press("Enter");
  await dialog.getByText("The server does not know that key.").waitFor();
  await page.keyboard.type(key);
  await page.keyboard.press("Enter");
  await page.waitForSelector("body[data-ready]");
  errorsWereWanted();
  const job = await draw(page, { prompt: "a red apple", sampler: "dpmms", steps: 8, cache: "N3" });
  await drawn(page);
  assert.equal((await api(`/v1/jobs/${job.id}`, { key })).status, "done");
  assert.equal((await api(`/v1/jobs/${job.id}`)).error.code, "invalid_api_key");
  await page.reload();
  await page.waitForSelector("body[data-ready]");
  await page.waitForSelector(".grid img[src^='blob:']");
  assert.equal(await dialog.count(), 0, "it is kept");
  assert.equal(page.url(), `${home}/`);
  assert.deepEqual(await page.context().cookies(), []);
  await page.getByRole("button", { name: "API key" }).click();
  await dialog.waitFor();
  await page.keyboard.press("Escape");
  await page.getByText("This server asks for an API key").waitFor();
  errorsWereWanted();
});

await end();
