// Fields of the form.

import { h } from "./dom.js";
import { t } from "./words.js";

/** A labelled control, whose sentence is shown on demand, with room for what is wrong with it. */
export function field(name, control, { id = name, tag = "label" } = {}) {
  const help = h("p", { id: `${name}-help`, class: "help", hidden: true }, t(`${name}_help`));
  const wrong = h("p", { id: `${name}-wrong`, class: "wrong", hidden: true });
  const ask = h("button", { type: "button", class: "ask", "aria-expanded": "false", "aria-controls": help.id,
    "aria-label": t("help_for", { field: t(name) }), onclick: () => {
      help.hidden = !help.hidden;
      ask.setAttribute("aria-expanded", String(!help.hidden));
    } }, "?");
  const label = h(tag, tag === "label" ? { for: id } : { id: `${name}-label`, class: "label" }, t(name));
  return h("div", { class: "field", id: `field-${name}` }, h("div", { class: "head" }, label, ask), help, control, wrong);
}

/** A field for a number. */
export const number = (id, attributes) => h("input", { type: "number", id, required: true, ...attributes });
