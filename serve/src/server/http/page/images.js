// The images that an order is made from: one to change, one to be like, one for each ControlNet. What the
// model does not take has no field.

import { Brush } from "./brush.js";
import { h } from "./dom.js";
import { field, number } from "./field.js";
import { Picked, base64, imageOf } from "./picked.js";
import { t } from "./words.js";

/** Chooses images. */
export class Images {
  #start;
  #brush = new Brush();
  #strength = h("input", { type: "range", id: "strength", min: 0.05, max: 1, step: 0.05, value: 0.8 });
  #said = h("output", { for: "strength" });
  #like = new Picked("image_prompt", t("image_prompt"));
  #weight = number("image_prompt_weight", { min: 0, max: 10, step: "any", value: 1 });
  #nets = new Map();
  #places = h("div", { class: "nets" });
  #model = null;
  element;

  constructor() {
    this.#start = new Picked("image", t("image"), (bitmap) => {
      this.#brush.image = bitmap;
      this.#more.hidden = !bitmap;
    });
    this.#strength.addEventListener("input", () => this.#say());
    this.#say();
    this.element = h("details", { id: "images" }, h("summary", {}, t("images")),
      field("image", h("div", {}, this.#start.element, this.#more)),
      field("image_prompt", h("div", {}, this.#like.element,
        h("div", { class: "pair wide" }, h("label", { for: "image_prompt_weight" }, t("weight")), this.#weight))),
      field("control", this.#places, { tag: "span" }));
    document.addEventListener("paste", (event) => {
      const file = imageOf(event.clipboardData);
      if (!file || event.defaultPrevented || !this.#model?.image_to_image) return;
      event.preventDefault();
      this.element.open = true;
      this.#start.take(file);
    });
  }

  #more = h("div", { class: "more", hidden: true },
    h("div", { class: "pair" }, h("label", { for: "strength" }, t("strength")), this.#strength, this.#said),
    h("p", { class: "quiet" }, t("mask_help")), this.#brush.element);

  #say() {
    this.#said.textContent = Number(this.#strength.value).toFixed(2);
  }

  /** Offers what a model takes. */
  offer(model) {
    this.#model = model;
    const { image_to_image, image_prompt, controls } = model;
    const has = { image: image_to_image, image_prompt, control: controls.length > 0 };
    for (const [name, is] of Object.entries(has)) this.element.querySelector(`#field-${name}`).hidden = !is;
    this.element.hidden = !Object.values(has).some(Boolean);
    for (const name of this.#nets.keys()) if (!controls.includes(name)) this.#nets.delete(name);
    controls.forEach((name, i) => this.#nets.has(name) || this.#nets.set(name, net(name, i)));
    this.#places.replaceChildren(...[...this.#nets.values()].map(({ element }) => element));
  }

  /** Whether an order would be made from an image to change. */
  get start() {
    return Boolean(this.#model?.image_to_image && this.#start.file);
  }

  /** The fields of an order that have images in them. */
  async value() {
    const fields = {};
    const { image_to_image, image_prompt } = this.#model;
    if (image_to_image && this.#start.file) {
      Object.assign(fields, { image: await base64(this.#start.file), mask: await this.#brush.value(), strength: Number(this.#strength.value) });
    }
    if (image_prompt && this.#like.file) {
      Object.assign(fields, { image_prompt: await base64(this.#like.file), image_prompt_weight: Number(this.#weight.value) });
    }
    const nets = [...this.#nets].filter(([, { picked }]) => picked.file);
    if (nets.length) {
      fields.control = await Promise.all(nets.map(async ([name, { picked, weight, start, end, edges }]) => ({ name,
        image: await base64(picked.file), weight: Number(weight.value), start: Number(start.value), end: Number(end.value),
        preprocess: edges.checked ? "canny" : "none" })));
    }
    return fields;
  }

  /** Takes all images away. */
  clear() {
    for (const picked of [this.#start, this.#like, ...[...this.#nets.values()].map((one) => one.picked)]) if (picked.file) picked.take(null);
  }
}

/** The fields of a ControlNet. */
function net(name, i) {
  const picked = new Picked(`control-${i}`, name);
  const weight = number(`control-weight-${i}`, { min: 0, max: 10, step: "any", value: 1 });
  const share = (at, value) => number(`control-${at}-${i}`, { min: 0, max: 1, step: "any", value });
  const [start, end] = [share("start", 0), share("end", 1)];
  const edges = h("input", { type: "checkbox", id: `control-edges-${i}` });
  const element = h("div", { class: "net" }, h("p", { class: "label" }, name), picked.element,
    h("div", { class: "pair wide" }, h("label", { for: weight.id }, t("weight")), weight,
      edges, h("label", { for: edges.id }, t("control_edges"))),
    h("div", { class: "pair wide" }, h("label", { for: start.id }, t("control_start")), start,
      h("label", { for: end.id }, t("control_end")), end));
  return { picked, weight, start, end, edges, element };
}
