// The LoRAs of a request: a weight for each that the server has; those without a weight are left out.

import { h } from "./dom.js";
import { t } from "./words.js";

/** Chooses LoRAs. */
export class Loras {
  #weights = new Map();
  element = h("div", { class: "loras" });

  /** Offers the LoRAs of the server. */
  constructor(names) {
    names.forEach((name, i) => {
      const weight = h("input", { type: "number", id: `lora-${i}`, step: "any", placeholder: t("lora_off") });
      this.#weights.set(name, weight);
      this.element.append(h("div", { class: "pair wide" }, h("label", { for: weight.id }, name), weight));
    });
  }

  get value() {
    const chosen = [...this.#weights].filter(([, { value }]) => value !== "");
    return chosen.map(([name, { value }]) => ({ name, weight: Number(value) }));
  }

  /** Those that the server does not have are left out. */
  set value(loras) {
    for (const [name, weight] of this.#weights) weight.value = loras.find((one) => one.name === name)?.weight ?? "";
  }
}
