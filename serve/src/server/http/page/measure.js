// How alike two pictures are, by the same definitions as `hydit-serve sheet` and `--compare`.

import { pixels } from "./pictures.js";
import { t } from "./words.js";

const WINDOW = 11;
const C1 = (0.01 * 255) ** 2;
const C2 = (0.03 * 255) ** 2;

/** Peak signal to noise ratio in dB over all pixels and channels; infinite when they are equal. */
export function psnr(a, b) {
  let sum = 0;
  for (let i = 0; i < a.data.length; i++) if (i % 4 !== 3) sum += (a.data[i] - b.data[i]) ** 2;
  return 10 * Math.log10(255 ** 2 / (sum / (a.width * a.height * 3)));
}

/**
 * Structural similarity of the luma (Wang et al., 2004): an 11 x 11 Gaussian window of deviation 1.5, the mean over
 * the windows that lie inside. Nothing where no window fits.
 */
export function ssim(a, b) {
  const { width, height } = a;
  if (width < WINDOW || height < WINDOW) return null;
  const [x, y] = [luma(a), luma(b)];
  const mean = (f) => blur(Float64Array.from(x, (value, i) => f(value, y[i])), width, height);
  const [mx, my] = [mean((x) => x), mean((_, y) => y)];
  const [xx, yy, xy] = [mean((x) => x * x), mean((_, y) => y * y), mean((x, y) => x * y)];
  let sum = 0;
  for (let i = 0; i < mx.length; i++) {
    const [vx, vy, cov] = [xx[i] - mx[i] ** 2, yy[i] - my[i] ** 2, xy[i] - mx[i] * my[i]];
    const luminance = (2 * mx[i] * my[i] + C1) / (mx[i] ** 2 + my[i] ** 2 + C1);
    sum += (luminance * (2 * cov + C2)) / (vx + vy + C2);
  }
  return sum / mx.length;
}

/** ITU-R BT.601. */
function luma({ data }) {
  const out = new Float64Array(data.length / 4);
  for (let i = 0; i < out.length; i++) {
    out[i] = 0.299 * data[4 * i] + 0.587 * data[4 * i + 1] + 0.114 * data[4 * i + 2];
  }
  return out;
}

/** The Gaussian mean of every window inside the map, rows and columns one after the other. */
function blur(map, width, height) {
  const weights = Array.from({ length: WINDOW }, (_, i) => Math.exp(-((i - 5) ** 2) / 4.5));
  const total = weights.reduce((sum, weight) => sum + weight);
  const inner = width - WINDOW + 1;
  const rows = new Float64Array(inner * height);
  const out = new Float64Array(inner * (height - WINDOW + 1));
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < inner; column++) {
      let sum = 0;
      for (let i = 0; i < WINDOW; i++) sum += weights[i] * map[row * width + column + i];
      rows[row * inner + column] = sum / total;
    }
  }
  for (let at = 0; at < out.length; at++) {
    let sum = 0;
    for (let i = 0; i < WINDOW; i++) sum += weights[i] * rows[at + i * inner];
    out[at] = sum / total;
  }
  return out;
}

/** How alike the pictures at two paths are, in words. */
export async function alike(one, other) {
  const [a, b] = await Promise.all([pixels(one), pixels(other)]);
  await new Promise((resolve) => setTimeout(resolve)); // the pictures are shown first
  const ratio = psnr(a, b);
  const likeness = ssim(a, b);
  return ratio === Infinity ? t("compare_equal") : t("compare_figures",
    { psnr: `${ratio.toFixed(1)} dB`, ssim: likeness === null ? "–" : likeness.toFixed(4) });
}
