// A picture beside its twin without the cache: a slider between both, and how alike they are.

import { h } from "./dom.js";
import { psnr, ssim } from "./measure.js";
import { pixels, show } from "./pictures.js";
import { Strip, most } from "./strip.js";
import { duration, t } from "./words.js";

/** Both pictures `index` of two jobs, the one without the cache on the left. */
export function comparison(job, twin, index) {
  const [with_, without] = [job, twin].map(({ result }) => result.pictures[index].url);
  const [width, height] = job.request.size.split("x").map(Number);
  const image = (name) => h("img", { class: name, alt: "", width, height });
  const [below, above] = [image("below"), image("above")];
  const slider = h("input", { type: "range", min: 0, max: 100, value: 50, step: 0.5, "aria-label": t("compare_slider"),
    oninput: () => frame.style.setProperty("--at", `${slider.value}%`) });
  const frame = h("div", { class: "frame compare" }, below, above, h("span", { class: "divide" }),
    h("span", { class: "tag left" }, t("uncached")), h("span", { class: "tag right" }, t("cached")), slider);
  const figures = h("p", { class: "figures", "aria-live": "polite" });
  const ready = Promise.all([show(below, with_), show(above, without), figure(with_, without, figures)]);
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

async function figure(a, b, place) {
  const [one, other] = await Promise.all([pixels(a), pixels(b)]);
  await new Promise((resolve) => setTimeout(resolve)); // the pictures are shown first
  const ratio = psnr(one, other);
  const alike = ssim(one, other);
  place.textContent = ratio === Infinity ? t("compare_equal") : t("compare_figures",
    { psnr: `${ratio.toFixed(1)} dB`, ssim: alike === null ? "–" : alike.toFixed(4) });
}
