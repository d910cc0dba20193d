// The form: what the capabilities of the server allow, and nothing else.

import { Classes } from "./classes.js";
import { Cut } from "./cut.js";
import { button, h } from "./dom.js";
import { field, number } from "./field.js";
import { Axes } from "./grid.js";
import { Images } from "./images.js";
import { draft, keepDraft } from "./keep.js";
import { Loras } from "./loras.js";
import { Policy } from "./policy.js";
import { Presets } from "./presets.js";
import { Sizes } from "./sizes.js";
import { anySeed, t } from "./words.js";

/** Previews of an order, about. */
const PREVIEWS = 10;

const options = (select, names) => select.replaceChildren(...names.map((name) => h("option", { value: name }, name)));

/** The form of the page. `draw` is called for an order, `grid` with the settings of a grid. */
export class Form {
  #capabilities;
  #prompt;
  #negative;
  #cuts;
  #classes = new Classes((name) => this.#add(name));
  #model = h("select", { id: "model" });
  #sizes = new Sizes();
  #steps;
  #stepsSlider;
  #guidance;
  #rescale = number("guidance_rescale", { min: 0, max: 1, step: "any" });
  #interval = h("input", { id: "guidance_interval", placeholder: "0:1" });
  #pag;
  #adaptive;
  #sampler = h("select", { id: "sampler" });
  #spacing = h("select", { id: "spacing" });
  #seed;
  #n;
  #loras;
  #axes;
  #images = new Images();
  #presets = new Presets(() => this.#settings(), (settings) => this.fill(settings));
  #policy = new Policy(({ sampler, spacing, steps }) => this.#set({ sampler, spacing, steps, cache: "usual" }));

