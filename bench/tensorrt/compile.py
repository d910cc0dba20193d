#!/usr/bin/env python3
"""Compiles artifact folders with NVIDIA's TensorRT-RTX for GPUs that this machine need not have, as a Markdown table.

    compile.py SERVE MODEL... [--sizes 128x128,64x96] [--gpus SM86,SM89,SM120]

SERVE is hydit-serve; MODEL is an artifact folder of `hydit-export --optimize-for tensorrt`. Each graph of the manifest is
compiled, strongly typed, for images of these sizes: with the profile that `hydit-serve compile --provider tensorrt` gives
to ONNX Runtime, and pipeline.onnx, where there is one, for the first size, with the shapes of `hydit-serve plan
--tensors`. What does not compile ends it with 1; with --fused also a graph of the transformer's blocks of which an
attention is no kernel of its own.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import tensorrt_rtx as trt

PIPELINE = "pipeline.onnx"
BLOCKS = ("shallow-encoder", "deep-core", "shallow-decoder", "full")


class Log(trt.ILogger):
    """Prints errors, and counts the kernels of attention in the layers of the engine, which the builder lists at last."""

    def __init__(self):
        super().__init__()
        self.attention = 0

    def log(self, severity, message):
        if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
            print(message, file=sys.stderr)
        elif message.startswith("Layers:"):
            self.attention += message.count("\nName: _gemm_mha")


def inputs_of_pipeline(serve, model, size):
    """The least, usual and largest shape of every input of pipeline.onnx: one, as the program gives it."""
    with tempfile.TemporaryDirectory() as folder:
        plan = pathlib.Path(folder) / "plan.safetensors"
        flags = ["--sampler", "dpmms", "--infer-steps", "10", "--image-size", *size]
        subprocess.run([serve.resolve(), "plan", "--model", model, "--prompt", "any", *flags, "--tensors", plan],
                       check=True, stdout=subprocess.DEVNULL)
        with open(plan, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return {name: [tensor["shape"]] * 3 for name, tensor in header.items() if name != "__metadata__"}


def profiles(serve, model, sizes):
    """The same for every graph with free shapes, by its name: the profiles of the program."""
    flags = [flag for size in sizes for flag in ("--image-size", *size)]
    words = [serve.resolve(), "compile", "--provider", "tensorrt", "--model", model, *flags, "--profiles"]
    made = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout)

    def shapes(text):
        pairs = (part.split(":") for part in text.split(",") if part)
        return {name: [int(size) for size in shape.split("x")] for name, shape in pairs}

    def of_each(profile):
        ends = [shapes(profile[end]) for end in ("min", "opt", "max")]
        return {name: [end[name] for end in ends] for name in ends[0]}

    return {graph: of_each(profile) for graph, profile in made.items()}


def compile_graph(file, gpu, inputs):
    """Layers, attentions, kernels of these, bytes of the engine and seconds; a text where it does not compile."""
    start = time.monotonic()
    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(file)):
        return "not read: " + "; ".join(parser.get_error(i).desc()[:200] for i in range(parser.num_errors))
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # or the layers are not listed
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, gpu), 0)
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if -1 in tuple(tensor.shape):
            if tensor.name not in inputs:
                return f"without a profile of {tensor.name}"
            profile.set_shape(tensor.name, *inputs[tensor.name])
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        return "not built"
    layers = [network.get_layer(index).type for index in range(network.num_layers)]
    return len(layers), layers.count(trt.LayerType.SOFTMAX), log.attention, engine.nbytes, time.monotonic() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("serve", type=pathlib.Path)
    parser.add_argument("model", type=pathlib.Path, nargs="+")
    parser.add_argument("--sizes", default="128x128,64x96", help="height x width of each, the usual first (%(default)s)")
    parser.add_argument("--gpus", default="SM86,SM89,SM120")
    parser.add_argument("--fused", action="store_true", help="attention of the blocks must be one kernel each")
    options = parser.parse_args()
    sizes = [size.split("x") for size in options.sizes.split(",")]
    print(f"TensorRT-RTX {trt.__version__}, images of {options.sizes.replace(',', ', ')}\n")
    print("| model | graph | GPU | layers | attention in one kernel | engine, MB | seconds |\n|---|---|---|--:|--:|--:|--:|")
    failed = []
    for model in options.model:
        made = profiles(options.serve, model, sizes)
        shapes = {model / f"{graph}.onnx": inputs for graph, inputs in sorted(made.items())}
        if (model / PIPELINE).exists():
            shapes[model / PIPELINE] = inputs_of_pipeline(options.serve, model, sizes[0])
        for gpu in options.gpus.split(","):
            for file, inputs in shapes.items():
                engine = compile_graph(file, gpu, inputs)
                if isinstance(engine, str):
                    failed.append(f"{model.name}, {gpu}: {file.name} is {engine}")
                else:
                    layers, all_of, fused, size_of, seconds = engine
                    print(f"| {model.name} | {file.stem} | {gpu} | {layers} | {fused} of {all_of} | {size_of / 1e6:.1f} | "
                          f"{seconds:.1f} |", flush=True)
                    if options.fused and file.stem in BLOCKS and fused != all_of:
                        failed.append(f"{model.name}, {gpu}: {file.name} has {fused} of {all_of} attentions in one kernel")
    for line in failed:
        print(line, file=sys.stderr)
    return bool(failed)


raise SystemExit(main())
