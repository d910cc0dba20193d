// Elements. Whatever a text holds, it stays text: nothing here, or anywhere in the page, reads markup.

import { t } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element with attributes, listeners (`onclick: f`) and children; what is null or false is left out.
 */
export function h(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same of SVG. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Does what can wait until what was done is shown. */
export const afterPaint = (act) => requestAnimationFrame(() => setTimeout(act));

/** A button that does `act` and cannot be pressed again before that is over. */
export function button(label, act, attributes = {}) {
  const pressed = async (event) => {
    const own = event.currentTarget;
    if (own.getAttribute("aria-disabled") === "true") return;
    own.setAttribute("aria-disabled", "true");
    try {
      await act(event);
    } catch (problem) {
      trouble(problem);
    } finally {
      own.removeAttribute("aria-disabled");
    }
  };
  return h("button", { type: "button", onclick: pressed, ...attributes }, label);
}

/** A question in a dialog, which is answered by `yes` or left: true or false. */
export function confirmed(question, yes) {
  return new Promise((resolve) => {
    const dialog = h("dialog", { "aria-label": question },
      h("p", {}, question),
      h("form", { method: "dialog", class: "actions" },
        h("button", { value: "" }, t("leave_it")),
        h("button", { value: "yes", class: "danger" }, yes)));
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Asks for a line of text, such as `value`: that, or nothing. */
export function asked(question, yes, value = "") {
  return new Promise((resolve) => {
    const field = h("input", { id: "asked", required: true, maxlength: 64, value, autocomplete: "off" });
    const dialog = h("dialog", { "aria-labelledby": "asked-label" },
      h("form", { method: "dialog" }, h("label", { for: "asked", id: "asked-label" }, question), field,
        h("div", { class: "actions" }, h("button", { value: "", formnovalidate: true, type: "button", onclick: () => dialog.close("") }, t("leave_it")),
          h("button", { value: "yes", class: "main" }, yes))));
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes" ? field.value.trim() : "");
    });
    document.body.append(dialog);
    dialog.showModal();
    field.select();
  });
}

/** Tells screen readers something. */
export function news(text) {
  document.getElementById("news").textContent = text;
}

/** Shows what went wrong until it is put away, or forgotten by `clear`. */
export function trouble(problem) {
  if (problem?.name === "AbortError") return;
  const place = document.getElementById("trouble");
  const text = problem?.words?.() ?? String(problem?.message ?? problem);
  const close = h("button", { type: "button", class: "plain", "aria-label": t("close"),
    onclick: () => place.replaceChildren() }, "✕");
  place.replaceChildren(h("div", { class: "trouble" }, h("p", {}, text), close));
}

/** Forgets what went wrong. */
export function untroubled() {
  document.getElementById("trouble").replaceChildren();
}
