// Texts that would be markup or scripts if anything read them so: in prompts, file names, PNG texts, names of models and errors.
import assert from "node:assert/strict";
import { api, drawn, errorsWereWanted, home, open, search } from "./browser.mjs";

const RUN = "window.hacked=1";
const TAGS = ["script", "img", "svg", "iframe", "body", "details", "video", "audio", "input", "marquee", "object", "embed"];
const EVENTS = ["onload", "onerror", "onclick", "onfocus autofocus tabindex=0 onblur", "ontoggle open ontoggle", "onmouseover"];

export const strings = [
  `<script>${RUN}</script>`, `</script><script>${RUN}</script>`, `"><script>${RUN}</script>`, `'><script>${RUN}</script>`,
  ...TAGS.map((tag) => `<${tag} src=x onerror=${RUN} onload=${RUN}>`),
  ...EVENTS.map((event) => `<img src=x ${event}=${RUN}>`), ...EVENTS.map((event) => `" ${event}="${RUN}`),
  ...EVENTS.map((event) => `<svg ${event}=${RUN}></svg>`),
  `javascript:${RUN}`, `JaVaScRiPt:${RUN}`, `\tjava\nscript:${RUN}`, `data:text/html,<script>${RUN}</script>`,
  `<a href="javascript:${RUN}">x</a>`, `<form action="javascript:${RUN}"><button>x</button></form>`,
  `<iframe srcdoc="<script>parent.hacked=1</script>">`, `<object data="javascript:${RUN}">`, `<base href="//evil.example/">`,
  `<meta http-equiv="refresh" content="0;url=javascript:${RUN}">`, `<link rel=stylesheet href=//evil.example/x.css>`,
  `<style>@import "//evil.example/x.css"</style>`, `<math><mtext><script>${RUN}</script></mtext></math>`,
  `<template><script>${RUN}</script></template>`, `<!--><script>${RUN}</script>-->`, `<![CDATA[><script>${RUN}</script>]]>`,
  `\${${RUN}}`, `{{constructor.constructor("${RUN}")()}}`, `\`;${RUN};//`, `');${RUN};//`, `\\");${RUN};//`,
  `&lt;script&gt;${RUN}&lt;/script&gt;`, `&#60;script&#62;${RUN}&#60;/script&#62;`, `%3Cscript%3E${RUN}%3C/script%3E`,
  `\u202e<script>${RUN}</script>`, `\ufeff<script>${RUN}</script>`, `<scr\u0000ipt>`.replace("\u0000", "") + RUN,
  `\u2028<script>${RUN}</script>`, `＜script＞${RUN}＜/script＞`, `__proto__`, `constructor`, `toString`, `../../etc/passwd`,
  `<dialog open><form method=dialog><button autofocus onfocus=${RUN}>`, `<slot onslotchange=${RUN}>`, `url(javascript:${RUN})`,
];

/// Drops a file on the page.
export async function drop(page, name, bytes) {
  await page.evaluate(({ name, bytes }) => {
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
    document.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
  }, { name, bytes });
}

/// A PNG, as far as texts go, with these parameters; CRCs are nobody's concern.
function png(parameters) {
  const data = Buffer.concat([Buffer.from("hydit\0\0\0\0\0", "latin1"), Buffer.from(JSON.stringify(parameters))]);
  const head = Buffer.alloc(8);
  head.writeUInt32BE(data.length);
  head.write("iTXt", 4, "latin1");
  return [...Buffer.concat([Buffer.from("\x89PNG\r\n\x1a\n", "latin1"), head, data, Buffer.alloc(4)])];
}

async function unharmed(page, what) {
  await page.evaluate(() => new Promise(requestAnimationFrame));
  assert.equal(await page.evaluate(() => window.hacked), undefined, what);
  const strange = await page.evaluate(() => document.querySelectorAll(
    "script:not([src='/page/main.js']), iframe, object, embed, base, style, link:not([href^='/page/']), video, audio, marquee, template, [onerror], [onload], [onclick], [onfocus], [href^='javascript' i]").length);
  assert.equal(strange, 0, what);
}

