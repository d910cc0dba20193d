// The orders that have no pictures and are not on the stage: under way, failed or cancelled.

import { button, h } from "./dom.js";
import { isLive, jobs } from "./jobs.js";
import { status } from "./stage.js";
import { t } from "./words.js";

/** The list of orders beside `stage`; `choose` is called with the id of one that is to be shown there. */
export class Orders {
  #element;
  #stage;
  #choose;
  #list = h("ul");

  constructor(element, stage, choose) {
    this.#element = element;
    this.#stage = stage;
    this.#choose = choose;
    element.append(h("h2", {}, t("orders")), this.#list);
    jobs.changed(() => this.show());
    jobs.addEventListener("step", ({ detail }) => this.#step(detail));
  }

  /** Shows the orders as they are. */
  show() {
    const entries = jobs.list().filter(({ job }) => job.status !== "done" && job.id !== this.#stage.id);
    const focused = document.activeElement?.closest?.("#orders [data-id]")?.dataset;
    this.#element.hidden = entries.length === 0;
    this.#list.replaceChildren(...entries.reverse().map((entry) => this.#row(entry)));
    if (focused?.id) this.#list.querySelector(`[data-id="${focused.id}"] button`)?.focus();
  }

  #row(entry) {
    const { job } = entry;
    const live = isLive(job);
    const bar = h("progress", { max: job.steps, value: entry.plan.length, "aria-label": job.request.prompt, hidden: !live });
    return h("li", { "data-id": job.id, class: job.status },
      h("button", { type: "button", class: "plain title", onclick: () => this.#choose(job.id) }, job.request.prompt),
      h("span", { class: "quiet" }, status(entry)), bar,
      button(t(live ? "cancel" : "dismiss"), () => jobs.remove(job.id), { class: "plain",
        "aria-label": `${t(live ? "cancel" : "dismiss")}: ${job.request.prompt}` }));
  }

  #step(id) {
    const [entry, row] = [jobs.get(id), this.#list.querySelector(`[data-id="${id}"]`)];
    if (!entry || !row) return;
    row.querySelector("progress").value = entry.plan.length;
    row.querySelector(".quiet").textContent = status(entry);
  }
}
