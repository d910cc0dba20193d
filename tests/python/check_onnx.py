"""Checks every .onnx file of an artifact folder with ONNX's own tools:

    python -m venv .venv-check && .venv-check/bin/pip install -r tests/python/requirements.txt
    .venv-check/bin/python tests/python/check_onnx.py artifacts [fp32-artifacts]

Per file: the checker with strict type and shape inference, whose shapes of the outputs must be those declared, and a
run on random inputs, whose outputs must be finite and of the declared types and shapes. Python's onnxruntime runs what
it can on a CPU; graphs with bf16 are run by ONNX's reference evaluator, with ONNX Runtime's own operators as written
below. With a second folder, an export of the same checkpoint in fp32, the outputs must also be near those of its graphs.
Prints a line per file; the exit code is the number of files that fail.
"""

import math
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

# Values of the symbols in shapes; no two are equal, so that mixed-up axes show.
SIZES = {"batch": 2, "grid_height": 3, "grid_width": 5, "height": 6, "width": 10}
F32, F16, BF16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16
DTYPES = {kind: onnx.helper.tensor_dtype_to_np_dtype(kind) for kind in (F32, F16, BF16, onnx.TensorProto.INT64)}

# How far outputs may be from fp32 ones, as relative Euclidean distance, by the narrowest type of the weights. fp32: two
# spellings of one sum. fp16, int8: tests/targets.rs. bf16: 8 bits, an eighth of fp16's precision. fp8: 4 bits in the
# linears, 2^7 of fp16's roundings, which make 8e-4 of the core's output.
TOLERANCES = {onnx.TensorProto.FLOAT8E4M3FN: 2e-1, BF16: 5e-2, onnx.TensorProto.INT8: 4e-2, F16: 1e-2, F32: 1e-5}


class MultiHeadAttention(OpRun):
    """ONNX Runtime's, with scores in fp32 as its kernels for CUDA have them."""

    op_domain = "com.microsoft"

    def _run(self, q, k, v, num_heads=None, scale=None):
        q, k, wide = (x.astype(np.float32) for x in (q, k, v))
        q, k, wide = (x.reshape(*x.shape[:2], num_heads, -1).swapaxes(1, 2) for x in (q, k, wide))
        scores = scale * (q @ k.swapaxes(2, 3))
        weights = np.exp(scores - scores.max(axis=3, keepdims=True))
        mixed = (weights / weights.sum(axis=3, keepdims=True)).astype(v.dtype).astype(np.float32) @ wide
        mixed = mixed.swapaxes(1, 2)
        return (mixed.reshape(*mixed.shape[:2], -1).astype(v.dtype),)


class RotaryEmbedding(OpRun):
    """ONNX Runtime's, with pairs side by side."""

    op_domain = "com.microsoft"

    def _run(self, x, start, cos, sin, interleaved=None, num_heads=None, **_):
        assert interleaved == 1 and list(start) == [0]
        pairs = x.reshape(*x.shape[:2], num_heads, -1, 2)
        cos, sin = cos[: x.shape[1], None], sin[: x.shape[1], None]
        a, b = pairs[..., 0], pairs[..., 1]
        return (np.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(x.shape).astype(x.dtype),)


def size(dim) -> int:
    """A number, or a product such as `2*grid_height`."""
    if dim.HasField("dim_value"):
        return dim.dim_value
    return math.prod(SIZES[factor] if factor in SIZES else int(factor) for factor in dim.dim_param.split("*"))


def shape(value) -> list[int]:
    return [size(dim) for dim in value.type.tensor_type.shape.dim]


def rows(graph, name: str) -> int:
    """What an integer input may be below: the rows of the table it picks from; 2 for masks."""
    tables = {tensor.name: tensor.dims[0] for tensor in graph.initializer if tensor.dims}
    picked = [tables.get(node.input[0], 2) for node in graph.node if node.op_type == "Gather" and node.input[1] == name]
    return min(picked, default=2)


def random_input(graph, value, random) -> np.ndarray:
    """In fp32 where it is a float: the same for every precision."""
    if value.type.tensor_type.elem_type == onnx.TensorProto.INT64:
        return random.integers(0, rows(graph, value.name), shape(value))
    low, high = (0, 1000) if value.name == "timestep" else (-1, 1)
    floats = random.uniform(low, high, shape(value)).astype(np.float32)
    # Both elements of a pair turn by one angle.
    return np.repeat(floats[..., ::2], 2, axis=-1) if value.name in ("cos", "sin") else floats


def kinds(graph) -> set[int]:
    """Element types of inputs and weights."""
    return {value.type.tensor_type.elem_type for value in graph.input} | {w.data_type for w in graph.initializer}


def run(path: Path, feed: dict) -> list[np.ndarray]:
    graph = onnx.load(str(path), load_external_data=False).graph
    feed = {value.name: feed[value.name].astype(DTYPES[value.type.tensor_type.elem_type]) for value in graph.input}
    if BF16 in kinds(graph):
        return ReferenceEvaluator(str(path), new_ops=[MultiHeadAttention, RotaryEmbedding]).run(None, feed)
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feed)


def distance(found, expected) -> float:
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def check(path: Path, plain: Path | None) -> str:
    """What there is to tell of a good file."""
    onnx.checker.check_model(str(path), full_check=True)
    graph = onnx.load(str(path), load_external_data=False).graph
    random = np.random.default_rng(0)
    feed = {value.name: random_input(graph, value, random) for value in graph.input}
    found = run(path, feed)
    for value, array in zip(graph.output, found, strict=True):
        assert list(array.shape) == shape(value), f"{value.name} is {array.shape}, declared {shape(value)}"
        assert array.dtype == DTYPES[value.type.tensor_type.elem_type], f"{value.name} is {array.dtype}"
        assert np.isfinite(array.astype(np.float32)).all(), f"{value.name} is not finite"
        assert array.astype(np.float32).std() > 0, f"{value.name} is constant"
    if plain is None:
        return ""
    tolerance = next(error for kind, error in TOLERANCES.items() if kind in kinds(graph))
    errors = [distance(a, b) for a, b in zip(found, run(plain, feed), strict=True)]
    told = ", ".join(f"{value.name} {error:.1e}" for value, error in zip(graph.output, errors))
    assert max(errors) <= tolerance, f"too far from fp32: {told}"
    return told


def main() -> int:
    if len(sys.argv) not in (2, 3):
        print(__doc__, file=sys.stderr)
        return 2
    folder, plain = Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else None
    files = sorted(folder.glob("*.onnx"))
    if not files:
        print(f"{folder}: no .onnx files", file=sys.stderr)
        return 2
    failed = 0
    for path in files:
        try:
            told = check(path, plain and plain / path.name)
            print(f"ok    {path.name:22} {told}".rstrip())
        except Exception as error:
            failed += 1
            print(f"FAIL  {path.name}: {type(error).__name__}: {error}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
