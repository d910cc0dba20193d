#!/usr/bin/env python3
"""Compiles artifact folders with NVIDIA's TensorRT-RTX for GPUs that this machine need not have, as a Markdown table.

    compile.py SERVE MODEL... [--sizes 128x128] [--gpus SM86,SM89,SM120]

SERVE is hydit-serve; MODEL is an artifact folder of `hydit-export --single --optimize-for tensorrt`. Each graph is
compiled for images of one size, by the shapes of `hydit-serve plan --tensors`: pipeline.onnx, and the four split graphs of
the denoising loop with the text encoders and the image decoder beside it.
"""
import argparse
import pathlib
import subprocess
import tempfile
import time

import onnx
import tensorrt_rtx as trt
from safetensors import safe_open

LOGGER = trt.Logger(trt.Logger.ERROR)
SPLIT = ["text-encoder", "text-encoder-2", "conditioner", "shallow-encoder", "deep-core", "shallow-decoder", "vae-decoder"]


def sizes_of(model, inputs):
    """The value of every symbol of the pipeline's inputs, and of those that the split graphs have besides."""
    graph = onnx.load(model / "pipeline.onnx", load_external_data=False).graph
    known = {"batch": 1}
    for value in graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, inputs[value.name]):
            if dim.dim_param:
                known[dim.dim_param] = size
    return known


def value(symbol, known):
    """A size such as 2*grid_height*grid_width, of the symbols that are known; the split graphs' batch is two rows."""
    product = 1
    for factor in symbol.split("*"):
        product *= int(factor) if factor.isdigit() else known[factor]
    return product


def compile_graph(file, gpu, shape_of):
    """Bytes of the engine and seconds; a text where it does not compile."""
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
            profile.set_shape(tensor.name, *[shape_of(tensor.name)] * 3)
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    return "not built" if engine is None else (engine.nbytes, time.monotonic() - start)


def shapes_of_split(file, known):
    def shape_of(name):
        graph = onnx.load(file, load_external_data=False).graph
        (found,) = [i for i in graph.input if i.name == name]
        return [d.dim_value or value(d.dim_param, known) for d in found.type.tensor_type.shape.dim]

    return shape_of


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("serve", type=pathlib.Path)
    parser.add_argument("model", type=pathlib.Path, nargs="+")
    parser.add_argument("--size", default="128x128", help="height x width (%(default)s)")
    parser.add_argument("--gpus", default="SM86,SM89,SM120")
    options = parser.parse_args()
    print(f"TensorRT-RTX {trt.__version__}, images of {options.size}\n")
    print("| model | GPU | pipeline.onnx, MB | seconds | split graphs, MB | seconds |\n|---|---|--:|--:|--:|--:|")
    failed = False
    for model in options.model:
        with tempfile.TemporaryDirectory() as folder:
            plan = pathlib.Path(folder) / "plan.safetensors"
            flags = ["--sampler", "dpmms", "--infer-steps", "10", "--image-size", *options.size.split("x")]
            subprocess.run([options.serve.resolve(), "plan", "--model", model, "--prompt", "any", *flags, "--tensors", plan],
                           check=True, stdout=subprocess.DEVNULL)
            with safe_open(plan, "np") as tensors:
                inputs = {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}
        whole = sizes_of(model, inputs)
        height, width = whole["grid_height"], whole["grid_width"]
        split = {"batch": 2, "grid_height": height, "grid_width": width, "height": 2 * height, "width": 2 * width}
        for gpu in options.gpus.split(","):
            one = compile_graph(model / "pipeline.onnx", gpu, lambda name: inputs[name])
            parts = [compile_graph(model / f"{name}.onnx", gpu, shapes_of_split(model / f"{name}.onnx", split)) for name in SPLIT]
            for name, made in zip(["pipeline", *SPLIT], [one, *parts]):
                if isinstance(made, str):
                    failed = True
                    print(f"{model.name}, {gpu}: {name} is {made}")
            if not any(isinstance(made, str) for made in [one, *parts]):
                megabytes, seconds = (sum(part[i] for part in parts) for i in (0, 1))
                print(f"| {model.name} | {gpu} | {one[0] / 1e6:.1f} | {one[1]:.0f} | {megabytes / 1e6:.1f} | {seconds:.0f} |", flush=True)
    return failed


raise SystemExit(main())