/// The part of the test.
export async function hostile() {
  assert.ok(strings.length >= 60, `${strings.length}`);
  const jobs = [];
  for (const prompt of strings) {
    const body = { prompt, negative_prompt: prompt, steps: 1, sampler: "ddim", cache: "off" };
    jobs.push(await api("/v1/jobs", { method: "POST", body }));
    assert.equal(jobs.at(-1).request?.prompt, prompt, JSON.stringify(jobs.at(-1)));
    while (jobs.length % 20 === 0 && (await api(`/v1/jobs/${jobs.at(-1).id}`)).status !== "done");
  }
  while ((await api(`/v1/jobs/${jobs.at(-1).id}`)).status !== "done");
  const page = await open();
  await search(page, "hacked");
  for (const tile of (await page.locator(".grid button").all()).slice(0, 25)) {
    await tile.click();
    await drawn(page);
  }
  await unharmed(page, "prompts");

  for (const text of strings) {
    const made = { prompt: text, negative_prompt: text, width: 128, height: 128, steps: 4, guidance_scale: 5, sampler: text, spacing: text, seed: 1, cache_policy: text, model: text };
    await drop(page, `${text}.png`, png(made));
    await page.waitForFunction((text) => document.getElementById("prompt").value === text.replace(/\r\n?/g, "\n"), text);
    await drop(page, `${text}.png`, [1, 2, 3]);
  }
  await unharmed(page, "PNG texts and file names");

  // The server takes no such names, and says no such things; the page must not rely on that.
  const real = await api("/v1/capabilities");
  let text = "";
  await page.route("**/v1/capabilities", (route) => route.fulfill({ json: { ...real, version: text, models: real.models.map((model) => (
    { ...model, id: text, variant: text, defaults: { ...model.defaults, cache: text, negative_prompt: text },
      calibrations: [{ sampler: "ddpm", spacing: "leading", steps: model.defaults.steps, guidance: 5, schedules: [], error: text }] })) } }));
  await page.route("**/v1/jobs", (route) => route.fulfill({ json: { error: { message: text, code: text, param: text } }, status: 418 }));
  for (text of strings.filter((_, i) => i % 3 === 0)) {
    await page.goto(home);
    await page.waitForSelector("body[data-ready]");
    await page.fill("#prompt", text);
    await page.evaluate(() => document.getElementById("form").requestSubmit());
    await page.waitForSelector("#trouble .trouble, .wrong:visible");
    await unharmed(page, `names and errors: ${text}`);
  }
  const presets = strings.map((name) => ({ name, settings: { prompt: name, sampler: name, spacing: name, cache: name, size: name, lora: [{ name, weight: name }] } }));
  await page.route("**/v1/presets", (route) => route.fulfill({ json: { data: presets } }));
  const grid = { axes: [{ name: "cache", values: strings }], ids: strings.map(() => null) };
  await page.evaluate((grid) => localStorage.setItem("hydit-grid", JSON.stringify(grid)), grid);
  await page.goto(home);
  await page.waitForSelector("body[data-ready]");
  for (const i of strings.keys()) await page.selectOption("#preset", String(i));
  await unharmed(page, "presets and a grid");
  await page.unroute("**/v1/presets");
  await page.unroute("**/v1/jobs");
  await page.unroute("**/v1/capabilities");
  for (const { id } of jobs) await api(`/v1/jobs/${id}`, { method: "DELETE" });
  errorsWereWanted();
  await injected();
  errorsWereWanted(/Content Security Policy|Trusted/);
}

/// Even what got into the page would not run.
async function injected() {
  const page = await open();
  const [said, blocked] = await page.evaluate(async () => {
    const blocked = [];
    document.addEventListener("securitypolicyviolation", (event) => blocked.push(event.effectiveDirective));
    const said = [];
    const attempt = (work) => { try { work(); } catch (error) { said.push(error.name); } };
    attempt(() => { document.body.innerHTML += "<img src=x onerror='window.hacked=1'>"; });
    attempt(() => { const script = document.createElement("script"); script.append("window.hacked=1"); document.body.append(script); });
    attempt(() => { const script = document.createElement("script"); script.src = "data:text/javascript,window.hacked=1"; });
    attempt(() => { setTimeout("window.hacked=1"); });
    attempt(() => { document.body.setAttribute("onclick", "window.hacked=1"); document.body.click(); });
    await new Promise((resolve) => setTimeout(resolve, 200));
    return [said, blocked];
  });
  assert.equal(await page.evaluate(() => window.hacked), undefined);
  assert.ok(said.length >= 2 && blocked.length >= 3, `${said} ${blocked}`);

  await page.route(`${home}/`, async (route) => {
    const response = await route.fetch();
    const body = (await response.text()).replace("<main>", `<script>${RUN}</script><main onclick="${RUN}"><style>main { display: none }</style>`);
    assert.ok(body.includes(RUN));
    await route.fulfill({ response, body });
  });
  await page.goto(home);
  await page.waitForSelector("body[data-ready]");
  await page.click("main", { position: { x: 2, y: 2 } });
  assert.equal(await page.evaluate(() => window.hacked), undefined, "an inline script is blocked");
  assert.ok(await page.locator("#prompt").isVisible(), "an inline style is blocked");
}
