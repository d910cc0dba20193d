// A place for an image: chosen, dropped or pasted, and shown.

import { h, trouble } from "./dom.js";
import { t } from "./words.js";

const TYPES = ["image/png", "image/jpeg", "image/webp"];

/** The image among what was dropped or pasted, if there is one. */
export const imageOf = (transfer) => [...(transfer?.files ?? [])].find(({ type }) => TYPES.includes(type));

/** The file in base64. */
export async function base64(file) {
  const reader = new FileReader();
  await new Promise((resolve, reject) => {
    Object.assign(reader, { onload: resolve, onerror: () => reject(reader.error) });
    reader.readAsDataURL(file);
  });
  return reader.result.slice(reader.result.indexOf(",") + 1);
}

/** Takes one image; `changed` is called with its bitmap, or with nothing when it was taken away. */
export class Picked {
  #changed;
  #image = h("img", { alt: "" });
  #input;
  #choose;
  #remove;
  file = null;
  element;

  constructor(id, name, changed = () => {}) {
    this.#changed = changed;
    this.#input = h("input", { type: "file", id, accept: TYPES.join(), hidden: true, "aria-label": name, onchange: () => {
      if (this.#input.files[0]) this.take(this.#input.files[0]);
      this.#input.value = "";
    } });
    this.#choose = h("button", { type: "button", class: "choose", "aria-label": `${name}: ${t("pick")}`,
      onclick: () => this.#input.click() }, this.#image, h("span", {}, t("pick")));
    this.#remove = h("button", { type: "button", class: "plain", "aria-label": `${t("pick_none")}: ${name}`,
      onclick: () => this.take(null) }, "✕");
    this.element = h("div", { class: "pick" }, this.#input, this.#choose, this.#remove);
    this.element.addEventListener("paste", (event) => this.#given(event, event.clipboardData));
    this.element.addEventListener("drop", (event) => this.#given(event, event.dataTransfer));
    this.#show();
  }

  #given(event, transfer) {
    const file = imageOf(transfer);
    if (!file) return;
    event.preventDefault();
    event.stopPropagation();
    delete document.body.dataset.drop;
    this.take(file);
  }

  /** Takes a file, or none. */
  async take(file) {
    try {
      const bitmap = file && await createImageBitmap(file);
      this.file = file;
      this.#changed(bitmap);
    } catch {
      trouble(t("pick_wrong"));
    }
    this.#show();
  }

  #show() {
    if (this.#image.src) URL.revokeObjectURL(this.#image.src);
    if (this.file) this.#image.src = URL.createObjectURL(this.file);
    else this.#image.removeAttribute("src");
    this.element.classList.toggle("filled", Boolean(this.file));
    this.#remove.hidden = !this.file;
  }
}
