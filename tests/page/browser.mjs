// Chromium before the page, and all that must hold whatever is done there: nothing in the console, no other site asked.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import assert from "node:assert/strict";
import { chromium } from "playwright-core";

export const home = process.env.HYDIT_URL;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
const trouble = [];
let failed = 0;

/// A page that has read the server's jobs; with `options` of a Playwright context, and `ready: false` before that.
export async function open({ ready = true, url = home, ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, locale: "en-GB", ...options });
  const page = await context.newPage();
  page.on("console", (message) => message.type() === "error" && trouble.push(message.text()));
  page.on("pageerror", (error) => trouble.push(error.stack));
  page.on("dialog", (dialog) => { trouble.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on("request", (request) => {
    const own = request.url().startsWith(`${home}/`) || request.url().startsWith("blob:");
    if (!own) trouble.push(`asked for ${request.url()}`);
    if (/prompt|cat|%E7/i.test(new URL(request.url()).search)) trouble.push(`in a URL: ${request.url()}`);
  });
  await page.goto(url);
  if (ready) await page.waitForSelector("body[data-ready]");
  return page;
}

/// Forgets the console's lines about answers that are errors, or about what `pattern` says, where they are wanted.
export function errorsWereWanted(pattern = /^Failed to load resource/) {
  const kept = trouble.filter((line) => !pattern.test(line));
  trouble.splice(0, trouble.length, ...kept);
}

/// Violations of axe-core's rules on the page as it is.
export async function violations(page) {
  await page.evaluate(axe);
  const found = await page.evaluate(() => axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
  return found.violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.target} ${node.failureSummary}`).join("; ")}`);
}

/// Keeps a picture of the page, if SCREENSHOTS is a folder.
export async function look(page, name, options = {}) {
  if (process.env.SCREENSHOTS) await page.screenshot({ path: path.join(process.env.SCREENSHOTS, `${name}.png`), ...options });
}

/// Does a part of the test, and tells how it went.
export async function part(name, work) {
  const begun = performance.now();
  try {
    await work();
    const found = trouble.splice(0);
    assert.deepEqual(found, []);
    console.log(`ok   ${name} (${((performance.now() - begun) / 1000).toFixed(1)} s)`);
  } catch (error) {
    failed += 1;
    console.error(`FAIL ${name}\n${error.stack}\n${trouble.splice(0).join("\n")}`);
  }
}

/// Searches the gallery, and waits for what is found.
export async function search(page, text) {
  await page.fill("#search", text);
  await settled(page);
}

/// Waits until the gallery shows what was asked for.
export const settled = (page) => page.locator("ul.grid:not([aria-busy])").waitFor({ state: "attached" });

/// Ends the test.
export async function end() {
  await browser.close();
  process.exitCode = failed ? 1 : 0;
}

/// What the server answers to the page's own requests, as JSON.
export async function api(way, { method = "GET", body, key } = {}) {
  const headers = { ...(body && { "content-type": "application/json" }), ...(key && { authorization: `Bearer ${key}` }) };
  const answer = await fetch(home + way, { method, headers, body: body && JSON.stringify(body) });
  return answer.status === 204 ? null : answer.json();
}

/// Orders `fields` with the form and returns the job, which may go on.
export async function draw(page, fields) {
  await page.evaluate(() => document.querySelector("#settings").setAttribute("open", ""));
  for (const [name, value] of Object.entries(fields)) {
    const select = ["model", "sampler", "spacing", "cache"].includes(name);
    await (select ? page.selectOption(`#${name}`, value) : page.fill(`#${name}`, String(value)));
  }
  const answer = page.waitForResponse((response) => response.url().endsWith("/v1/jobs") && response.request().method() === "POST");
  await page.click("#draw");
  return (await answer).json();
}

/// Waits for a picture on the stage: that of the order, if one is given.
export async function drawn(page, job) {
  const stage = job ? `#stage[data-id="${job.id}"]` : "#stage";
  await page.waitForSelector(`${stage}[data-status="done"] img.shown[src^='blob:']`, { timeout: 120_000 });
}
