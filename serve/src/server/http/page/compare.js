// A picture beside its twin without the cache: a slider between both, and how alike they are.

import { h } from "./dom.js";
import { alike } from "./measure.js";
import { show } from "./pictures.js";
import { Strip, most } from "./strip.js";
import { duration, t } from "./words.js";

/** Two pictures of the size of `job`, one over the other, with their names: first what is on the left. */
export function slider(job, [left, right], names) {
  const [width, height] = job.request.size.split("x").map(Number);
  const image = (name) => h("img", { class: name, alt: "", width, height });
  const [below, above] = [image("below"), image("above")];
  const middle = h("input", { type: "range", min: 0, max: 100, value: 50, step: 0.5, "aria-label": t("compare_slider"),
    oninput: () => frame.style.setProperty("--at", `${middle.value}%`) });
  const frame = h("div", { class: "frame compare" }, below, above, h("span", { class: "divide" }),
    h("span", { class: "tag left" }, names[0]), h("span", { class: "tag right" }, names[1]), middle);
  frame.style.setProperty("--ratio", width / height);
  return { frame, ready: Promise.all([show(above, left), show(below, right)]) };
}

/** Both pictures `index` of two jobs, the one without the cache on the left. */
export function comparison(job, twin, index) {
  const [with_, without] = [job, twin].map(({ result }) => result.pictures[index].url);
  const { frame, ready: shown } = slider(job, [without, with_], [t("uncached"), t("cached")]);
  const figures = h("p", { class: "figures", "aria-live": "polite" });
  const told = alike(with_, without).then((words) => (figures.textContent = words));
  const ready = Promise.all([shown, told]);
  const [fast, slow] = [job, twin].map(({ result }) => result.hydit.drawing_seconds);
  const speed = t("compare_speed",
    { cached: duration(fast), uncached: duration(slow), speed: (slow / fast).toFixed(2) });
  return { frame, words: [figures, h("p", { class: "quiet" }, `${speed} ${t("compare_meaning")}`)], ready,
    strips: strips([[job, t("cached")], [twin, t("uncached")]]) };
}

/** The strips of both, on one scale. */
function strips(both) {
  const tall = most(both.flatMap(([{ result }]) => result.step_seconds ?? []));
  return both.map(([job, name]) => {
    const strip = new Strip(job.steps);
    strip.update(job.plan, job.result.step_seconds, tall);
    return h("div", {}, h("p", { class: "label" }, name), strip.element);
  });
}
