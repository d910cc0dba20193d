"""Pictures that a model draws itself, and their edges: all the data that a ControlNet is trained on here.

The model draws each subject in one place and one size, so that a caption says already what edges would say. The
pictures are therefore seen in several places, sizes and mirrored: then only the edges tell where things are.
"""

import time
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import DDIMScheduler

import checkpoint

COLOURS = {
    "white": "白", "red": "红", "orange": "橙", "yellow": "黄", "green": "绿", "cyan": "青",
    "blue": "蓝", "purple": "紫", "pink": "粉", "black": "黑", "gray": "灰",
}  # fmt: skip
PLACES = 12  # ways in which each picture is seen
SMALLEST = 0.5  # of a picture that is made smaller, by side
GROUP = 16  # pictures that are drawn together


class Captions:
    """All captions the model knows. Number 0 is the empty one; the others go by subject, colour and language."""

    def __init__(self, base: Path):
        lines = (base / "subjects.tsv").read_text(encoding="utf-8").splitlines()
        self.subjects = [line.split("\t") for line in lines]
        self.all = [""]
        for en, zh in self.subjects:
            for colour, character in COLOURS.items():
                self.all += [f"{character}色背景上的{zh}", f"a {en} on a {colour} background"]

    @staticmethod
    def number(subject, colour, language):
        return 1 + (subject * len(COLOURS) + colour) * 2 + language


def asked(captions: Captions, count: int, seed: int):
    """What each picture of the bank shows, `[count, 3]`: subjects by turns, colours and languages by chance."""
    random, subjects = np.random.default_rng(seed), len(captions.subjects)
    return torch.tensor([(i % subjects, random.integers(len(COLOURS)), random.random() >= 0.5) for i in range(count)])


def placed(picture, random):
    """The picture smaller, elsewhere and perhaps mirrored; its background goes on to the border."""
    side = picture.shape[0]
    scale = random.uniform(SMALLEST, 1.0)
    room = side * (1 - scale) + side * 0.1
    shift = random.uniform(-0.5, 0.5, 2) * room + side * (1 - scale) / 2
    if random.random() < 0.5:
        picture = np.ascontiguousarray(picture[:, ::-1])
    move = np.float32([[scale, 0, shift[0]], [0, scale, shift[1]]])
    return cv2.warpAffine(picture, move, (side, side), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)


def edges_of(picture):
    """As `--control-preprocess canny` finds them."""
    return np.repeat(cv2.Canny(picture, 100, 200)[..., None], 3, axis=2)


def latents_of(pipe, pictures):
    """The latents of pictures `[n, height, width, 3]` of bytes: the encoder's means, scaled."""
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    return pipe.vae.encode(pixels).latent_dist.mode() * pipe.vae.config.scaling_factor


def drawn(pipe, prompts, seeds, steps):
    """Pictures of the prompts by DDIM and guidance 5, as arrays."""
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    size = pipe.transformer.config.sample_size * 8
    pictures = pipe(
        prompts, negative_prompt=[""] * len(prompts), height=size, width=size, num_inference_steps=steps,
        guidance_scale=5.0, generator=[torch.Generator().manual_seed(s) for s in seeds], use_resolution_binning=False,
    ).images  # fmt: skip
    return [np.asarray(picture) for picture in pictures]


@torch.no_grad()
def bank(pipe, captions: Captions, args, log):
    """Captions `[pictures, 3]`, latents `[pictures, PLACES, ..]` of pictures and of their edges; each group is kept."""
    what, parts = asked(captions, args.pictures, args.seed), []
    for start in range(0, args.pictures, GROUP):
        file = args.work / f"places-{start:05}.pt"
        part = checkpoint.load(file)
        if part is None:
            prompts = [captions.all[Captions.number(*row)] for row in what[start : start + GROUP].tolist()]
            pictures = drawn(pipe, prompts, range(100_000 + start, 100_000 + start + len(prompts)), args.steps)
            random = np.random.default_rng((args.seed, start))
            seen = [placed(picture, random) for picture in pictures for _ in range(PLACES)]
            part = {
                "latents": latents_of(pipe, seen).unflatten(0, (-1, PLACES)),
                "edges": latents_of(pipe, [edges_of(picture) for picture in seen]).unflatten(0, (-1, PLACES)),
            }
            checkpoint.save(part, file)
            log(f"{start + len(prompts)} pictures drawn")
        parts.append(part)
    return what, *(torch.cat([part[name] for part in parts]) for name in ("latents", "edges"))
