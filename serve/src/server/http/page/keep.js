// What this browser keeps: the key, favourites, the language, the last grid; until the tab is closed, what is written in the form.

const PREFIX = "hydit-";

function read(store, name, otherwise) {
  try {
    return JSON.parse(store().getItem(PREFIX + name)) ?? otherwise;
  } catch {
    return otherwise; // a browser that keeps nothing, or what something else has written
  }
}

function write(store, name, value) {
  try {
    if (value === null) store().removeItem(PREFIX + name);
    else store().setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // It is kept until the page is left.
  }
}

const local = () => window.localStorage;
const session = () => window.sessionStorage;
const text = (value) => (typeof value === "string" ? value : "");

let key = text(read(local, "key", ""));

/** The API key, or nothing. */
export const apiKey = () => key;

/** Keeps the API key. */
export function keepApiKey(secret) {
  key = secret;
  write(local, "key", secret || null);
}

/** The language that was chosen, if one was. */
export const language = () => text(read(local, "language", ""));

/** Keeps the language. */
export const keepLanguage = (name) => write(local, "language", name);

/** What was written in the form. */
export const draft = () => read(session, "draft", null);

/** Keeps what is written in the form. */
export const keepDraft = (values) => write(session, "draft", values);

/** The grid that was drawn last: its settings, their values, the ids of its orders. */
export function grid() {
  const known = read(local, "grid", null);
  const right = Array.isArray(known?.ids) && Array.isArray(known.axes) && [1, 2].includes(known.axes.length)
    && known.axes.every((axis) => typeof axis?.name === "string" && Array.isArray(axis.values))
    && known.ids.length === known.axes.reduce((product, { values }) => product * values.length, 1);
  return right ? known : null;
}

/** Keeps the grid, or forgets it. */
export const keepGrid = (grid) => write(local, "grid", grid);

const listed = read(local, "favourites", []);
const favourites = new Set(Array.isArray(listed) ? listed.filter((path) => typeof path === "string") : []);

/** Whether the picture of this path is a favourite. */
export const isFavourite = (path) => favourites.has(path);

/** Makes pictures favourites, or no favourites any more. */
export function setFavourites(paths, are) {
  for (const path of paths) favourites[are ? "add" : "delete"](path);
  write(local, "favourites", [...favourites]);
}
