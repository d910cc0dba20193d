// The model, beside the page, so that the page stays alive while it draws.
import { Tokenizer } from "@huggingface/tokenizers";

import { randn } from "./noise.js";
import { read } from "./safetensors.js";

const bytes = async (name) => {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`${name}: the server answers ${answer.status}`);
  return answer.arrayBuffer();
};
const json = async (name) => JSON.parse(new TextDecoder().decode(await bytes(name)));

/// A file that the build has compressed, since plain file servers do not. Its ending is none that they know.
const unpacked = async (name) => {
  const stream = new Blob([await bytes(name)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
};

/// Why the browser's GPU cannot draw, if it cannot.
async function withoutGpu(half) {
  if (!navigator.gpu) return "this browser has no WebGPU";
  const adapter = await navigator.gpu.requestAdapter();
  if (!adapter) return "WebGPU finds no GPU here";
  if (half && !adapter.features.has("shader-f16")) return "WebGPU has no shader-f16 here";
}

/// ONNX Runtime on the GPU, else in WebAssembly: itself, the name of its provider, and what to say of it.
async function runtime(half) {
  const why = await withoutGpu(half);
  const ort = why ? await import("onnxruntime-web/wasm") : await import("onnxruntime-web/webgpu");
  // Threads share memory, which browsers allow only to pages that are isolated from others.
  ort.env.wasm.numThreads = self.crossOriginIsolated ? navigator.hardwareConcurrency : 1;
  const suffix = why ? "" : ".asyncify";
  ort.env.wasm.wasmBinary = await unpacked(`ort-wasm-simd-threaded${suffix}.wasm.packed`);
  return { ort, provider: why ? "wasm" : "webgpu", engine: why ? `WebAssembly: ${why}` : "WebGPU" };
}

async function load() {
  const { half, weights, plans } = await json("files.json");
  const { ort, provider, engine } = await runtime(half);
  let loaded = 0;
  const externalData = [];
  for (const path of weights) {
    externalData.push({ path, data: new Uint8Array(await bytes(`model/${path}`)) });
    postMessage({ loaded: ++loaded / weights.length });
  }
  const graph = new Uint8Array(await bytes("model/pipeline.onnx"));
  const session = await ort.InferenceSession.create(graph, { externalData, executionProviders: [provider], logSeverityLevel: 3 });
  const tokenizers = {};
  for (const [suffix, name] of [["", "tokenizer"], ["_t5", "tokenizer_2"]]) {
    tokenizers[suffix] = new Tokenizer(await json(`model/${name}.json`), {});
  }
  const requests = {};
  for (const plan of plans) requests[plan] = read(await bytes(`plans/${plan}.safetensors`));
  return { ort, engine, session, tokenizers, requests };
}

/// Puts the text into the second half of the rows; the first is the negative prompt's.
function tokenize(tokenizer, ids, mask, text) {
  const [rows, length] = ids.shape;
  const encoded = tokenizer.encode(text);
  const end = encoded.ids.at(-1);
  const cut = encoded.ids.length > length;
  const pad = ids.data.at(-1); // of a plan whose prompt is short
  const tokens = cut ? [...encoded.ids.slice(0, length - 1), end] : encoded.ids;
  for (let row = rows / 2; row < rows; row++) {
    for (let i = 0; i < length; i++) {
      ids.data[row * length + i] = i < tokens.length ? BigInt(tokens[i]) : pad;
      mask.data[row * length + i] = BigInt(i < tokens.length ? 1 : 0);
    }
  }
  return cut;
}

const model = load();

onmessage = async ({ data: { plan, prompt, seed } }) => {
  try {
    const { ort, session, tokenizers, requests } = await model;
    const request = structuredClone(requests[plan]);
    let cut = false;
    for (const [suffix, tokenizer] of Object.entries(tokenizers)) {
      cut |= tokenize(tokenizer, request[`input_ids${suffix}`], request[`attention_mask${suffix}`], prompt);
    }
    request.latents.data = randn(seed, request.latents.data.length);
    const inputs = {};
    for (const name of session.inputNames) {
      const { type, data, shape } = request[name];
      inputs[name] = new ort.Tensor(type, data, shape);
    }
    const start = performance.now();
    const { images } = await session.run(inputs);
    const seconds = (performance.now() - start) / 1000;
    const [, height, width] = images.dims;
    postMessage({ plan, seconds, height, width, pixels: images.data, cut: Boolean(cut) });
  } catch (error) {
    postMessage({ error: error.message });
  }
};

model.then(
  ({ engine, requests }) => {
    const refresh = ([plan, { refresh }]) => [plan, Array.from(refresh.data, Boolean)];
    postMessage({ engine, plans: Object.fromEntries(Object.entries(requests).map(refresh)) });
  },
  (error) => postMessage({ error: error.message }),
);
