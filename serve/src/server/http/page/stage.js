// The middle of the page: the order that was chosen last, from the queue to its pictures.

import { comparison } from "./compare.js";
import { afterPaint, button, confirmed, h, trouble } from "./dom.js";
import { anySeed } from "./words.js";
import { isLive, jobs, left } from "./jobs.js";
import { isFavourite, setFavourites } from "./keep.js";
import { save, show } from "./pictures.js";
import { Strip } from "./strip.js";
import { duration, has, moment, t } from "./words.js";

/** Fields of a request that are not settings of the picture. */
const ASIDE = ["prompt", "preview_every", "output_compression", "metadata", "output_format"];

/** Seconds in the queue that are not worth a word. */
const SHORT = 0.5;

/** Seconds of a step that is soon enough to need no other sign that it goes on. */
const SOON = 1;

/** What an order says of where it is. */
export function status(entry) {
  const { job, plan } = entry;
  if (job.status === "queued") {
    const before = job.queue_position;
    if (before === null || before === undefined) return t("queued");
    return before === 0 ? t("queued_first") : t("queued_after", { n: before });
  }
  if (job.status !== "running") return t(job.status);
  if (plan.length === 0) return t("loading");
  if (plan.length === job.steps) return t("finishing");
  const time = left(entry);
  const words = t("running", { step: plan.length, steps: job.steps });
  return time === null ? words : `${words} · ${t("left", { time: duration(time) })}`;
}

/**
 * The stage. `order` draws fields and images, `fill` puts them into the form, `examples` are prompts, `changed` tells that another order is shown,
 * `kept` that a picture became a favourite or is none any more.
 */
export class Stage {
  #element;
  #acts;
  #id = null;
  #index = 0;
  #comparing = false;
  #live = null;

