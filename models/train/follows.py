"""Does a ControlNet draw what its edges say, whatever the caption says?

    python models/train/follows.py models/emoji-canny --base models/emoji --sheet models/emoji-canny/sample.png

The model draws subjects; their edges, half of them moved or mirrored, are then drawn with the caption of another
subject, with the net and without. It prints how much of the lines is met: the harmonic mean of the share of the map's
pixels with an edge of the picture at most NEAR pixels away, and of the picture's with one of the map's.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, HunyuanDiT2DControlNetModel, HunyuanDiTControlNetPipeline, HunyuanDiTPipeline
from PIL import Image

import edges

HERE = Path(__file__).resolve().parent
NEAR = 1
STEPS = 25
GAP = 4  # pixels between the sheet's tiles


def near(lines):
    side = 2 * NEAR + 1
    return cv2.dilate(lines, np.ones((side, side), np.uint8)) > 0


def met(lines, picture):
    """How much of each other's edges a map `[height, width]` and a picture meet, 0 to 1."""
    found = cv2.Canny(picture, 100, 200)
    if not found.any() or not lines.any():
        return 0.0
    recall, precision = near(found)[lines > 0].mean(), near(lines)[found > 0].mean()
    return 2 * recall * precision / max(recall + precision, 1e-9)


def cases(captions, count, random):
    """Subjects of edges, and captions of others, `[count]` of each; every colour comes in turn."""
    subjects = random.permutation(len(captions.subjects))
    shown = [captions.number(subjects[i], 0, 1) for i in range(count)]
    colours = [i % len(edges.COLOURS) for i in range(count)]
    asked = [captions.number(subjects[-1 - i], colours[i], 1) for i in range(count)]
    return [captions.all[i] for i in shown], [captions.all[i] for i in asked]


@torch.no_grad()
def drawn(pipe, net, prompts, maps, weight):
    """Pictures by dpmms of the prompts, with the net and the maps."""
    parts = {**pipe.components, "scheduler": DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)}
    draw = HunyuanDiTControlNetPipeline(**parts, controlnet=net, requires_safety_checker=False)
    draw.set_progress_bar_config(disable=True)
    size = maps[0].shape[0]
    pictures = [
        draw(
            prompt, negative_prompt="", control_image=Image.fromarray(lines), controlnet_conditioning_scale=weight,
            height=size, width=size, num_inference_steps=STEPS, guidance_scale=5.0, use_resolution_binning=False,
            generator=torch.Generator().manual_seed(seed),
        ).images[0]
        for seed, (prompt, lines) in enumerate(zip(prompts, maps, strict=True))
    ]  # fmt: skip
    return [np.asarray(picture) for picture in pictures]


def grid(rows):
    """Tiles of one size, beside and below each other."""
    height, width = rows[0][0].shape[:2]
    sheet = np.full((len(rows) * (height + GAP) - GAP, len(rows[0]) * (width + GAP) - GAP, 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, tile in enumerate(row):
            sheet[y * (height + GAP) :, x * (width + GAP) :][:height, :width] = tile
    return Image.fromarray(sheet)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("net", type=Path)
    p.add_argument("--base", type=Path, default=HERE.parent / "emoji")
    p.add_argument("--count", type=int, default=10)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--sheet", type=Path, help="PNG: maps, drawn with the net, without, with the net and no caption")
    args = p.parse_args()
    pipe = HunyuanDiTPipeline.from_pretrained(args.base, torch_dtype=torch.float32, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    net = HunyuanDiT2DControlNetModel.from_pretrained(args.net, torch_dtype=torch.float32)
    random = np.random.default_rng(args.seed)
    shown, asked = cases(edges.Captions(args.base), args.count, random)
    pictures = edges.drawn(pipe, shown, range(args.count), 20)
    pictures = [picture if i % 2 else edges.placed(picture, random) for i, picture in enumerate(pictures)]
    maps = [edges.edges_of(picture) for picture in pictures]
    rows = [maps]
    for name, prompts, weight in (("with", asked, 1.0), ("without", asked, 0.0), ("no caption", [""] * args.count, 1.0)):
        row = drawn(pipe, net, prompts, maps, weight)
        rows.append(row)
        shares = [met(lines[..., 0], picture) for lines, picture in zip(maps, row)]
        print(f"{name:10} {np.mean(shares):.2f}  " + " ".join(f"{share:.2f}" for share in shares), flush=True)
    for what, prompt in zip(shown, asked):
        print(f"  edges of {what}: {prompt}")
    if args.sheet:
        grid(rows).save(args.sheet, optimize=True)


if __name__ == "__main__":
    main()
