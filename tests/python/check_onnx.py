"""Checks every .onnx file of an artifact folder with ONNX's own tools:

    python -m venv .venv-check && .venv-check/bin/pip install -r tests/python/requirements.txt
    .venv-check/bin/python tests/python/check_onnx.py artifacts

Per file: the checker with full shape inference, whose shapes of the outputs must be those declared, and a run
by Python's onnxruntime on random inputs, whose outputs must be finite and of the declared types and shapes.
Prints a line per file; the exit code is the number of files that fail.
"""

import math
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

# Values of the symbols in shapes; no two are equal, so that mixed-up axes show.
SIZES = {"batch": 2, "grid_height": 3, "grid_width": 5, "height": 6, "width": 10}
DTYPES = {
    onnx.TensorProto.FLOAT: np.float32,
    onnx.TensorProto.FLOAT16: np.float16,
    onnx.TensorProto.INT64: np.int64,
}


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
    dtype = DTYPES[value.type.tensor_type.elem_type]
    if dtype == np.int64:
        return random.integers(0, rows(graph, value.name), shape(value))
    if value.name == "timestep":
        return random.uniform(0, 1000, shape(value)).astype(dtype)
    return random.uniform(-1, 1, shape(value)).astype(dtype)


def check(path: Path):
    onnx.checker.check_model(str(path), full_check=True)
    graph = onnx.load(str(path), load_external_data=False).graph
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    found = session.run(None, {value.name: random_input(graph, value, random) for value in graph.input})
    for value, array in zip(graph.output, found, strict=True):
        assert list(array.shape) == shape(value), f"{value.name} is {array.shape}, declared {shape(value)}"
        assert array.dtype == DTYPES[value.type.tensor_type.elem_type], f"{value.name} is {array.dtype}"
        assert np.isfinite(array).all(), f"{value.name} is not finite"
        assert array.std() > 0, f"{value.name} is constant"


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    files = sorted(Path(sys.argv[1]).glob("*.onnx"))
    if not files:
        print(f"{sys.argv[1]}: no .onnx files", file=sys.stderr)
        return 2
    failed = 0
    for path in files:
        try:
            check(path)
            print(f"ok    {path.name}")
        except Exception as error:
            failed += 1
            print(f"FAIL  {path.name}: {type(error).__name__}: {error}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