  constructor(element, acts) {
    this.#element = element;
    this.#acts = acts;
    jobs.addEventListener("job", ({ detail }) => (detail === this.#id || this.#isTwin(detail)) && this.#show());
    jobs.addEventListener("gone", ({ detail }) => detail === this.#id && this.choose(null));
    jobs.addEventListener("step", ({ detail }) => detail === this.#id && this.#live?.step());
    jobs.addEventListener("preview", ({ detail }) => detail === this.#id && this.#live?.preview());
  }

  /** Id of the job that is shown. */
  get id() {
    return this.#id;
  }

  /** Shows a picture of a job, or that there is none. */
  choose(id, index = 0) {
    [this.#id, this.#index, this.#comparing] = [id, index, false];
    this.#show();
    this.#acts.changed();
  }

  #isTwin(id) {
    const own = this.#comparing && jobs.get(this.#id);
    return own && jobs.twin(own.job)?.id === id;
  }

  #show() {
    const entry = jobs.get(this.#id);
    Object.assign(this.#element.dataset, { id: entry?.job.id ?? "", status: entry?.job.status ?? "" });
    const focused = this.#element.contains(document.activeElement) && document.activeElement.dataset.act;
    const parts = !entry ? this.#empty() : isLive(entry.job) ? this.#underWay(entry)
      : entry.job.status === "done" ? this.#done(entry) : this.#ended(entry);
    this.#element.replaceChildren(...parts.flat().filter(Boolean));
    const prompt = this.#element.querySelector(".prompt");
    afterPaint(() => prompt?.scrollHeight > prompt?.clientHeight && (prompt.tabIndex = 0)); // keys scroll it
    if (focused) this.#element.querySelector(`[data-act="${focused}"]`)?.focus();
  }

  #empty() {
    this.#live = null;
    const example = (prompt) => button(prompt, () => this.#acts.prompt(prompt), { class: "example" });
    return [h("div", { class: "empty" }, h("div", { class: "bars", "aria-hidden": "true" },
      [1, 0, 0, 1, 0, 0, 1].map((tall) => h("span", { class: tall ? "refresh" : "reuse" }))),
    h("h2", {}, t("empty")), h("p", {}, t("empty_text")),
    h("div", { class: "examples" }, this.#acts.examples().map(example)),
    h("p", { class: "quiet" }, t("empty_drop")))];
  }

  #underWay(entry) {
    const { job } = entry;
    const strip = new Strip(job.steps);
    const said = h("p", { class: "status" });
    const frame = this.#frame(job, "under-way");
    const image = h("img", { alt: t("preview_of", { prompt: job.request.prompt }), class: "preview", hidden: true });
    const wait = h("span", { class: "wait", "aria-hidden": "true" });
    frame.append(image, wait);
    const step = () => {
      wait.hidden = entry.plan.length < job.steps && entry.seconds.at(-1) < SOON;
      strip.update(entry.plan, entry.seconds);
      said.textContent = status(entry);
    };
    const preview = () => {
      const url = entry.previews[this.#index] ?? entry.previews[0];
      image.hidden = !url;
      if (url) image.src = url;
    };
    this.#live = { step, preview };
    step();
    preview();
    return [h("h2", { class: "prompt" }, job.request.prompt), frame, said, strip.element,
      h("div", { class: "actions" }, button(t("cancel"), () => jobs.remove(job.id), { "data-act": "cancel" }))];
  }

  #ended({ job }) {
    this.#live = null;
    const { code = "", message = "" } = job.error ?? {};
    const known = has(`error_${code}`) ? t(`error_${code}`) : "";
    return [h("h2", { class: "prompt" }, job.request.prompt), h("div", { class: "empty" },
      h("h3", {}, t(job.status)), known && h("p", {}, known), message && h("p", { class: "quiet" }, message)),
    h("div", { class: "actions" },
      jobs.again(job) && [
        button(t("retry"), () => this.#acts.order(jobs.again(job), jobs.get(job.id).images), { class: "main", "data-act": "retry" }),
        button(t("again"), () => this.#acts.fill(job.request), { title: t("again_title"), "data-act": "again" })],
      button(t("dismiss"), () => jobs.remove(job.id), { "data-act": "dismiss" })), this.#parameters(job)];
  }

  #done({ job, plan, seconds }) {
    this.#live = null;
    const { pictures, hydit } = job.result;
    this.#index = Math.min(this.#index, pictures.length - 1);
    const picture = pictures[this.#index];
    const strip = new Strip(job.steps);
    strip.update(plan, seconds);
    const waited = hydit.queued_seconds >= SHORT && duration(hydit.queued_seconds);
    const twin = this.#comparing ? jobs.twin(job) : null;
    const compared = twin?.status === "done" ? comparison(job, twin, this.#index) : null;
    compared?.ready.catch(trouble);
    const saved = job.steps - hydit.core_runs;
    return [h("h2", { class: "prompt" }, job.request.prompt),
      compared?.frame ?? this.#picture(job, picture),
      pictures.length > 1 && this.#choices(job),
      this.#comparing && !compared && h("p", { class: "status", role: "status" }, twin ? status(jobs.get(twin.id))
        : t("compare_wait")),
      compared?.words, compared?.strips ?? strip.element,
      h("p", { class: "told" }, t(saved ? "saved" : "unsaved", { runs: hydit.core_runs, steps: job.steps, saved }), " ",
        t("times", { drawing: duration(hydit.drawing_seconds) }), waited && ` ${t("waited", { queued: waited })}`),
      hydit.truncated.length > 0 && h("p", { class: "wrong" },
        t("truncated", { fields: hydit.truncated.map((name) => t(name)).join(", ") })),
      this.#actions(job, picture), this.#parameters(job, picture)];
  }

  #picture(job, picture) {
    const frame = this.#frame(job);
    if (!picture.kept) {
      frame.append(h("p", { class: "quiet" }, t("not_kept")));
      return frame;
    }
    const [width, height] = job.request.size.split("x");
    const alt = t("picture_alt", { prompt: job.request.prompt, seed: picture.seed });
    const image = h("img", { alt, width, height, class: "shown" });
    frame.append(image);
    show(image, picture.url).catch(trouble);
    return frame;
  }

  #choices(job) {
    const { pictures } = job.result;
    return h("div", { class: "choices" }, pictures.map((picture, i) => {
      const image = h("img", { alt: "" });
      if (picture.kept) show(image, picture.url).catch(() => {});
      return h("button", { type: "button", "data-act": `picture-${i}`, "aria-pressed": String(i === this.#index),
        "aria-label": t("picture_n", { i: i + 1, n: pictures.length }), onclick: () => {
          this.#index = i;
          this.#show();
        } }, image);
    }));
  }

  #actions(job, picture) {
    const { request } = job;
    const favourite = isFavourite(picture.url);
    const compare = async () => {
      this.#comparing = !this.#comparing;
      this.#show();
      this.#element.scrollIntoView({ block: "start" });
      if (!this.#comparing || jobs.twin(job)) return;
      const seed = job.result.pictures[0].seed;
      const again = { ...jobs.again(job), seed, cache: "off", output_format: "png", output_compression: null };
      await jobs.order(plain(again), jobs.get(job.id).images);
      this.#show();
    };
    const remove = async () => {
      const { length } = job.result.pictures;
      const question = length === 1 ? t("delete_one") : t("delete_all", { n: length });
      if (await confirmed(question, t("delete"))) await jobs.remove(job.id);
    };
    return h("div", { class: "actions" },
      request.cache !== "off" && jobs.again(job) && picture.kept && button(t(this.#comparing ? "compare_end" : "compare"), compare,
        { class: "main", "data-act": "compare" }),
      jobs.again(job) && [
        button(t("again"), () => this.#acts.fill({ ...request, seed: picture.seed, n: 1 }),
          { title: t("again_title"), "data-act": "again" }),
        button(t("vary"), () => this.#acts.order({ ...jobs.again(job), seed: anySeed() }, jobs.get(job.id).images),
          { title: t("vary_title"), "data-act": "vary" })],
      picture.kept && button(t("download"), () => save(picture.url, `hydit-${picture.seed}`), { "data-act": "download" }),
      button(favourite ? "♥" : "♡", () => {
        setFavourites([picture.url], !favourite);
        this.#acts.kept();
        this.#show();
      }, { "aria-label": t("favourite"), title: t("favourite"), "aria-pressed": String(favourite), "data-act": "favourite" }),
      button(t("delete"), remove, { class: "danger", "data-act": "delete" }));
  }

  #parameters(job, picture) {
    const rows = Object.entries(job.request).filter(([name, value]) => !ASIDE.includes(name) && value !== "" && value !== null);
    if (picture) rows.push(["seed", picture.seed]);
    const all = { ...Object.fromEntries(rows), drawn_at: job.finished_at && moment(job.finished_at), id: job.id };
    return h("details", { class: "parameters" }, h("summary", {}, t("parameters")),
      h("dl", {}, Object.entries(all).filter(([, value]) => value).map(([name, value]) =>
        [h("dt", {}, has(name) ? t(name) : name), h("dd", {}, shown(value))]).flat()));
  }

  #frame(job, name = "") {
    const frame = h("div", { class: `frame ${name}` });
    const [width, height] = job.request.size.split("x").map(Number);
    frame.style.setProperty("--ratio", width / height);
    return frame;
  }
}

/** A setting as text; of a LoRA its name and weight. */
const shown = (value) => (Array.isArray(value) ? value.map(({ name, weight }) => `${name} ${weight}`).join(", ") : String(value));

/** A request as it is ordered again. */
export function plain(request) {
  const fields = Object.entries(request).filter(([, value]) => value !== null && value !== undefined);
  return Object.fromEntries(fields);
}
