// Where a prompt is cut: each of the two text encoders reads so many tokens of it, and leaves out the rest.

import { json } from "./api.js";
import { h } from "./dom.js";
import { t } from "./words.js";

/** Time without a change before the server is asked, in ms. */
const PAUSE = 400;
/** Characters that are shown of the end of what is read. */
const SHOWN = 24;
/** Tokens that stand before and after a text. */
const AROUND = 2;

/** Marks in a text area what is not read of it, and says so below; `model` tells the chosen model. */
export class Cut {
  #area;
  #model;
  #marks = h("div", { class: "marks-of-text", "aria-hidden": "true", hidden: true });
  #said = h("p", { class: "quiet cut-at", role: "status", hidden: true });
  #asked = "";
  #timer = null;
  #encoders = [];
  element;

  constructor(area, model) {
    [this.#area, this.#model] = [area, model];
    this.element = h("div", { class: "marked" }, area, this.#marks, this.#said);
    area.addEventListener("scroll", () => this.#align());
    new ResizeObserver(() => this.#align()).observe(area);
  }

  /** Looks whether the text or the model is another. */
  update() {
    const { value } = this.#area;
    const { id, prompt_tokens: most } = this.#model();
    const asked = JSON.stringify([id, value]);
    if (asked === this.#asked) return;
    this.#asked = asked;
    clearTimeout(this.#timer);
    // Few characters are no more tokens.
    if (value.length + AROUND <= Math.min(...most)) this.#encoders = [];
    else this.#timer = setTimeout(() => this.#ask(asked, { model: id, prompt: value }), PAUSE);
    this.#mark();
  }

  async #ask(asked, body) {
    // Without an answer nothing is marked; the picture says it too.
    const { encoders } = await json("/v1/tokenize", { method: "POST", body }).catch(() => ({ encoders: [] }));
    if (asked !== this.#asked) return;
    this.#encoders = encoders;
    this.#mark();
    this.#say();
  }

  /** What lies behind the end of one encoder is underlined, what lies behind those of both is struck out. */
  #mark() {
    const cut = this.#encoders.some(({ truncated }) => truncated);
    this.#marks.hidden = !cut;
    if (!cut) return void (this.#said.hidden = true);
    const text = [...this.#area.value];
    const [first, last] = this.#encoders.map(({ truncated, characters }) => (truncated ? characters : text.length)).sort((a, b) => a - b);
    const part = (from, to) => text.slice(from, to).join("");
    this.#marks.replaceChildren(part(0, first), h("mark", {}, part(first, last)), h("mark", { class: "unread" }, part(last)), "\u200b");
    this.#align();
  }

  /** Lays the marks over the text: as wide, and as far down. */
  #align() {
    if (this.#marks.hidden) return;
    this.#marks.style.width = `${this.#area.clientWidth}px`;
    this.#marks.style.height = `${this.#area.clientHeight}px`;
    this.#marks.scrollTop = this.#area.scrollTop;
  }

  #say() {
    const text = [...this.#area.value];
    const said = this.#encoders.map(({ name, truncated, max_tokens, characters }) => {
      const end = text.slice(Math.max(0, characters - SHOWN), characters).join("").trim();
      return t(truncated ? "cut_at" : "cut_not", { name: t(name), most: max_tokens, end });
    });
    const cuts = this.#encoders.filter(({ truncated }) => truncated).length;
    const words = cuts ? [...said, t(cuts === 2 ? "cut_both" : "cut_one")].join(" ") : "";
    if (this.#said.textContent !== words) this.#said.textContent = words;
    this.#said.hidden = !words;
  }
}
