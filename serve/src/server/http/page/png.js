// How a picture was made, from the text `hydit` of its PNG.

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
/** Bytes of the longest text that is read. */
const LONGEST = 1 << 20;

/**
 * The parameters in a PNG file of hydit, under the names of its requests. Throws a word of the dictionary where there
 * are none.
 */
export async function parameters(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (!SIGNATURE.every((byte, i) => bytes[i] === byte)) throw new Error("png_not");
  const text = await find(bytes);
  if (text === null) throw new Error("png_without");
  try {
    return fields(JSON.parse(text));
  } catch {
    throw new Error("png_broken");
  }
}

/** The text of the first chunk with the key `hydit`. */
async function find(bytes) {
  const view = new DataView(bytes.buffer);
  for (let at = SIGNATURE.length; at + 12 <= bytes.length; ) {
    const length = view.getUint32(at);
    const kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    const data = bytes.subarray(at + 8, at + 8 + length);
    at += 12 + length;
    if (data.length !== length || length > LONGEST) continue;
    const zero = data.indexOf(0);
    if (zero < 0 || latin1(data.subarray(0, zero)) !== "hydit") continue;
    if (kind === "tEXt") return latin1(data.subarray(zero + 1));
    if (kind === "zTXt") return latin1(await inflated(data.subarray(zero + 2)));
    if (kind === "iTXt") {
      const packed = data[zero + 1] === 1;
      const language = data.indexOf(0, zero + 3);
      const text = data.subarray(data.indexOf(0, language + 1) + 1);
      return new TextDecoder().decode(packed ? await inflated(text) : text);
    }
  }
  return null;
}

const latin1 = (bytes) => Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");

async function inflated(bytes) {
  const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  const parts = [];
  let length = 0;
  for (;;) {
    const { value, done } = await unpacked.read().catch(() => ({ done: true }));
    if (done || (length += value.length) > LONGEST) break;
    parts.push(value);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

/** The fields of a request that are of the right type; others are left to their defaults. */
function fields(made) {
  const number = (value) => (Number.isFinite(value) ? value : undefined);
  const text = (value) => (typeof value === "string" ? value : undefined);
  const sides = [made.width, made.height].every(Number.isInteger);
  if (text(made.prompt) === undefined) throw new Error("no prompt");
  return {
    prompt: made.prompt,
    negative_prompt: text(made.negative_prompt) ?? "",
    size: sides ? `${made.width}x${made.height}` : undefined,
    steps: number(made.steps),
    guidance: number(made.guidance_scale),
    guidance_rescale: number(made.guidance_rescale),
    guidance_interval: text(made.guidance_interval) ?? null,
    pag_scale: number(made.pag_scale),
    pag_adaptive_scale: number(made.pag_adaptive_scale),
    sampler: text(made.sampler),
    spacing: text(made.spacing),
    seed: number(made.seed),
    n: 1,
    cache: text(made.cache_policy),
    variant: text(made.model),
    lora: Array.isArray(made.loras) ? made.loras.filter((one) => text(one?.name) && number(one.weight) !== undefined) : [],
  };
}
