// The names of the classes that a model draws, to be put into the prompt.

import { h } from "./dom.js";
import { t } from "./words.js";

/** Adds classes to a prompt, of a model whose classes have names; a few letters of a name find it. */
export class Classes {
  #names = h("datalist", { id: "class-names" });
  #chosen = h("input", { id: "class", list: "class-names", autocomplete: "off" });
  element = h("div", { class: "pair wide", hidden: true },
    h("label", { for: "class" }, t("class_add")), this.#chosen, this.#names);

  /** `add` is called for a class that was chosen. */
  constructor(add) {
    this.#chosen.addEventListener("input", (event) => {
      event.stopPropagation();
      const name = this.#chosen.value;
      if (![...this.#names.options].some(({ value }) => value === name)) return;
      this.#chosen.value = "";
      add(name);
    });
  }

  /** Offers the classes of a model. */
  offer({ class_names }) {
    this.element.hidden = !class_names.length;
    this.#names.replaceChildren(...class_names.map((value) => h("option", { value })));
  }
}
