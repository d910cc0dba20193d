// How fast and how heavy the page is: what it weighs, when it paints, whether it jumps, with many pictures and in many tabs.
//
//   scripts/measure-page
import { api, draw, drawn, end, home, open, part } from "./browser.mjs";

const JOBS = 200;
const TABS = 20;

const rows = [];
const tell = (what, figure) => rows.push([what, figure]);
const median = (all) => all.toSorted((a, b) => a - b)[all.length >> 1];
const resident = async () => {
  const text = await (await fetch(`${home}/metrics`)).text();
  return Number(/^process_resident_memory_bytes (\S+)/m.exec(text)[1]) / 2 ** 20;
};

/// Collects layout shifts and slow events of a page from its beginning.
async function watched(options = {}) {
  const page = await open({ ready: false, url: "about:blank", ...options });
  await page.addInitScript(() => {
    window.seen = { shift: 0, slow: [] };
    new PerformanceObserver((list) => list.getEntries().forEach((one) => { if (!one.hadRecentInput) window.seen.shift += one.value; }))
      .observe({ type: "layout-shift", buffered: true });
    new PerformanceObserver((list) => list.getEntries().forEach(({ name, duration, interactionId, startTime, processingEnd, target }) => {
      const what = `${name} in #${target?.closest?.("[id]")?.id}`;
      if (interactionId) window.seen.slow.push({ what, duration, busy: processingEnd - startTime, interactionId });
    })).observe({ type: "event", buffered: true, durationThreshold: 16 });
  });
  await page.goto(home);
  await page.waitForSelector("body[data-ready]");
  return page;
}

async function cold() {
  const paints = [];
  for (let i = 0; i < 5; i++) {
    const page = await watched(); // each with a cache of its own
    paints.push(await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0].startTime));
    if (i === 4) {
      const sent = await page.evaluate(() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
        .filter(({ name }) => !name.includes("/v1/")).map(({ decodedBodySize }) => decodedBodySize));
      tell("weight of a first visit", `${sent.reduce((sum, bytes) => sum + bytes)} bytes in ${sent.length} files`);
    }
    await page.context().close();
  }
  tell("first content, cold load, median of 5 (slowest)", `${median(paints).toFixed(0)} ms (${Math.max(...paints).toFixed(0)} ms)`);
}

async function shift() {
  const page = await watched();
  await drawn(page, await draw(page, { prompt: "a red apple", sampler: "dpmms", steps: 10, cache: "N3" }));
  await page.waitForTimeout(500);
  tell("layout shift from the load to a first picture", (await page.evaluate(() => window.seen.shift)).toFixed(4));
  await page.context().close();
}

/// Shows all that the gallery has; its button goes when there is no more.
async function whole(page) {
  const more = page.getByRole("button", { name: "Show more" });
  while (await more.isVisible()) await more.click({ timeout: 2000 }).catch(() => {});
}

async function many() {
  for (let i = 0; i < JOBS; i++) {
    const job = await api("/v1/jobs", { method: "POST", body: { prompt: `picture ${i}`, steps: 1, sampler: "ddim" } });
    while (i % 50 === 49 && (await api(`/v1/jobs/${job.id}`)).status !== "done") await new Promise((resolve) => setTimeout(resolve, 100));
  }
  const page = await watched();
  await whole(page);
  const tiles = await page.locator(".grid li").count();
  const before = await resident();
  const job = await api("/v1/jobs", { method: "POST", body: { prompt: "watched by all", steps: 100, sampler: "ddim", n: 4, preview_every: 10 } });
  const tabs = [];
  for (let i = 1; i < TABS; i++) tabs.push(await watched({ viewport: { width: 800, height: 600 } }));
  await page.reload();
  await page.waitForSelector(`#stage[data-id="${job.id}"]`);
  await whole(page);
  let most = 0;
  const look = setInterval(async () => { most = Math.max(most, await resident().catch(() => 0)); }, 200);
  await page.evaluate(() => (window.seen.slow = []));
  for (const text of ["picture 1", "picture 19", ""]) {
    await page.locator("#search").click();
    await page.keyboard.press("Control+A");
    await page.keyboard.press("Delete");
    if (text) await page.keyboard.type(text);
  }
  for (const i of [3, 40, 120]) await page.locator(".grid button").nth(i).click();
  await page.getByRole("button", { name: "♥ Favourites" }).click();
  await page.getByRole("button", { name: "♥ Favourites" }).click();
  for (const ask of (await page.locator(".ask:visible").all()).slice(0, 4)) await ask.click();
  await page.keyboard.press("Tab");
  await page.waitForTimeout(500);
  clearInterval(look);
  const slow = await page.evaluate(() => window.seen.slow);
  // An interaction is as long as the longest of its events.
  const longest = (figure) => {
    const all = new Map();
    for (const event of slow) all.set(event.interactionId, Math.max(event[figure], all.get(event.interactionId) ?? 0));
    return [...all.values()].sort((a, b) => a - b);
  };
  const [paint, busy] = [longest("duration"), longest("busy")];
  const live = (await api(`/v1/jobs/${job.id}`)).status;
  const all = `${paint.length} interactions of 16 ms or more, ${tiles} pictures, ${TABS} tabs on a job that is ${live}`;
  tell(`until the next paint: median, slowest of ${all}`, `${median(paint)} ms, ${paint.at(-1)} ms`);
  const slowest = slow.toSorted((a, b) => b.duration - a.duration).slice(0, 3);
  tell("the slowest events", slowest.map(({ what, duration }) => `${what} ${duration} ms`).join(", "));
  tell("until the page has done its part of them: median, slowest", `${median(busy).toFixed(0)} ms, ${busy.at(-1).toFixed(0)} ms`);
  tell(`resident memory of the server: with one tab, the most with ${TABS}`, `${before.toFixed(1)}, ${most.toFixed(1)} MiB`);
  await api(`/v1/jobs/${job.id}`, { method: "DELETE" });
}

await part("cold loads", cold);
await part("layout shift", shift);
await part("many pictures and tabs", many);
console.log(`\n| what | figure |\n|---|--:|\n${rows.map(([what, figure]) => `| ${what} | ${figure} |`).join("\n")}`);
await end();
