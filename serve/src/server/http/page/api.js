// Requests to the server, with the key if it asks for one.

import { apiKey, keepApiKey } from "./keep.js";
import { h } from "./dom.js";
import { has, t } from "./words.js";

/** Times before a request that did not reach the server is sent again, in ms. */
const AGAIN = [500, 1500, 4000];

/** What went wrong with a request. */
export class Problem extends Error {
  constructor({ status = 0, code = "", message = "", param = null, wait = null }) {
    super(message);
    Object.assign(this, { status, code, param, wait });
  }

  /** What went wrong and what to do, for people. */
  words() {
    const known = has(`error_${this.code}`) ? t(`error_${this.code}`) : "";
    const wait = this.wait ? t("try_again_in", { seconds: this.wait }) : "";
    return [known, this.message, wait].filter(Boolean).join(" ");
  }
}

async function problem(response) {
  const wait = Number(response.headers.get("retry-after")) || null;
  const told = await response.json().catch(() => ({}));
  const { message, code, param } = told.error ?? {};
  return new Problem({ status: response.status, message: message ?? `HTTP ${response.status}`, code, param, wait });
}

/**
 * The answer of the server. Asks for a key where one is needed.
 *
 * Throws a Problem for every answer that is none, and where there is no answer.
 */
export async function ask(path, { method = "GET", body, headers = {}, signal } = {}) {
  for (;;) {
    const used = apiKey();
    const all = { ...headers };
    if (used) all.authorization = `Bearer ${used}`;
    if (body) all["content-type"] = "application/json";
    const request = { method, headers: all, body: body && JSON.stringify(body), signal };
    const response = await fetch(path, request).catch((error) => {
      if (error.name === "AbortError") throw error;
      throw new Problem({ code: "unreachable" });
    });
    if (response.ok) return response;
    const error = await problem(response);
    if (error.status !== 401) throw error;
    if (apiKey() === used) await keyGiven(used !== "");
  }
}

/** The JSON of the server's answer. */
export const json = async (path, options) => (await ask(path, options)).json();

/** Orders pictures. A request that got lost on the way is sent again and is one job all the same. */
export async function order(fields) {
  const random = crypto.getRandomValues(new Uint32Array(4));
  const headers = { "idempotency-key": [...random].map((word) => word.toString(16)).join("-") };
  for (const wait of [...AGAIN, null]) {
    try {
      return await json("/v1/jobs", { method: "POST", body: fields, headers });
    } catch (error) {
      if (error.code !== "unreachable" || wait === null) throw error;
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}

let asking = null;

/** Waits until a key was given, however many requests need one. `wrong`: the last one was refused. */
export function keyGiven(wrong) {
  asking ??= new Promise((resolve, reject) => {
    const field = h("input", { type: "password", autocomplete: "current-password", required: true, id: "secret" });
    const dialog = h("dialog", { "aria-labelledby": "secret-label" },
      h("form", { method: "dialog" },
        h("label", { for: "secret", id: "secret-label" }, t("key_wanted")),
        wrong && h("p", { class: "wrong" }, t("key_wrong")),
        field,
        h("p", { class: "quiet" }, t("key_kept")),
        h("div", { class: "actions" }, h("button", { value: "given", class: "main" }, t("key_use")))));
    dialog.addEventListener("close", () => {
      asking = null;
      dialog.remove();
      const secret = field.value.trim();
      if (dialog.returnValue !== "given" || !secret) return reject(new Problem({ code: "invalid_api_key" }));
      keepApiKey(secret);
      resolve();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
  return asking;
}

/** The server-sent events of an answer, as `{ name, id, data }`. */
export async function* sentEvents(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const texts = (rest + value).split("\n\n");
    rest = texts.pop();
    for (const text of texts) {
      const event = { name: "", id: null, data: null };
      for (const line of text.split("\n")) {
        if (line.startsWith("event: ")) event.name = line.slice(7);
        else if (line.startsWith("id: ")) event.id = line.slice(4);
        else if (line.startsWith("data: ")) event.data = JSON.parse(line.slice(6));
      }
      if (event.name) yield event;
    }
  }
}
