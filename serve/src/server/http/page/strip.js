// The step strip: a mark for every step, which tells whether the core ran, and what the step took.

import { h } from "./dom.js";
import { duration, t } from "./words.js";

const KINDS = ["refresh", "reuse", "forecast"];
/** Height of a mark whose time is not known, as a share of the strip's. */
const HEIGHTS = { refresh: 1, reuse: 0.38, forecast: 0.38, pending: 0.14 };
const LOWEST = 0.16;

/** The strip of an order of `steps` steps. */
export class Strip {
  #steps;
  #told = [];
  #marks = h("div", { class: "marks", role: "img" });
  #legend = h("ul", { class: "legend" });
  element = h("div", { class: "strip" }, this.#marks, this.#legend);

  constructor(steps) {
    this.#steps = steps;
    for (let i = 0; i < steps; i++) this.#marks.append(h("span", { class: "pending" }));
  }

  /**
   * Shows what was done at the steps so far, and what each took where that is known: `tall` seconds take the full
   * height.
   */
  update(plan, seconds = [], tall = most(seconds)) {
    plan.forEach((kind, i) => this.#mark(this.#marks.children[i], i, kind, seconds[i], tall));
    for (let i = plan.length; i < this.#steps; i++) if (this.#told[i]) this.#mark(this.#marks.children[i], i, "pending");
    const count = (kind) => plan.filter((one) => one === kind).length;
    const counts = Object.fromEntries(KINDS.map((kind) => [kind, count(kind)]));
    const label = t("strip", { steps: plan.length, ...counts });
    const going = plan.length < this.#steps;
    const done = t("strip_going", { done: plan.length, steps: this.#steps });
    this.#marks.setAttribute("aria-label", going ? `${done}. ${label}` : label);
    this.#legend.replaceChildren(...KINDS.filter((kind) => counts[kind] || (going && kind !== "forecast")).map((kind) => {
      const took = middle(seconds.filter((_, i) => plan[i] === kind));
      const each = took === null ? "" : ` · ${t("each", { time: duration(took) })}`;
      return h("li", {}, h("span", { class: `key ${kind}` }), `${counts[kind]} ${t(kind)}${each}`);
    }));
  }

  #mark(mark, i, kind, seconds, tall) {
    const name = KINDS.includes(kind) ? kind : "pending";
    const share = tall && seconds ? Math.min(1, Math.max(LOWEST, seconds / tall)) : HEIGHTS[name];
    const told = `${name} ${Math.round(share * 100)} ${seconds}`;
    if (!mark || this.#told[i] === told) return;
    this.#told[i] = told;
    mark.className = name;
    mark.style.setProperty("--tall", `${Math.round(share * 100)}%`);
    const values = { n: i + 1, kind: t(name), time: duration(seconds ?? 0) };
    mark.title = t(seconds ? "strip_step_took" : "strip_step", values);
  }
}

/** What the longest steps take: nine in ten take no longer. */
export function most(seconds) {
  const sorted = [...seconds].sort((a, b) => a - b);
  return sorted[Math.ceil(sorted.length * 0.9) - 1];
}

/** The median, if there are any. */
function middle(seconds) {
  const sorted = [...seconds].sort((a, b) => a - b);
  return sorted.length ? sorted[sorted.length >> 1] : null;
}
