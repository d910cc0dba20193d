// The page: a form, the order that was chosen last, and the gallery.

import { Problem, json, keyGiven } from "./api.js";
import { afterPaint, news, trouble, untroubled } from "./dom.js";
import { Form } from "./form.js";
import { Gallery } from "./gallery.js";
import { Grid } from "./grid.js";
import { isLive, jobs } from "./jobs.js";
import { apiKey, keepApiKey } from "./keep.js";
import { Orders } from "./orders.js";
import { Stage, plain } from "./stage.js";
import { has, speak, switchLanguage, t } from "./words.js";

const at = (id) => document.getElementById(id);

speak();
at("language").textContent = t("skip") === "To the picture" ? "中文" : "English";
at("language").lang = t("skip") === "To the picture" ? "zh" : "en";
at("language").addEventListener("click", switchLanguage);

let form;
let gallery;
let orders;
let grid;

/** Orders pictures and shows them; what is wrong with a field is said beside it. */
async function order(request, images = null) {
  untroubled();
  try {
    const job = await jobs.order(plain({ ...request, metadata: true }), images && plain(images));
    news(t("news_queued"));
    stage.choose(job.id);
    if (matchMedia("(max-width: 60rem)").matches) at("stage").scrollIntoView();
  } catch (problem) {
    const shown = problem instanceof Problem && problem.param && form.refuse(problem.param, problem.words());
    if (!shown) trouble(problem);
  }
}

/** Orders a grid of pictures. */
async function drawGrid(axes) {
  untroubled();
  const { preview_every, ...fields } = form.values();
  await grid.draw(plain({ ...fields, metadata: true }), plain(await form.images()), axes);
}

/** Fills the form with the settings of a picture. */
function fill(request) {
  const known = form.fill({ ...request, n: request.n ?? 1 });
  news(t("filled"));
  at("prompt").focus();
  return known;
}

async function read(file) {
  untroubled();
  try {
    const { parameters } = await import("./png.js");
    const request = await parameters(file);
    if (!fill(request)) trouble(t("png_model", { model: request.variant ?? "?" }));
  } catch (problem) {
    trouble(has(problem.message) ? t(problem.message) : problem);
  }
}

const stage = new Stage(at("stage"), {
  order,
  fill,
  examples: () => form.examples,
  prompt: (prompt) => fill({ ...form.values(), seed: null, prompt }),
  changed: () => orders.show(),
  kept: () => gallery.show(),
});

function choose(id, index) {
  stage.choose(id, index);
  at("stage").focus({ preventScroll: true });
  afterPaint(() => at("stage").scrollIntoView({ block: "start" }));
}

at("open").addEventListener("click", () => at("file").click());
at("file").addEventListener("change", ({ target }) => {
  if (target.files[0]) read(target.files[0]);
  target.value = "";
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.dataset.drop = t("drop");
});
document.addEventListener("dragleave", ({ relatedTarget }) => relatedTarget ?? delete document.body.dataset.drop);
document.addEventListener("drop", (event) => {
  event.preventDefault();
  delete document.body.dataset.drop;
  const [file] = event.dataTransfer.files;
  if (file && form) read(file);
});

const statuses = new Map();
jobs.addEventListener("job", ({ detail }) => {
  const { job } = jobs.get(detail);
  const before = statuses.get(detail);
  statuses.set(detail, job.status);
  if (before && before !== job.status) news(t(`news_${job.status}`));
  const live = jobs.list().filter(({ job }) => isLive(job)).length;
  document.title = live ? `(${live}) hydit` : "hydit";
});

async function start() {
  const capabilities = await json("/v1/capabilities");
  at("server").textContent = capabilities.version;
  at("key").hidden = !apiKey();
  at("key").addEventListener("click", async () => {
    keepApiKey("");
    await keyGiven(false).catch(() => {});
    location.reload();
  });
  form = new Form(at("form"), capabilities, async () => order(form.values(), await form.images()), drawGrid);
  orders = new Orders(at("orders"), stage, choose);
  gallery = new Gallery(at("gallery"), capabilities, choose);
  await Promise.all([jobs.start(), form.start()]);
  grid = new Grid(at("grid"), choose, () => gallery.show());
  // What is under way comes first; else what was drawn last.
  const all = jobs.list();
  const first = all.findLast(({ job }) => isLive(job)) ?? all.find(({ job }) => job.status === "done");
  stage.choose(first?.job.id ?? null);
  document.body.dataset.ready = "";
}

start().catch(trouble);
