// The files of pictures, fetched with the key and kept to be shown again.

import { ask } from "./api.js";
import { t } from "./words.js";

/** Number of files that are kept. */
const KEPT = 160;

const files = new Map();

/** The file of the picture at `path`, as a blob. */
export function file(path) {
  const known = files.get(path);
  files.delete(path);
  const found = known ?? ask(path).then(async (answer) => {
    const blob = await answer.blob();
    return { blob, url: URL.createObjectURL(blob) };
  });
  files.set(path, found); // at the end: those used longest ago go first
  found.catch(() => files.delete(path));
  for (const [old, gone] of files) {
    if (files.size <= KEPT) break;
    files.delete(old);
    gone.then(({ url }) => URL.revokeObjectURL(url), () => {});
  }
  return found;
}

/** Shows the picture at `path` in an image, when it is there. */
export function show(image, path) {
  image.dataset.path = path;
  return file(path).then(({ url }) => {
    if (image.dataset.path === path) image.src = url;
  });
}

/** Saves the picture at `path` under a name. */
export async function save(path, name) {
  const { blob } = await file(path);
  saveAs(blob, `${name}.${ending(blob)}`);
}

const ending = (blob) => blob.type.replace("image/", "").replace("jpeg", "jpg");

/** Saves a blob under a name. */
export function saveAs(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Most bytes of pictures that are saved together. */
const MOST = 1 << 30;

/** Saves pictures, each `{ url, seed, bytes }`, together as a zip archive; `told` is called with how many are there. */
export async function saveAll(pictures, told) {
  if (pictures.reduce((sum, { bytes }) => sum + bytes, 0) > MOST) throw new Error(t("zip_large"));
  const names = new Set();
  async function* all() {
    for (const [i, { url, seed }] of pictures.entries()) {
      const blob = await (await ask(url)).blob();
      let name = `hydit-${seed}`;
      for (let n = 2; names.has(name); n++) name = `hydit-${seed}-${n}`;
      names.add(name);
      yield { name: `${name}.${ending(blob)}`, blob };
      told(i + 1);
    }
  }
  const { zip } = await import("./zip.js");
  saveAs(await zip(all()), "hydit.zip");
}

/** The pixels of the picture at `path`. */
export async function pixels(path) {
  const { blob } = await file(path);
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, width, height);
}
