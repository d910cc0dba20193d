// Presets: all settings under a name, which the server keeps for this key.

import { ask, json } from "./api.js";
import { asked, button, confirmed, h, news, trouble } from "./dom.js";
import { saveAs } from "./pictures.js";
import { t } from "./words.js";

/** Bytes of the largest file of presets. */
const LARGEST = 8 << 20;
const path = (name) => `/v1/presets/${encodeURIComponent(name)}`;

/** The line of presets; `values` gives the settings of the form, `use` takes some. */
export class Presets {
  #all = [];
  #values;
  #use;
  #choice = h("select", { id: "preset", "aria-label": t("presets"), onchange: () => this.#chosen() });
  #file = h("input", { type: "file", accept: ".json,application/json", hidden: true, "aria-label": t("presets_import"), onchange: async () => {
    const [file] = this.#file.files;
    this.#file.value = "";
    if (file) await this.#import(file).catch(trouble);
  } });
  #remove;
  element;

  constructor(values, use) {
    [this.#values, this.#use] = [values, use];
    this.#remove = button("✕", () => this.#delete(), { class: "plain", "aria-label": t("preset_delete"), title: t("preset_delete") });
    this.element = h("div", { class: "presets" }, h("div", { class: "pair" }, this.#choice, this.#remove,
      button(t("preset_save"), () => this.#save())),
    h("div", { class: "row" }, this.#file, button(t("presets_export"), () => this.#export(), { class: "plain" }),
      button(t("presets_import"), () => this.#file.click(), { class: "plain" })));
  }

  /** Reads those of the server. */
  async read(chosen = "") {
    this.#all = (await json("/v1/presets")).data;
    this.#choice.replaceChildren(h("option", { value: "" }, t("presets")),
      ...this.#all.map(({ name }, i) => h("option", { value: i }, name)));
    this.#choice.value = String(this.#all.findIndex(({ name }) => name === chosen));
    if (!this.#choice.value) this.#choice.value = "";
    this.#remove.hidden = this.#choice.value === "";
  }

  get #preset() {
    return this.#choice.value === "" ? null : this.#all[this.#choice.value];
  }

  #chosen() {
    this.#remove.hidden = !this.#preset;
    if (!this.#preset) return;
    this.#use(this.#preset.settings);
    news(t("preset_used", this.#preset));
  }

  async #save() {
    const name = await asked(t("preset_name"), t("preset_save"), this.#preset?.name);
    if (!name) return;
    const put = (headers) => ask(path(name), { method: "PUT", body: this.#values(), headers });
    try {
      await put({ "if-none-match": "*" });
    } catch (problem) {
      if (problem.code !== "preset_exists") throw problem;
      if (!await confirmed(t("preset_replace", { name }), t("preset_save"))) return;
      await put({});
    }
    await this.read(name);
    news(t("preset_saved", { name }));
  }

  async #delete() {
    const { name } = this.#preset;
    if (!await confirmed(t("preset_delete_one", { name }), t("delete"))) return;
    await ask(path(name), { method: "DELETE" });
    await this.read();
  }

  #export() {
    const presets = this.#all.map(({ name, settings }) => ({ name, settings }));
    saveAs(new Blob([JSON.stringify({ presets }, null, 1)], { type: "application/json" }), "hydit-presets.json");
  }

  /** Adds the presets of a file. Those of a name that is there stay as they are. */
  async #import(file) {
    let presets;
    try {
      if (file.size > LARGEST) throw new Error();
      ({ presets } = JSON.parse(await file.text()));
      if (!presets.every(({ name, settings }) => typeof name === "string" && settings && typeof settings === "object")) throw new Error();
    } catch {
      throw new Error(t("presets_wrong"));
    }
    const kept = [];
    let n = 0;
    try {
      for (const { name, settings } of presets) {
        try {
          await ask(path(name), { method: "PUT", body: settings, headers: { "if-none-match": "*" } });
          n += 1;
        } catch (problem) {
          if (problem.code !== "preset_exists") throw problem;
          kept.push(name);
        }
      }
    } finally {
      await this.read();
    }
    if (kept.length) throw new Error(t("presets_kept", { n, names: kept.join(", ") }));
    news(t("presets_added", { n }));
  }
}
