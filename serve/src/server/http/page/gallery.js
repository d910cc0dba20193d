// All pictures that the server keeps for this key, the newest first.

import { afterPaint, button, confirmed, h } from "./dom.js";
import { jobs } from "./jobs.js";
import { isFavourite, setFavourites } from "./keep.js";
import { saveAll, show } from "./pictures.js";
import { t } from "./words.js";

const DAY = 24 * 3600;
/** Time without a letter before a search, in ms. */
const PAUSE = 120;

/** The gallery; `choose` is called with the id of a job and the number of its picture. */
export class Gallery {
  #choose;
  #search = h("input", { type: "search", id: "search", placeholder: t("search"), "aria-label": t("search"),
    autocomplete: "off", oninput: () => this.#searched() });
  #favourites = h("button", { type: "button", class: "toggle", "aria-pressed": "false", onclick: () => {
    this.#favourites.setAttribute("aria-pressed", String(!this.#only));
    this.#searched(0);
  } }, `♥ ${t("favourites_only")}`);
  /** What was chosen to be saved, kept or deleted together, by its address; nothing while that is not done. */
  #chosen = null;
  #choosing = h("button", { type: "button", class: "toggle", "aria-pressed": "false", onclick: () => this.#select(!this.#chosen) }, t("select"));
  #zip = button("", () => saveAll(this.#pictures, (n) => this.#say(`${n} / ${this.#chosen.size}`)).finally(() => this.#say()),
    { class: "main" });
  #keep = button("", () => this.#keepAll());
  #delete = button("", () => this.#deleteAll(), { class: "danger" });
  #together = h("div", { class: "bar", hidden: true }, this.#zip, this.#keep, this.#delete);
  #count = h("p", { class: "quiet", role: "status" });
  #grid = h("ul", { class: "grid", onclick: ({ target }) => this.#pressed(target.closest("li")) });
  #more = button(t("more"), () => jobs.more(), { class: "plain" });
  #tiles = new Map();
  #timer = null;
  #seen = new IntersectionObserver((entries) => entries.filter((entry) => entry.isIntersecting).forEach(({ target }) => {
    this.#seen.unobserve(target);
    show(target, target.dataset.url).catch(() => target.classList.add("gone"));
  }), { rootMargin: "300px" });

  constructor(element, { keep }, choose) {
    this.#choose = choose;
    const days = Math.floor(keep.seconds / DAY);
    const kept = days > 1 ? t("kept_days", { days }) : t("kept_for", { hours: Math.round(keep.seconds / 3600) });
    element.append(h("div", { class: "bar" }, h("h2", {}, t("gallery")), this.#search, this.#favourites, this.#choosing),
      this.#together, this.#count, this.#grid, this.#more, h("p", { class: "quiet" }, kept));
    jobs.changed(() => this.show());
    this.show();
  }

  get #only() {
    return this.#favourites.getAttribute("aria-pressed") === "true";
  }

  get #pictures() {
    return [...this.#chosen.values()].map(({ picture }) => picture);
  }

  /** Begins or ends to choose pictures. */
  #select(begin) {
    this.#chosen = begin ? new Map() : null;
    this.#choosing.setAttribute("aria-pressed", String(begin));
    for (const { tile } of this.#tiles.values()) tile.firstChild[begin ? "setAttribute" : "removeAttribute"]("aria-pressed", "false");
    this.#say();
  }

  #say(words) {
    const n = this.#chosen?.size ?? 0;
    this.#together.hidden = n === 0;
    this.#zip.textContent = words ?? t("zip", { n });
    this.#keep.textContent = t(n > 0 && this.#pictures.every(({ url }) => isFavourite(url)) ? "keep_none" : "keep_all", { n });
    this.#delete.textContent = t("delete_many", { n });
  }

  /** Makes what is chosen favourites, or no favourites any more where all of it is. */
  #keepAll() {
    const urls = this.#pictures.map(({ url }) => url);
    setFavourites(urls, !urls.every(isFavourite));
    this.#say();
    this.show();
  }

  /** An order is deleted as a whole, so more may go than was chosen. */
  async #deleteAll() {
    const orders = new Map([...this.#chosen.values()].map(({ job }) => [job.id, job.result.pictures.length]));
    const n = [...orders.values()].reduce((sum, pictures) => sum + pictures, 0);
    const asked = n === 1 ? t("delete_one") : t(n === this.#chosen.size ? "delete_these" : "delete_orders", { n });
    if (!await confirmed(asked, t("delete"))) return;
    for (const id of orders.keys()) await jobs.remove(id);
  }

  #pressed(tile) {
    const { job, picture, index } = this.#tiles.get(tile?.dataset.url) ?? {};
    if (!job) return;
    if (!this.#chosen) return this.#choose(job.id, index);
    if (!picture.kept) return;
    if (!this.#chosen.delete(picture.url)) this.#chosen.set(picture.url, { job, picture });
    tile.firstChild.setAttribute("aria-pressed", String(this.#chosen.has(picture.url)));
    this.#say();
  }

  /** What is searched for is searched for in all that the server has. Letters in a row are one search. */
  #searched(pause = PAUSE) {
    this.#grid.setAttribute("aria-busy", "true");
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => afterPaint(() => this.#find()), pause);
  }

  async #find() {
    this.show();
    this.#grid.removeAttribute("aria-busy");
    while (jobs.hasMore && (this.#search.value || this.#only)) await jobs.more();
  }

  /** Shows the pictures that fit. */
  show() {
    const words = this.#search.value.toLocaleLowerCase().split(/\s+/).filter(Boolean);
    const fits = ({ request }) => words.every((word) => request.prompt.toLocaleLowerCase().includes(word));
    const done = jobs.list().filter(({ job }) => job.status === "done").map(({ job }) => job);
    const all = done.flatMap((job) => job.result.pictures.map((picture, index) => ({ job, picture, index })));
    const found = all.filter(({ job, picture }) => fits(job) && (!this.#only || isFavourite(picture.url)));
    this.#lay(found.map((one) => this.#tile(one)));
    this.#forget(new Set(all.map(({ picture }) => picture.url)));
    this.#more.hidden = !jobs.hasMore || done.length === 0;
    const { length } = found;
    const count = t(length === 1 ? "count_1" : "count", { n: length });
    this.#count.textContent = all.length === 0 ? t("none_yet") : length === 0 ? t("none_found") : count;
  }

  /** Makes `tiles` those that are there, and moves none that stays. */
  #lay(tiles) {
    const stay = new Set(tiles);
    for (const tile of [...this.#grid.children]) if (!stay.has(tile)) tile.remove();
    let next = this.#grid.firstChild;
    for (const tile of tiles) {
      if (tile === next) next = next.nextSibling;
      else this.#grid.insertBefore(tile, next);
    }
  }

  /** Forgets the tiles of pictures that are no longer there. */
  #forget(urls) {
    const gone = [...this.#tiles.keys()].filter((url) => !urls.has(url));
    for (const url of gone) this.#tiles.delete(url);
    if (gone.filter((url) => this.#chosen?.delete(url)).length) this.#say();
  }

  #tile({ job, picture, index }) {
    const known = this.#tiles.get(picture.url);
    if (known) {
      known.tile.classList.toggle("favourite", isFavourite(picture.url));
      return known.tile;
    }
    const { core_runs: runs, truncated } = job.result.hydit;
    const cut = truncated.includes("prompt") ? t("truncated", { fields: t("prompt") }) : "";
    const alt = [t("picture_alt", { prompt: job.request.prompt, seed: picture.seed }), cut].filter(Boolean).join(". ");
    const image = h("img", { alt: "", "data-url": picture.url });
    const tile = h("li", { class: isFavourite(picture.url) ? "favourite" : "", "data-url": picture.url },
      h("button", { type: "button", "aria-label": alt, title: [job.request.prompt, cut].filter(Boolean).join("\n"),
        "aria-pressed": this.#chosen ? "false" : null },
      picture.kept ? image : h("span", { class: "quiet" }, t("not_kept"))),
      runs < job.steps && h("span", { class: "badge", "aria-hidden": "true" }, `${runs}/${job.steps}`),
      cut && h("span", { class: "badge cut", "aria-hidden": "true" }, "✂"));
    if (picture.kept) this.#seen.observe(image);
    this.#tiles.set(picture.url, { tile, job, picture, index });
    return tile;
  }
}
