"""Writes the small ONNX graphs of tests/runtime.rs into tests/reference/runtime/.

    pip install onnx==1.23.2
    python tests/reference/make_runtime.py

The expected values are computed in the tests, from the same numbers.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OUT = Path(__file__).parent / "runtime"


def save(name, nodes, inputs, outputs, weights, external=False):
    graph = helper.make_graph(nodes, name, inputs, outputs, [numpy_helper.from_array(v, k) for k, v in weights.items()])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model, full_check=True)
    path = OUT / f"{name}.onnx"
    data = {"save_as_external_data": True, "location": f"{name}.onnx.data", "size_threshold": 0} if external else {}
    path.with_suffix(".onnx.data").unlink(missing_ok=True)
    onnx.save_model(model, path, **data)


def value(name, kind, dims):
    return helper.make_tensor_value_info(name, kind, dims)


def affine():
    """y = x w + b + shift; twice = 2 y. The weights are external data."""
    save(
        "affine",
        [
            helper.make_node("MatMul", ["x", "w"], ["xw"]),
            helper.make_node("Add", ["xw", "b"], ["xwb"]),
            helper.make_node("Cast", ["shift"], ["shift_f32"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["xwb", "shift_f32"], ["y"]),
            helper.make_node("Add", ["y", "y"], ["twice"]),
        ],
        [value("x", TensorProto.FLOAT, ["rows", 3]), value("shift", TensorProto.INT64, [2])],
        [value("y", TensorProto.FLOAT, ["rows", 2]), value("twice", TensorProto.FLOAT, ["rows", 2])],
        {"w": np.array([[1, 2], [3, 4], [5, 6]], np.float32), "b": np.array([0.5, -0.5], np.float32)},
        external=True,
    )


def attention():
    """Self attention of two heads without weights: x [batch, tokens, 8] is query, key and value; two symbolic axes."""
    split = np.array([0, 0, 2, 4], np.int64)
    save(
        "attention",
        [
            helper.make_node("Reshape", ["x", "split"], ["heads"]),
            helper.make_node("Transpose", ["heads"], ["q"], perm=[0, 2, 1, 3]),
            helper.make_node("Transpose", ["heads"], ["k"], perm=[0, 2, 3, 1]),
            helper.make_node("MatMul", ["q", "k"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["p"], axis=-1),
            helper.make_node("MatMul", ["p", "q"], ["mixed"]),
            helper.make_node("Transpose", ["mixed"], ["tokens_first"], perm=[0, 2, 1, 3]),
            helper.make_node("Reshape", ["tokens_first", "join"], ["y"]),
        ],
        [value("x", TensorProto.FLOAT, ["batch", "tokens", 8])],
        [value("y", TensorProto.FLOAT, ["batch", "tokens", 8])],
        {"split": split, "join": np.array([0, 0, 8], np.int64)},
    )


def half():
    """y = x w in fp16; w is the identity times two."""
    save(
        "half",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [value("x", TensorProto.FLOAT16, ["rows", 4])],
        [value("y", TensorProto.FLOAT16, ["rows", 4])],
        {"w": (2 * np.eye(4)).astype(np.float16)},
    )


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    affine()
    attention()
    half()
