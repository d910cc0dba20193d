#!/usr/bin/env python3
"""Draws by pipeline.onnx in ONNX Runtime what `generate` draws from the other graphs, and compares the images.

    check_single.py PROGRAMS FOLDER        PROGRAMS has hydit-export and hydit-serve, FOLDER is for exports

A graph and the orchestrator add in different orders, so that a value on the edge between two bytes may fall to either
side: 1 of 255 in fp32. In int8 the orchestrator runs every row alone and this graph the two of an image together, so that
their activations share a scale: there the images are as alike as an int8 export's and an fp32 one's, some 37 dB.
"""
import math
import pathlib
import subprocess
import sys

import numpy
import onnx
import onnxruntime
from PIL import Image
from safetensors.numpy import load_file

PROGRAMS, FOLDER = map(pathlib.Path, sys.argv[1:])
EMOJI = ["--checkpoint", "models/emoji"]
OLDER = ["--checkpoint", str(FOLDER / "older-checkpoint")]
#: Name, flags of the export, the largest difference of a byte or the least likeness in dB, and requests.
EXPORTS = {
    "fp32": (EMOJI, 1, [
        "--sampler dpmms --infer-steps 25",
        "--sampler dpmms --infer-steps 25 --cache-policy N3-700-50",
        "--sampler dpmms --infer-steps 25 --cache-policy N3-700-50+taylor2 --batch-size 2",
        "--sampler ddim --infer-steps 10 --cache-policy N2-700-50+taylor1 --guidance-rescale 0.7",
        "--sampler ddpm --infer-steps 10 --cache-policy N2-700-50 --image-size 96 160 --batch-size 2",
        "--sampler dpmms --infer-steps 8 --cfg-scale 1 --cache-policy N3",
        "--sampler unipc --infer-steps 10 --cache-policy N2-700-50",
        "--sampler unipc --spacing karras --infer-steps 8",
        "--sampler euler --infer-steps 10 --cache-policy N3 --guidance-interval 0.2:0.8",
        "--sampler euler --spacing karras --infer-steps 10 --guidance-rescale 0.7",
        "--sampler euler-ancestral --infer-steps 10 --batch-size 2",
        "--sampler dpmms --spacing karras --infer-steps 10 --cache-policy N2-1000-0+taylor1 --guidance-interval 0.5:1",
        "--sampler lcm --infer-steps 4",
        "--sampler dpmms --infer-steps 8 --cache-policy auto:4runs",
        "--sampler ddim --infer-steps 12 --cache-policy N3-1000-0+align --batch-size 2",
    ]),
    "branch-2": ([*EMOJI, "--cache-at-branch", "2"], 1, ["--sampler dpmms --infer-steps 8 --cache-policy N3"]),
    "ort-cpu": ([*EMOJI, "--optimize-for", "ort-cpu"], 1, ["--sampler dpmms --infer-steps 8 --cache-policy N3"]),
    "int8": ([*EMOJI, "--dtype", "int8", "--optimize-for", "ort-cpu"], 35.0,
             ["--sampler dpmms --infer-steps 8 --cache-policy N3"]),
    "slots": ([*EMOJI, "--lora-slots", "64"], 1, [
        "--sampler dpmms --infer-steps 8 --cache-policy N3",
        "--sampler dpmms --infer-steps 8 --cache-policy N3 --lora-dir tests/reference/lora --lora emoji-style:0.7",
    ]),
    "slots-fp16": ([*EMOJI, "--lora-slots", "64", "--dtype", "fp16"], 2, [
        "--sampler dpmms --infer-steps 8 --cache-policy N3 --lora-dir tests/reference/lora --lora emoji-style:0.7",
    ]),
    "image": ([*EMOJI, "--image-to-image"], 1, [
        "--sampler dpmms --infer-steps 8 --cache-policy N3",
        "--sampler dpmms --infer-steps 10 --cache-policy N2 --init-image {folder}/photo.png --strength 0.6 --batch-size 2",
        "--sampler ddpm --infer-steps 10 --cache-policy N2 --init-image {folder}/photo.png --mask {folder}/mask.png",
        "--sampler ddim --infer-steps 10 --cache-policy N3 --init-image {folder}/photo.png --mask {folder}/mask.png --strength 0.7 --image-size 96 160",
    ]),
    "older": (OLDER, 1, ["--sampler ddim --infer-steps 4 --cache-policy N2 --image-size 64 96"]),
}


def run(program, *args):
    done = subprocess.run([PROGRAMS / program, *map(str, args)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{program} {' '.join(map(str, args))}\n{done.stderr}")


def main():
    run("hydit-export", "synth", "--variant", "hunyuan-dit-v1.1", "--small-text", "--depth", 6, "--heads", 2, "--head-dim",
        16, "--image-size", 64, "--out", FOLDER / "older-checkpoint")
    across, down = numpy.meshgrid(numpy.arange(128), numpy.arange(128))
    Image.fromarray(numpy.stack([2 * across, 2 * down, across + down], 2).astype(numpy.uint8)).save(FOLDER / "photo.png")
    Image.fromarray(((across > 40) & (down < 90)).astype(numpy.uint8) * 255).save(FOLDER / "mask.png")
    failed = False
    for name, (flags, limit, requests) in EXPORTS.items():
        model = FOLDER / name
        run("hydit-export", *flags, "--out", model, "--single")
        onnx.checker.check_model(model / "pipeline.onnx", full_check=name in ("fp32", "older"))
        if any("auto:" in request for request in requests):
            run("hydit-serve", "calibrate", "--model", model, "--prompts", "bench/cache/prompts/emoji-calibrate.txt",
                "--sampler", "dpmms", "--infer-steps", 8, "--runs", 4, "--tries", 0)
        session = onnxruntime.InferenceSession(model / "pipeline.onnx", providers=["CPUExecutionProvider"])
        for request in requests:
            failed |= not compare(name, model, session, limit, request)
    sys.exit(failed)


def compare(name, model, session, limit, request):
    """Whether both draw the same."""
    request = ["--model", model, "--prompt", "蓝色背景上的猫", "--negative", "模糊", *request.format(folder=FOLDER).split()]
    tensors, image = FOLDER / "request.safetensors", FOLDER / "image.png"
    for file in FOLDER.glob("image*.png"):
        file.unlink()
    run("hydit-serve", "plan", *request, "--tensors", tensors)
    run("hydit-serve", "generate", *request, "-o", image)
    tables = load_file(tensors)
    if "auto:4runs" in request and not tables["correction_up"].any():
        sys.exit(f"{name}: nothing is corrected with auto:4runs")
    (drawn,) = session.run(None, {wanted.name: tables[wanted.name] for wanted in session.get_inputs()})
    expected = [numpy.asarray(Image.open(file), numpy.int16) for file in sorted(FOLDER.glob("image*.png"))]
    far = numpy.abs(drawn.astype(numpy.int16) - numpy.stack(expected))
    likeness = 10 * math.log10(255**2 / max(float((far**2).mean(dtype=float)), 1e-9))
    fine = far.max() <= limit if isinstance(limit, int) else likeness >= limit
    print(f"{name:9} {far.max():3} of 255, {likeness:5.1f} dB  {'' if fine else 'FAILED '}{' '.join(request[6:])}")
    return fine


if __name__ == "__main__":
    main()
