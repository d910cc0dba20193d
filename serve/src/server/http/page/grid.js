// A grid: one picture for each value of one or two settings, how alike each is to one of them, and a slider between two.

import { slider } from "./compare.js";
import { button, h, trouble } from "./dom.js";
import { isLive, jobs } from "./jobs.js";
import { grid as kept, isFavourite, keepGrid, setFavourites } from "./keep.js";
import { alike } from "./measure.js";
import { saveAll, show } from "./pictures.js";
import { status } from "./stage.js";
import { duration, t } from "./words.js";

const AXES = ["cache", "sampler", "steps", "guidance", "pag_scale", "seed", "strength"];
const NUMBERS = ["steps", "guidance", "pag_scale", "seed", "strength"];
/** Most pictures of a grid. */
const MOST = 36;
/** Seconds before it is tried again while the queue is full, where the server does not say. */
const SOON = 2;

/** The settings that go over a grid: their names and values. */
export class Axes {
  #lines = [0, 1].map((i) => {
    const name = h("select", { id: `axis-${i}`, "aria-label": t("grid_axis", { n: i + 1 }) },
      i === 1 && h("option", { value: "" }, t("grid_none")), AXES.map((axis) => h("option", { value: axis }, t(axis))));
    const values = h("input", { id: `axis-values-${i}`, "aria-label": t("grid_values", { n: i + 1 }),
      placeholder: i === 0 ? "off, N2, N3, N4" : "" });
    return { name, values };
  });
  element;

  constructor(draw) {
    this.element = h("details", { id: "axes" }, h("summary", {}, t("grid")), h("p", { class: "quiet" }, t("grid_help")),
      this.#lines.map(({ name, values }) => h("div", { class: "two" }, name, values)),
      button(t("grid_draw"), () => draw(this.#value())));
  }

  /** Offers the settings that a model has. */
  offer({ pag_layers, image_to_image }) {
    const lacks = { pag_scale: !pag_layers.length, strength: !image_to_image };
    for (const { name } of this.#lines) {
      for (const option of name.options) option.hidden = option.disabled = lacks[option.value] ?? false;
      if (lacks[name.value]) name.selectedIndex = 0;
    }
  }

  #value() {
    const axes = this.#lines.map(({ name, values }) => ({ name: name.value, values: values.value.split(/[,，、;]/)
      .map((value) => value.trim()).filter(Boolean).map((value) => (NUMBERS.includes(name.value) ? Number(value) : value)) }));
    const used = axes.filter(({ name, values }) => name && values.length);
    const cells = used.reduce((product, { values }) => product * values.length, 1);
    if (!used.length || cells < 2 || cells > MOST || (used.length === 2 && used[0].name === used[1].name)) {
      throw new Error(t("grid_wrong", { n: MOST }));
    }
    return used;
  }
}

/**
 * The grid of the page; `choose` is called with the id of an order that is to be shown alone, `favoured` when its pictures
 * became favourites or are none any more.
 */
export class Grid {
  #element;
  #choose;
  #favoured;
  #grid = kept();
  #at = [0, 1];
  #found = new Map();
  #ordering = null;

