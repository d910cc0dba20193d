"""Whole pictures of models with made-up weights by diffusers' HunyuanDiTPipeline -> pictures/made-up.json, made-up-*.png

They show what the trained models do not: the size and style conditions of v1.0 and v1.1, and Tencent's reading of pictures
that are not square. `hydit-export synth` writes the checkpoints, so that the tests have the same ones without Python.

Tencent's code (Tencent/HunyuanDiT @368280e) reads two things otherwise, and both are exchanged in the pipeline here: the
rotary positions (hydit/modules/posemb_layers.py; `make_rope.tencent`), and the target in the size condition, which is
width before height (hydit/inference.py, `image_meta_size`).

    cargo build --release --workspace --bins
    python make_made_up_pictures.py
"""

import subprocess
import tempfile
from contextlib import nullcontext
from unittest import mock

import torch
from diffusers import HunyuanDiTPipeline
from diffusers.pipelines.hunyuandit import pipeline_hunyuandit

import golden
import make_rope
from make_pictures import set_sampler

EXPORT = golden.REPOSITORY / "target/release/hydit-export"
SHAPE = {"depth": 6, "heads": 2, "head_dim": 24, "image_size": 64}
PROMPT, STEPS, SEED, GUIDANCE = "a cat", 6, 42, 5.0
SIZES = [(64, 64), (64, 112), (96, 48)]
SAMPLERS = ["ddpm", "dpmms", "ddim"]


def tencent_positions(head_dim, crops, grid, **_):
    with mock.patch.object(make_rope, "HEAD_DIM", head_dim):
        return make_rope.tencent(*grid)


def draw(pipe, reading, sampler, height, width):
    target = (height, width) if reading == "diffusers" else (width, height)
    positions = mock.patch.object(pipeline_hunyuandit, "get_2d_rotary_pos_embed", tencent_positions)
    with positions if reading == "tencent" else nullcontext():
        return pipe(
            prompt=PROMPT,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            height=height,
            width=width,
            target_size=target,
            generator=torch.Generator("cpu").manual_seed(SEED),
            use_resolution_binning=False,
        ).images[0]


def main():
    listing = []
    for variant in ("hunyuan-dit-v1.1", "hunyuan-dit-v1.2"):
        with tempfile.TemporaryDirectory() as folder:
            flags = [f"--{name.replace('_', '-')}={value}" for name, value in SHAPE.items()]
            subprocess.run([EXPORT, "synth", "--variant", variant, "--out", folder, "--small-text", *flags], check=True)
            pipe = HunyuanDiTPipeline.from_pretrained(folder, torch_dtype=torch.float32)
        pipe.set_progress_bar_config(disable=True)
        scheduler = pipe.scheduler
        for reading in ("diffusers", "tencent"):
            for (height, width), sampler in zip(SIZES, SAMPLERS):
                if (reading, height) == ("tencent", width):
                    continue  # the same picture
                set_sampler(pipe, scheduler, sampler)
                file = f"made-up-{variant[-4:]}-{reading}-{height}x{width}.png"
                draw(pipe, reading, sampler, height, width).save(golden.HERE / "pictures" / file, optimize=True)
                listing.append({"variant": variant, "reading": reading, "sampler": sampler, "height": height, "width": width, "file": file})
    about = {"shape": SHAPE, "prompt": PROMPT, "steps": STEPS, "seed": SEED, "guidance_scale": GUIDANCE, "pictures": listing}
    golden.write_json("pictures/made-up.json", about)


if __name__ == "__main__":
    main()
