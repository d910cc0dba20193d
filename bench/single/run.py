#!/usr/bin/env python3
"""Times pipeline.onnx against `hydit-serve generate` on the same export: seconds from token ids to pixels, in turns.

    hydit-export synth --depth 20 --heads 8 --head-dim 64 --small-text --image-size 384 --out checkpoints/w512
    hydit-export --checkpoint checkpoints/w512 --out artifacts/w512 --optimize-for ort-cpu --single
    python bench/single/run.py artifacts/w512 [ROUNDS] [FLAGS OF generate]

Needs hydit-serve on the PATH, and the packages numpy, onnxruntime and safetensors.
"""
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import onnxruntime
from safetensors.numpy import load_file

model, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5
request = ["--model", model, "--prompt", "a cat", "--sampler", "dpmms", "--infer-steps", "10", *sys.argv[3:]]
threads = os.cpu_count()

with tempfile.TemporaryDirectory() as folder:
    tensors, image = f"{folder}/request.safetensors", f"{folder}/image.png"
    subprocess.run(["hydit-serve", "plan", *request, "--tensors", tensors], check=True, stdout=subprocess.DEVNULL)
    tables = load_file(tensors)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(f"{model}/pipeline.onnx", options, providers=["CPUExecutionProvider"])
    inputs = {wanted.name: tables[wanted.name] for wanted in session.get_inputs()}

    def one_file():
        start = time.monotonic()
        session.run(None, inputs)
        return time.monotonic() - start

    def orchestrator():
        command = ["hydit-serve", "generate", *request, "--threads", str(threads), "--json", "-o", image]
        done = subprocess.run(command, check=True, capture_output=True)
        return sum(stage["seconds"] for stage in json.loads(done.stdout)["stages"] if stage["stage"] not in ("load", "png"))

    one_file()
    times = [(orchestrator(), one_file()) for _ in range(rounds)]

for name, column in zip(("hydit-serve generate", "pipeline.onnx"), zip(*times)):
    print(f"{name:21} {statistics.median(column):.3f} s ({min(column):.3f} to {max(column):.3f})")
print(f"one file is {statistics.median(a / b for a, b in times):.3f} times as fast (median of pairs)")
