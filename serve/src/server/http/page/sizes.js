// The size of a picture: the model's own as thumbnails of their shape, or any other.

import { h, svg } from "./dom.js";
import { t } from "./words.js";

/** Side of the square that a thumbnail fits into. */
const BOX = 34;

const sides = (size) => size.split("x").map(Number);

/** Chooses a size. */
export class Sizes {
  #choices = h("div", { class: "sizes", role: "radiogroup", "aria-labelledby": "size-label" });
  #width = h("input", { type: "number", id: "width", inputmode: "numeric" });
  #height = h("input", { type: "number", id: "height", inputmode: "numeric" });
  #free = h("div", { class: "pair", hidden: true },
    h("label", { for: "width" }, t("width")), this.#width, h("label", { for: "height" }, t("height")), this.#height);
  element = h("div", {}, this.#choices, this.#free);

  /** Offers the sizes of a model. */
  offer({ sizes, other_sizes, size_multiple }, limits) {
    const own = sizes.filter((size) => sides(size)[0] * sides(size)[1] <= limits.pixels);
    const longest = Math.max(...own.flatMap(sides), 1);
    const free = other_sizes ? [choice("free", t("size_free"), dashed())] : [];
    this.#choices.replaceChildren(...own.map((size) => choice(size, size.replace("x", " × "), rectangle(size, longest))), ...free);
    for (const field of [this.#width, this.#height]) {
      Object.assign(field, { min: size_multiple, max: limits.side, step: size_multiple });
      field.title = t("size_step", { n: size_multiple });
    }
    this.#choices.onchange = () => this.#open();
  }

  #chosen() {
    return this.#choices.querySelector("input:checked")?.value;
  }

  #open() {
    this.#free.hidden = this.#chosen() !== "free";
  }

  get value() {
    const chosen = this.#chosen();
    return chosen === "free" ? `${Number(this.#width.value)}x${Number(this.#height.value)}` : chosen;
  }

  set value(size) {
    const radios = [...this.#choices.querySelectorAll("input")];
    const of = (wanted) => radios.find(({ value }) => value === wanted);
    const radio = of(size) ?? of("free") ?? radios[0];
    if (radio) radio.checked = true;
    [this.#width.value, this.#height.value] = sides(size);
    this.#open();
  }
}

function choice(value, name, drawing) {
  return h("label", { class: "size" }, h("input", { type: "radio", name: "size", value }), drawing, h("span", {}, name));
}

function rectangle(size, longest) {
  const [width, height] = sides(size).map((side) => Math.max(8, (side / longest) * BOX));
  return thumbnail(svg("rect", { x: (BOX - width) / 2 + 1, y: (BOX - height) / 2 + 1, width, height, rx: 3 }));
}

const dashed = () => thumbnail(svg("rect", { class: "dashed", x: 4, y: 8, width: BOX - 6, height: BOX - 14, rx: 3 }));

const thumbnail = (drawing) => svg("svg", { viewBox: `0 0 ${BOX + 2} ${BOX + 2}`, "aria-hidden": "true" }, drawing);