  constructor(element, choose, favoured) {
    [this.#element, this.#choose, this.#favoured] = [element, choose, favoured];
    for (const name of ["job", "gone"]) jobs.addEventListener(name, ({ detail }) => this.#grid?.ids.includes(detail) && this.#show());
    jobs.addEventListener("step", ({ detail }) => this.#step(detail));
    this.#show();
    this.#grid?.ids.forEach((id) => id && jobs.find(id).catch(trouble));
  }

  /** Orders one picture for each cell: `fields` but for the values of `axes`. */
  async draw(fields, images, axes) {
    const [columns, rows = { name: null, values: [null] }] = axes;
    const cells = rows.values.flatMap((row) => columns.values.map((column) => ({ [columns.name]: column, ...(rows.name && { [rows.name]: row }) })));
    const grid = { axes, ids: cells.map(() => null) };
    [this.#grid, this.#at, this.#ordering] = [grid, [0, 1], grid];
    this.#found.clear();
    try {
      await this.#fill(grid, cells, fields, images);
    } finally {
      if (this.#ordering === grid) this.#ordering = null;
      if (this.#grid === grid && !grid.ids.some(Boolean)) this.#grid = null;
      this.#show();
    }
  }

  async #fill(grid, cells, fields, images) {
    for (const [i, cell] of cells.entries()) {
      // Each sampler has its own spacing.
      const all = { ...fields, ...images, n: 1, ...("sampler" in cell && { spacing: undefined }), ...cell };
      const job = await this.#order(grid, all, images);
      if (!job) return;
      grid.ids[i] = job.id;
      keepGrid(grid);
      this.#show();
      if (i === 0) this.#element.scrollIntoView({ block: "start" });
    }
  }

  /** Orders when there is room in the queue; nothing once the grid was stopped. */
  async #order(grid, fields, images) {
    for (;;) {
      if (this.#ordering !== grid) return null;
      try {
        return await jobs.order(fields, images);
      } catch (problem) {
        if (!problem.code?.endsWith("queue_full")) throw problem;
        await new Promise((resolve) => setTimeout(resolve, 1000 * (problem.wait ?? SOON)));
      }
    }
  }

  async #close() {
    this.#ordering = null;
    const live = this.#grid.ids.map((id) => jobs.get(id)?.job).filter((job) => job && isLive(job));
    this.#grid = null;
    keepGrid(null);
    this.#show();
    for (const { id } of live) await jobs.remove(id);
  }

  #show() {
    const grid = this.#grid;
    this.#element.hidden = !grid;
    if (!grid) return this.#element.replaceChildren();
    const focused = this.#element.contains(document.activeElement) && document.activeElement.dataset.act;
    const [columns, rows] = grid.axes;
    const head = (axis, value, scope) => h("th", { scope }, `${t(axis)} ${value}`);
    const row = (value, y) => h("tr", {}, rows && head(rows.name, value, "row"),
      columns.values.map((_, x) => h("td", {}, this.#cell(y * columns.values.length + x))));
    const table = h("table", {}, h("thead", {}, h("tr", {}, rows && h("td"), columns.values.map((value) => head(columns.name, value, "col")))),
      h("tbody", {}, (rows?.values ?? [""]).map(row)));
    this.#element.replaceChildren(h("div", { class: "bar" }, h("h2", {}, t("grid")), this.#together(),
      button(t("grid_close"), () => this.#close(), { class: "plain", "data-act": "close" })),
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": t("grid_table") }, table), ...this.#pair());
    this.#element.querySelector(`[data-act="${focused}"]`)?.focus();
    this.#measure(grid).catch(trouble);
  }

  /** What can be done with all pictures. */
  #together() {
    const pictures = this.#grid.ids.map((_, i) => this.#picture(i)).filter(Boolean);
    const urls = pictures.map(({ url }) => url);
    const all = urls.every(isFavourite);
    return urls.length > 0 && [
      button(t(all ? "keep_none" : "grid_keep"), () => {
        setFavourites(urls, !all);
        this.#favoured();
        this.#show();
      }, { class: "plain", "data-act": "keep" }),
      button(t("zip", { n: urls.length }), () => saveAll(pictures, () => {}), { class: "plain", "data-act": "zip" })];
  }

  #cell(i) {
    const id = this.#grid.ids[i];
    const entry = jobs.get(id);
    const job = entry?.job;
    const picture = job?.result?.pictures[0];
    if (!picture?.kept) return h("p", { class: "quiet", "data-id": id }, entry ? status(entry)
      : t(id || this.#ordering !== this.#grid ? "grid_gone" : "queued"));
    const image = h("img", { alt: t("grid_cell", { n: i + 1 }) });
    show(image, picture.url).catch(() => {});
    const { core_runs: runs, drawing_seconds } = job.result.hydit;
    const [reference, chosen] = this.#at;
    const to = (at, act, words, attributes) => h("button", { type: "button", "data-act": `${act}-${i}`, ...attributes,
      "aria-pressed": String(this.#at[at] === i), onclick: () => {
        this.#at[at] = i;
        this.#show();
      } }, words);
    return h("div", { class: `cell${i === reference ? " reference" : i === chosen ? " chosen" : ""}` },
      to(1, "cell", image, { class: "tile" }),
      h("p", {}, t("grid_runs", { runs, steps: job.steps, time: duration(drawing_seconds) })),
      h("p", { class: "alike", "data-cell": i }, i === reference ? t("grid_reference") : this.#found.get(this.#key(i)) ?? "…"),
      h("p", {}, i !== reference && to(0, "reference", t("grid_compare"), { class: "plain" }),
        button(t("grid_alone"), () => this.#choose(id), { class: "plain", "aria-label": `${t("grid_alone")}: ${i + 1}` })));
  }

  #key(i) {
    return `${this.#at[0]} ${i}`;
  }

  #picture(i) {
    const picture = jobs.get(this.#grid.ids[i])?.job.result?.pictures[0];
    return picture?.kept ? picture : null;
  }

  #name(i) {
    const [columns, rows] = this.#grid.axes;
    const { length } = columns.values;
    return [columns.values[i % length], rows?.values[Math.floor(i / length)]].filter((value) => value !== undefined).join(" · ");
  }

  #pair() {
    const urls = this.#at.map((i) => this.#picture(i)?.url);
    if (!urls.every(Boolean) || this.#at[0] === this.#at[1]) return [];
    const { frame, ready } = slider(jobs.get(this.#grid.ids[this.#at[0]]).job, urls, this.#at.map((i) => this.#name(i)));
    ready.catch(trouble);
    return [frame];
  }

  /** Fills in how alike each picture is to the reference, one after the other. */
  async #measure(grid) {
    const reference = this.#picture(this.#at[0])?.url;
    for (const i of grid.ids.keys()) {
      const [key, url] = [this.#key(i), this.#picture(i)?.url];
      if (!reference || !url || i === this.#at[0] || this.#found.has(key)) continue;
      this.#found.set(key, "…");
      const words = await alike(reference, url).catch(() => "–");
      if (this.#grid !== grid) return;
      this.#found.set(key, words);
      const place = this.#element.querySelector(`[data-cell="${i}"]`);
      if (place && key === this.#key(i)) place.textContent = words;
    }
  }

  #step(id) {
    const place = this.#grid && this.#element.querySelector(`p[data-id="${id}"]`);
    if (place) place.textContent = status(jobs.get(id));
  }
}
