// The files of pictures, fetched with the key and kept while they may be shown again.

import { ask } from "./api.js";

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
  const { url, blob } = await file(path);
  const link = document.createElement("a");
  link.href = url;
  link.download = `${name}.${blob.type.replace("image/", "").replace("jpeg", "jpg")}`;
  link.click();
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
