// A file of `hydit-serve plan --tensors`: the length of a header, the header in JSON, and the numbers.
const KINDS = { F32: ["float32", Float32Array], I64: ["int64", BigInt64Array], BOOL: ["bool", Uint8Array] };

/// For each tensor its type and shape as ONNX Runtime has them, and its numbers.
export function read(buffer) {
  const start = 8 + Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, start - 8)));
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets: [from, to] }] of Object.entries(header)) {
    const [type, Numbers] = KINDS[dtype];
    tensors[name] = { type, shape, data: new Numbers(buffer.slice(start + from, start + to)) };
  }
  return tensors;
}
