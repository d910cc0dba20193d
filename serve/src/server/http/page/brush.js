// The mask of an image: what is painted here is painted anew.

import { button, h } from "./dom.js";
import { imageOf, base64 } from "./picked.js";
import { t } from "./words.js";

/** Longest side of a mask. It is stretched to the image's size. */
const LONGEST = 1024;

/** Paints a mask over an image. */
export class Brush {
  #canvas = h("canvas", { "aria-label": t("mask"), role: "img" });
  #wide = h("input", { type: "range", id: "mask-brush", min: 2, max: 40, value: 12 });
  #file = h("input", { type: "file", accept: "image/png,image/webp", hidden: true, "aria-label": t("mask_open"), onchange: () => {
    if (this.#file.files[0]) this.#open(this.#file.files[0]);
    this.#file.value = "";
  } });
  #last = null;
  #painted = false;
  element;

  constructor() {
    this.#canvas.addEventListener("pointerdown", (event) => {
      this.#canvas.setPointerCapture(event.pointerId);
      this.#last = null;
      this.#paint(event);
    });
    this.#canvas.addEventListener("pointermove", (event) => event.buttons === 1 && this.#paint(event));
    this.element = h("div", { class: "brush" }, this.#canvas,
      h("div", { class: "pair" }, h("label", { for: "mask-brush" }, t("mask_brush")), this.#wide),
      h("div", { class: "row" }, this.#file, button(t("mask_open"), () => this.#file.click(), { class: "plain" }),
        button(t("mask_clear"), () => this.#clear(), { class: "plain" })));
    this.element.addEventListener("drop", (event) => {
      const file = imageOf(event.dataTransfer);
      if (!file) return;
      event.preventDefault();
      event.stopPropagation();
      delete document.body.dataset.drop;
      this.#open(file);
    });
  }

  /** Shows another image, with nothing painted. */
  set image(bitmap) {
    this.element.hidden = !bitmap;
    if (!bitmap) return;
    const scale = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
    Object.assign(this.#canvas, { width: Math.max(1, bitmap.width * scale), height: Math.max(1, bitmap.height * scale) });
    this.#below = bitmap;
    this.#clear();
  }

  #below = null;
  #mask = new OffscreenCanvas(1, 1);

  #clear() {
    this.#painted = false;
    this.#mask = new OffscreenCanvas(this.#canvas.width, this.#canvas.height);
    this.#show();
  }

  #show() {
    const context = this.#canvas.getContext("2d");
    const { width, height } = this.#canvas;
    context.globalAlpha = 1;
    context.drawImage(this.#below, 0, 0, width, height);
    context.globalAlpha = 0.6;
    context.drawImage(this.#mask, 0, 0);
  }

  #paint({ offsetX, offsetY }) {
    const scale = this.#canvas.width / this.#canvas.clientWidth;
    const here = [offsetX * scale, offsetY * scale];
    const context = this.#mask.getContext("2d");
    Object.assign(context, { lineWidth: (this.#wide.value / 100) * this.#canvas.width, lineCap: "round", strokeStyle: "#7b61ff" });
    context.beginPath();
    context.moveTo(...(this.#last ?? here));
    context.lineTo(...here);
    context.stroke();
    this.#last = here;
    this.#painted = true;
    this.#show();
  }

  /** Takes a mask that was made elsewhere: where it is transparent, it is painted. */
  async #open(file) {
    const bitmap = await createImageBitmap(file);
    const context = this.#mask.getContext("2d");
    const { width, height } = this.#canvas;
    Object.assign(context, { fillStyle: "#7b61ff", globalCompositeOperation: "source-over" });
    context.fillRect(0, 0, width, height);
    context.globalCompositeOperation = "destination-out";
    context.drawImage(bitmap, 0, 0, width, height);
    context.globalCompositeOperation = "source-over";
    this.#painted = true;
    this.#show();
  }

  /** The mask as a PNG in base64, transparent where it was painted; nothing if it was not. */
  async value() {
    if (!this.#painted) return undefined;
    const out = new OffscreenCanvas(this.#mask.width, this.#mask.height);
    const context = out.getContext("2d");
    context.fillRect(0, 0, out.width, out.height);
    context.globalCompositeOperation = "destination-out";
    context.drawImage(this.#mask, 0, 0);
    return base64(await out.convertToBlob());
  }
}