  constructor(element, capabilities, draw, grid) {
    const { limits, models } = capabilities;
    this.#capabilities = capabilities;
    const text = (id, rows) => h("textarea", { id, rows, maxlength: limits.prompt_characters });
    this.#prompt = text("prompt", 4);
    this.#negative = text("negative_prompt", 2);
    this.#cuts = [this.#prompt, this.#negative].map((area) => new Cut(area, () => this.#chosen));
    this.#steps = number("steps", { min: 1, max: limits.steps, step: 1 });
    this.#stepsSlider = h("input", { type: "range", min: 1, max: limits.steps, "aria-label": t("steps"),
      oninput: () => (this.#steps.value = this.#stepsSlider.value) });
    this.#guidance = number("guidance", { min: 0, max: limits.guidance, step: "any" });
    this.#pag = number("pag_scale", { min: 0, max: limits.guidance, step: "any" });
    this.#adaptive = number("pag_adaptive_scale", { min: 0, max: limits.guidance, step: "any" });
    this.#n = number("n", { min: 1, max: limits.n, step: 1 });
    this.#seed = h("input", { type: "number", id: "seed", min: 0, max: limits.seed, step: 1, placeholder: t("seed_place") });
    this.#loras = new Loras(capabilities.loras);
    this.#axes = new Axes(grid);
    options(this.#model, models.map(({ id }) => id));
    const dice = h("button", { type: "button", class: "dice", title: t("dice"), "aria-label": t("dice"),
      onclick: () => this.#set({ seed: anySeed() }) }, "⚄");
    const settings = h("details", { id: "settings", open: matchMedia("(min-width: 60rem)").matches },
      h("summary", {}, t("settings")),
      models.length > 1 && field("model", this.#model),
      field("size", this.#sizes.element, { tag: "span" }),
      field("steps", h("div", { class: "pair wide" }, this.#stepsSlider, this.#steps)),
      field("cache", this.#policy.element),
      h("div", { class: "two" }, field("sampler", this.#sampler), field("spacing", this.#spacing)),
      h("div", { class: "two" }, field("guidance", this.#guidance), field("guidance_rescale", this.#rescale)),
      field("guidance_interval", this.#interval),
      h("div", { class: "two" }, field("pag_scale", this.#pag), field("pag_adaptive_scale", this.#adaptive)),
      h("div", { class: "two" }, field("seed", h("div", { class: "pair wide" }, this.#seed, dice)), field("n", this.#n)),
      capabilities.loras.length > 0 && field("lora", this.#loras.element, { tag: "span" }),
      field("negative_prompt", this.#cuts[1].element),
      button(t("reset"), () => this.#defaults(), { class: "plain" }));
    element.append(field("prompt", h("div", {}, this.#cuts[0].element, this.#classes.element)),
      h("div", { class: "draw" }, h("button", { id: "draw", class: "main", type: "submit" }, t("draw")),
        h("kbd", { "aria-hidden": "true" }, t("draw_keys"))),
      this.#presets.element, settings, this.#images.element, this.#axes.element);
    element.addEventListener("submit", (event) => {
      event.preventDefault();
      draw();
    });
    element.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) element.requestSubmit();
    });
    element.addEventListener("input", (event) => this.#changed(event.target));
    const kept = draft();
    this.#defaults();
    if (kept) this.fill(kept);
  }

  get #chosen() {
    return this.#capabilities.models.find(({ id }) => id === this.#model.value);
  }

  #changed(target) {
    if (target === this.#model) this.#defaults();
    if (target === this.#sampler) this.#set({ sampler: this.#sampler.value });
    this.#stepsSlider.value = this.#steps.value;
    this.#right(target.closest(".field"));
    this.#settle();
  }

  #ofSampler() {
    return this.#chosen.samplers.find(({ name }) => name === this.#sampler.value);
  }

  /** Reads what the server keeps for the form. */
  async start() {
    await this.#presets.read();
  }

  #settle() {
    const [steps, guidance] = [Number(this.#steps.value), Number(this.#guidance.value)];
    this.#policy.update(this.#chosen, { sampler: this.#sampler.value, spacing: this.#spacing.value, steps, guidance });
    this.#cuts.forEach((cut) => cut.update());
    keepDraft(this.#settings());
  }

  #defaults() {
    const { samplers, defaults, lora_slots, pag_layers } = this.#chosen;
    document.getElementById("field-lora")?.toggleAttribute("hidden", lora_slots === null);
    for (const name of ["pag_scale", "pag_adaptive_scale"]) document.getElementById(`field-${name}`).hidden = !pag_layers.length;
    this.#speak();
    this.#classes.offer(this.#chosen);
    this.#axes.offer(this.#chosen);
    this.#images.offer(this.#chosen);
    this.#sizes.offer(this.#chosen, this.#capabilities.limits);
    options(this.#sampler, samplers.map(({ name }) => name));
    this.#set({ ...defaults, guidance_interval: null, pag_scale: 0, pag_adaptive_scale: 0, seed: null, lora: [] });
  }

  /** Prompts that the chosen model can draw. */
  get examples() {
    const { num_classes: count, class_names } = this.#chosen;
    if (count === null) return ["example_1", "example_2", "example_3"].map((name) => t(name));
    return [1, 2, 3].map((i) => Math.floor((i * count) / 4)).map((label) => class_names[label] ?? String(label));
  }

  /** Says in the prompt's field what the chosen model reads: a text, or classes. */
  #speak() {
    const { num_classes: count, class_names } = this.#chosen;
    const what = count === null ? "prompt" : "classes";
    document.querySelector("#field-prompt label").textContent = t(what);
    document.getElementById("prompt-help").textContent = t(`${what}_help`, { last: count - 1 });
    this.#prompt.placeholder = count === null ? t("prompt_place") : class_names.at(count / 5) ?? "0";
  }

  /** Adds a class to those that are drawn in turn, with a picture for each. */
  #add(name) {
    const named = this.#prompt.value.split(",").map((one) => one.trim()).filter(Boolean).concat(name);
    this.#set({ prompt: named.join(", "), n: Math.max(Number(this.#n.value), named.length) });
  }

  #set(values) {
    const put = (name, control) => {
      if (values[name] !== undefined) control.value = values[name] ?? "";
    };
    put("prompt", this.#prompt);
    put("negative_prompt", this.#negative);
    if (values.size) this.#sizes.value = values.size;
    put("steps", this.#steps);
    put("steps", this.#stepsSlider);
    put("guidance", this.#guidance);
    put("guidance_rescale", this.#rescale);
    put("guidance_interval", this.#interval);
    put("pag_scale", this.#pag);
    put("pag_adaptive_scale", this.#adaptive);
    put("sampler", this.#sampler);
    const known = values.sampler === undefined ? undefined : this.#ofSampler();
    if (known) {
      options(this.#spacing, known.spacings);
      this.#spacing.value = known.spacing;
    }
    put("spacing", this.#spacing);
    put("seed", this.#seed);
    put("n", this.#n);
    if (values.lora) this.#loras.value = values.lora;
    this.#settle();
    if (values.cache !== undefined) this.#policy.value = values.cache;
    this.#settle();
  }

  /** Fills in the fields of an order; those that are not given are as the model's defaults. */
  fill(request) {
    const named = (one) => one.id === request.model || one.variant === request.variant;
    const model = this.#capabilities.models.find(named);
    if (model) this.#model.value = model.id;
    this.#defaults();
    this.#set(request);
    document.querySelectorAll("#form .field").forEach((one) => this.#right(one));
    return Boolean(model);
  }

  /** The fields of an order. What is empty is left to the server, which says what it needs. */
  values() {
    const given = (control) => (control.value === "" ? null : Number(control.value));
    const steps = given(this.#steps);
    const lora = this.#chosen.lora_slots === null ? [] : this.#loras.value;
    return {
      lora: lora.length ? lora : undefined,
      model: this.#model.value,
      prompt: this.#prompt.value,
      negative_prompt: this.#negative.value,
      size: this.#sizes.value,
      steps,
      guidance: given(this.#guidance),
      guidance_rescale: given(this.#rescale),
      guidance_interval: this.#interval.value === "" ? undefined : this.#interval.value,
      pag_scale: this.#chosen.pag_layers.length ? given(this.#pag) : undefined,
      pag_adaptive_scale: given(this.#pag) > 0 && this.#chosen.pag_layers.length ? given(this.#adaptive) : undefined,
      sampler: this.#sampler.value,
      spacing: this.#spacing.value,
      seed: given(this.#seed) ?? anySeed(),
      n: given(this.#n),
      cache: this.#policy.value,
      preview_every: Math.max(1, Math.round((steps ?? 0) / PREVIEWS)),
    };
  }

  /** The settings as they are written: a seed only if there is one. */
  #settings() {
    const { preview_every, ...settings } = this.values();
    return { ...settings, seed: this.#seed.value === "" ? undefined : settings.seed };
  }

  /** The fields of an order that have images in them. */
  images() {
    return this.#images.value();
  }

  /** Shows what is wrong with a field, and goes there. Whether the form has that field. */
  refuse(name, words) {
    const place = document.getElementById(`field-${name}`);
    if (!place || place.hidden) return false;
    place.closest("details")?.setAttribute("open", "");
    const wrong = place.querySelector(":scope > .wrong");
    wrong.textContent = words;
    wrong.hidden = false;
    const control = place.querySelector("input:not([type=range], [hidden]), textarea, select, .choose");
    control.setAttribute("aria-invalid", "true");
    control.setAttribute("aria-describedby", wrong.id);
    control.focus();
    return true;
  }

  #right(place) {
    const wrong = place?.querySelector(":scope > .wrong");
    if (!wrong || wrong.hidden) return;
    wrong.hidden = true;
    const control = place.querySelector("[aria-invalid]");
    control?.removeAttribute("aria-invalid");
    control?.removeAttribute("aria-describedby");
  }
}
