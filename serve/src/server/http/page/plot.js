// What calibrations expect: PSNR over the number of core runs, a point for each schedule.

import { h, svg } from "./dom.js";
import { t } from "./words.js";

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT] = [320, 150, 34, 24, 10, 10];
/** From this many dB on, differences are hard to see; `usual` asks for as much. */
const HARD_TO_SEE = 35;
/** How much less than the mean one picture in ten may have. */
const TAIL = 3;

/** The schedule that `auto:<quality>dB` takes: the fewest core runs that keep the quality. */
export function keeping(schedules, quality) {
  return schedules.find(({ psnr, psnr_p10 }) => psnr >= quality && psnr_p10 >= quality - TAIL);
}

/** The schedule that `auto:<n>runs` takes: the best with at most so many core runs. */
export function within(schedules, runs) {
  const fit = schedules.filter(({ core_runs }) => core_runs <= runs);
  return fit.reduce((best, one) => (!best || one.psnr + one.psnr_p10 >= best.psnr + best.psnr_p10 ? one : best), null);
}

/** The plot; `choose` is called with the core runs of a point that is clicked. */
export function plot(schedules, steps, chosen, choose) {
  const figures = schedules.flatMap(({ psnr, psnr_p10 }) => [psnr, psnr_p10, HARD_TO_SEE]);
  const [low, high] = [Math.floor(Math.min(...figures) / 10) * 10, Math.ceil(Math.max(...figures) / 10) * 10];
  const x = (runs) => LEFT + (runs / steps) * (WIDTH - LEFT - RIGHT);
  const y = (db) => HEIGHT - BOTTOM - ((db - low) / (high - low)) * (HEIGHT - BOTTOM - TOP);
  const line = (name) => schedules.map((one) => `${x(one.core_runs).toFixed(1)},${y(one[name]).toFixed(1)}`).join(" ");
  const ticks = [];
  for (let db = low; db <= high; db += 10) ticks.push(db);
  const point = (one) => svg("g", { class: one === chosen ? "point chosen" : "point", onclick: () => choose(one.core_runs) },
    svg("circle", { class: "hit", cx: x(one.core_runs), cy: y(one.psnr), r: 11 }),
    svg("circle", { cx: x(one.core_runs), cy: y(one.psnr), r: one === chosen ? 5.5 : 3.5 }),
    svg("title", {}, `${one.core_runs}: ${one.psnr.toFixed(1)} dB`));
  return h("div", { class: "plot" },
    svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": t("cache_plot") },
      ticks.map((db) => [
        svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(db), y2: y(db) }),
        svg("text", { x: LEFT - 6, y: y(db) + 4, "text-anchor": "end" }, String(db)),
      ]).flat(),
      svg("line", { class: "enough", x1: LEFT, x2: WIDTH - RIGHT, y1: y(HARD_TO_SEE), y2: y(HARD_TO_SEE) }),
      [0, Math.round(steps / 2), steps].map((runs) =>
        svg("text", { x: x(runs), y: HEIGHT - 8, "text-anchor": runs === steps ? "end" : "middle" }, String(runs))),
      svg("polyline", { class: "tail", points: line("psnr_p10") }),
      svg("polyline", { class: "mean", points: line("psnr") }),
      schedules.map(point)),
    h("p", { class: "quiet" }, `${t("cache_plot")}. ${t("cache_scale")}`));
}
