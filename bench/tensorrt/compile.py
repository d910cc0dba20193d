#!/usr/bin/env python3
"""Compiles artifact folders with NVIDIA's TensorRT-RTX for GPUs that this machine need not have, as a Markdown table.

    compile.py SERVE MODEL... [--size 128x128] [--gpus SM86,SM89,SM120]

SERVE is hydit-serve; MODEL is an artifact folder of `hydit-export --optimize-for tensorrt`. Each graph of the manifest is
compiled, strongly typed, for images of one size: the shapes are those of `hydit-serve plan --tensors` for pipeline.onnx,
where there is one, and for the others follow from the names of their dimensions. What does not compile ends it with 1.
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile
import time

import onnx
import tensorrt_rtx as trt
from safetensors import safe_open

LOGGER = trt.Logger(trt.Logger.ERROR)
PIPELINE = "pipeline.onnx"


def inputs_of_pipeline(serve, model, size):
    """The shape of every input of pipeline.onnx, as the program gives them."""
    with tempfile.TemporaryDirectory() as folder:
        plan = pathlib.Path(folder) / "plan.safetensors"
        flags = ["--sampler", "dpmms", "--infer-steps", "10", "--image-size", *size]
        subprocess.run([serve.resolve(), "plan", "--model", model, "--prompt", "any", *flags, "--tensors", plan],
                       check=True, stdout=subprocess.DEVNULL)
        with safe_open(plan, "np") as tensors:
            return {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}


def inputs_of(file, known):
    """The shape of every input of a graph, from the symbols that its file names."""
    def size(dim):
        product = 1
        for factor in dim.dim_param.split("*") if dim.dim_param else [str(dim.dim_value)]:
            product *= int(factor) if factor.isdigit() else known[factor]
        return product

    graph = onnx.load(file, load_external_data=False).graph
    return {tensor.name: [size(dim) for dim in tensor.type.tensor_type.shape.dim] for tensor in graph.input}


def compile_graph(file, gpu, inputs):
    """Layers, bytes of the engine and seconds; a text where it does not compile."""
    start = time.monotonic()
    builder = trt.Builder(LOGGER)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, LOGGER)
    if not parser.parse_from_file(str(file)):
        return "not read: " + "; ".join(parser.get_error(i).desc()[:200] for i in range(parser.num_errors))
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, gpu), 0)
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if -1 in tuple(tensor.shape):
            profile.set_shape(tensor.name, *[inputs[tensor.name]] * 3)
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    return "not built" if engine is None else (network.num_layers, engine.nbytes, time.monotonic() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("serve", type=pathlib.Path)
    parser.add_argument("model", type=pathlib.Path, nargs="+")
    parser.add_argument("--size", default="128x128", help="height x width (%(default)s)")
    parser.add_argument("--gpus", default="SM86,SM89,SM120")
    options = parser.parse_args()
    size = options.size.split("x")
    height, width = (int(side) // 8 for side in size)
    known = {"batch": 2, "grid_height": height // 2, "grid_width": width // 2, "height": height, "width": width,
             "rank": 8, "control_tokens": height * width // 4, "image_tokens": 16}
    print(f"TensorRT-RTX {trt.__version__}, images of {options.size}\n")
    print("| model | graph | GPU | layers | engine, MB | seconds |\n|---|---|---|--:|--:|--:|")
    failed = []
    for model in options.model:
        split = [file for file in sorted(model.glob("*.onnx")) if file.name != PIPELINE]
        shapes = {file: inputs_of(file, known) for file in split}
        if (model / PIPELINE).exists():
            shapes[model / PIPELINE] = inputs_of_pipeline(options.serve, model, size)
        for gpu in options.gpus.split(","):
            for file, inputs in shapes.items():
                made = compile_graph(file, gpu, inputs)
                if isinstance(made, str):
                    failed.append(f"{model.name}, {gpu}: {file.name} is {made}")
                else:
                    layers, size_of, seconds = made
                    print(f"| {model.name} | {file.stem} | {gpu} | {layers} | {size_of / 1e6:.1f} | {seconds:.1f} |", flush=True)
    for line in failed:
        print(line, file=sys.stderr)
    return bool(failed)


raise SystemExit(main())
