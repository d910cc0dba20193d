// The page's words, in the language of the browser or the one that was chosen.

import { keepLanguage, language as chosen } from "./keep.js";

const wanted = chosen() || navigator.languages?.find((name) => /^(en|zh)\b/i.test(name)) || "en";

/** `en` or `zh`. */
export const language = /^zh/i.test(wanted) ? "zh" : "en";

// The other language is not loaded.
const { words } = await (language === "zh" ? import("./words-zh.js") : import("./words-en.js"));

/** Whether there is a text of this name. */
export const has = (name) => Object.hasOwn(words, name);

/** The text of this name, with `{key}` replaced by values. */
export function t(name, values = {}) {
  return words[name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
}

/** Puts words into the elements that name them. */
export function speak() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-word]")) element.textContent = t(element.dataset.word);
  for (const element of document.querySelectorAll("[data-title]")) element.title = t(element.dataset.title);
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", t(element.dataset.label));
  }
}

/** Begins anew in the other language. Orders go on, and the form keeps what was written. */
export function switchLanguage() {
  keepLanguage(language === "zh" ? "en" : "zh");
  location.reload();
}

const LOCALE = language === "zh" ? "zh-CN" : undefined;

/** A time of seconds, with no more digits than matter. */
export function duration(seconds) {
  if (seconds < 0.1) return t("milliseconds", { n: Math.max(1, Math.round(seconds * 1000)) });
  if (seconds < 10) return t("seconds", { n: seconds.toFixed(seconds < 1 ? 2 : 1) });
  if (seconds < 90) return t("seconds", { n: Math.round(seconds) });
  return t("minutes", { n: Math.floor(seconds / 60), s: Math.round(seconds % 60) });
}

/** A moment in seconds of Unix time. */
export const moment = (unix) => new Date(unix * 1000).toLocaleString(LOCALE, { dateStyle: "medium", timeStyle: "short" });

/** A seed at random. */
export const anySeed = () => crypto.getRandomValues(new Uint32Array(1))[0];
