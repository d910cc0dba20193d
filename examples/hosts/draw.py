#!/usr/bin/env python3
"""Draws an image with ONNX Runtime alone: no diffusers, no sampler, no cache policy, no hydit at run time.

    hydit-export --checkpoint models/emoji --out artifacts/emoji --single
    hydit-serve plan --model artifacts/emoji --prompt '蓝色背景上的猫' --use-cache --tensors cat.safetensors
    python examples/hosts/draw.py artifacts/emoji cat.safetensors cat.png

Needs the packages numpy, onnxruntime, pillow and safetensors; `--prompt` another text also tokenizers.
"""
import argparse
import pathlib
import time

import numpy
import onnxruntime
from PIL import Image
from safetensors.numpy import load_file

parser = argparse.ArgumentParser()
parser.add_argument("model", type=pathlib.Path, help="artifact folder")
parser.add_argument("tensors", help="a request, written by hydit-serve plan --tensors")
parser.add_argument("image", help="PNG to write")
parser.add_argument("--prompt", help="draw this instead, with the schedule and the noise of the request")
args = parser.parse_args()

inputs = load_file(args.tensors)
if args.prompt is not None:
    from tokenizers import Tokenizer

    for suffix, file in (("", "tokenizer.json"), ("_t5", "tokenizer_2.json")):
        rows, length = inputs[f"input_ids{suffix}"].shape
        tokenizer = Tokenizer.from_file(str(args.model / file))
        tokenizer.enable_truncation(length)
        tokenizer.enable_padding(length=length, pad_id=int(inputs[f"input_ids{suffix}"][0, -1]))
        tokens = tokenizer.encode(args.prompt)
        # The first half of the rows is the negative prompt's.
        inputs[f"input_ids{suffix}"][rows // 2:] = tokens.ids
        inputs[f"attention_mask{suffix}"][rows // 2:] = tokens.attention_mask

session = onnxruntime.InferenceSession(args.model / "pipeline.onnx", providers=["CPUExecutionProvider"])
start = time.monotonic()
(images,) = session.run(["images"], {wanted.name: inputs[wanted.name] for wanted in session.get_inputs()})
print(f"{images.shape} in {time.monotonic() - start:.2f} s, deep core run at {inputs['refresh'].sum()} of "
      f"{len(inputs['refresh'])} steps")
Image.fromarray(numpy.concatenate(images, axis=1)).save(args.image)
