// The cache policy: a choice in words, a curve where the model was calibrated, and what to type where it was not.

import { button, h } from "./dom.js";
import { keeping, plot, within } from "./plot.js";
import { t } from "./words.js";

const INTERVALS = [2, 3, 4, 6];
/** What `usual` asks of a calibration. */
const USUAL = 35;

/** Chooses a cache policy. */
export class Policy {
  #choice = h("select", { id: "cache" });
  #text = h("input", { type: "text", id: "cache-text", maxlength: 64, spellcheck: "false", autocapitalize: "off" });
  #own = h("div", { class: "other", hidden: true }, h("label", { for: "cache-text" }, t("cache_text")), this.#text,
    h("p", { class: "quiet" }, t("cache_text_help")));
  #more = h("div", { class: "curve" });
  #settings = null;
  #runs = null;
  #use;
  element = h("div", {}, this.#choice, this.#own, this.#more);

  /** `use` is called with a calibration whose sampler and steps are wanted. */
  constructor(use) {
    this.#use = use;
    const option = (value, name) => h("option", { value }, name);
    this.#choice.append(option("off", t("cache_off")), option("usual", t("cache_usual")), option("auto", t("cache_auto")),
      ...INTERVALS.map((n) => option(`N${n}`, t("cache_interval", { n }))), option("probe:0.3", t("cache_probe")),
      option("other", t("cache_other")));
    this.#choice.onchange = () => this.#show();
  }

  /** Tells for which model and settings a policy is chosen. */
  update(model, { sampler, spacing, steps, guidance }) {
    const fits = (one) => one.sampler === sampler && one.spacing === spacing && one.steps === steps;
    const found = model.calibrations.find(fits);
    const usable = found && !found.error && found.schedules.length > 0;
    this.#settings = { model, sampler, spacing, steps, guidance, found, schedules: usable ? found.schedules : null };
    this.#choice.querySelector("[value=auto]").disabled = !usable;
    if (this.#choice.value === "auto" && !usable) this.#choice.value = "usual";
    this.#show();
  }

  get value() {
    const { value } = this.#choice;
    if (value === "server") return undefined;
    if (value === "auto") return `auto:${this.#chosen().core_runs}runs`;
    return value === "other" ? this.#text.value.trim() : value;
  }

  /** `null` is the server's schedule, which has no name. */
  set value(policy) {
    this.#choice.querySelector("[value=server]")?.remove();
    if (policy === null) this.#choice.prepend(h("option", { value: "server" }, t("cache_server")));
    const runs = /^auto:(\d+)runs$/.exec(policy ?? "");
    const named = policy === null ? "server" : policy.replace(/^(N\d+)-700-50$/, "$1");
    const known = [...this.#choice.options].some(({ value }) => value === named);
    this.#runs = runs ? Number(runs[1]) : this.#runs;
    this.#choice.value = runs && this.#settings?.schedules ? "auto" : known ? named : "other";
    if (this.#choice.value === "other") this.#text.value = policy;
    this.#show();
  }

  /** The schedule that the policy takes, where that is known. */
  #chosen() {
    const { schedules } = this.#settings;
    if (!schedules) return null;
    if (this.#choice.value === "usual") return keeping(schedules, USUAL);
    if (this.#choice.value !== "auto") return null;
    return within(schedules, this.#runs ?? keeping(schedules, USUAL)?.core_runs ?? Infinity) ?? schedules[0];
  }

  #show() {
    this.#own.hidden = this.#choice.value !== "other";
    if (!this.#settings) return;
    const { schedules } = this.#settings;
    this.#more.replaceChildren(...(schedules ? this.#curve(schedules) : this.#uncalibrated()));
  }

  #curve(schedules) {
    const { steps, model, found, guidance } = this.#settings;
    const chosen = this.#chosen();
    const choose = (runs) => {
      this.#runs = runs;
      this.#choice.value = "auto";
      this.#show();
    };
    const speed = (runs) => steps / (runs + (steps - runs) * model.cached_step_cost);
    const index = Math.max(0, schedules.indexOf(chosen));
    const slider = h("input", { type: "range", id: "runs", min: 0, max: schedules.length - 1, value: index,
      "aria-valuetext": String(chosen?.core_runs ?? ""), oninput: ({ target }) => {
        choose(schedules[target.value].core_runs);
        document.getElementById("runs").focus();
      } });
    const { core_runs: runs, psnr, psnr_p10: p10 } = chosen ?? {};
    return [
      plot(schedules, steps, chosen, choose),
      h("div", { class: "pair" }, h("label", { for: "runs" }, t("cache_runs")), slider),
      chosen && h("p", { class: "expected", "aria-live": "polite" }, t("cache_chosen",
        { runs, steps, psnr: psnr.toFixed(1), p10: p10.toFixed(1), speed: speed(runs).toFixed(1) })),
      found.guidance !== null && guidance > found.guidance
        && h("p", { class: "quiet" }, t("cache_guidance", { n: found.guidance })),
    ].filter(Boolean);
  }

  #uncalibrated() {
    const { model, sampler, spacing, steps, found } = this.#settings;
    const command = `hydit-serve calibrate --model DIR --prompts FILE --sampler ${sampler} --spacing ${spacing} `
      + `--infer-steps ${steps}`;
    const copy = button(t("copy"), async ({ currentTarget }) => {
      await navigator.clipboard.writeText(command);
      currentTarget.textContent = t("copied");
    }, { class: "plain" });
    const others = model.calibrations.filter((one) => !one.error);
    const use = (one) => button(t("cache_use", one), () => this.#use(one), { class: "plain" });
    return [
      found?.error && h("p", { class: "wrong" }, `${t("cache_broken")} ${found.error}`),
      others.length > 0 && h("p", { class: "quiet" }, t("cache_there"), ...others.map(use)),
      h("p", { class: "quiet" }, t("cache_none", { sampler, spacing, steps })),
      h("div", { class: "command" }, h("code", { tabindex: 0 }, command), navigator.clipboard && copy),
    ].filter(Boolean);
  }
}
