"""Pictures and captions: Noto emoji in coloured discs, named by CLDR.

Two npm packages hold all that is needed: drawings (SVG) and names. Each drawing is rendered once, large; a picture is
then a disc, a resized drawing and a shift. Which (subject, colour) pairs are never shown in training is a pure function
of their places in the lists, so that it is the same everywhere.
"""

import io
import json
import re
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image, ImageDraw

PACKAGES = ("@iconify-json/noto@1.2.9", "cldr-annotations-full@48.2.0")
SIZE = 128
SPRITE = 256
COLOURS = {  # English name: (Chinese character, RGB)
    "red": ("红", (229, 72, 77)),
    "orange": ("橙", (245, 150, 56)),
    "yellow": ("黄", (247, 214, 72)),
    "green": ("绿", (76, 181, 107)),
    "cyan": ("青", (92, 207, 224)),
    "blue": ("蓝", (62, 111, 217)),
    "purple": ("紫", (142, 91, 200)),
    "pink": ("粉", (244, 154, 193)),
}
HELD_OUT_EVERY = 10  # one pair in ten


@dataclass
class Subject:
    en: str
    zh: str
    sprite: np.ndarray  # RGBA, SPRITE x SPRITE


def fetch(cache: Path) -> list[Path]:
    """The two packages' tar files, by `npm pack` where they are not there yet."""
    cache.mkdir(parents=True, exist_ok=True)
    files = []
    for package in PACKAGES:
        file = cache / (re.sub(r"[@/]+", "-", package).strip("-") + ".tgz")
        if not file.exists():
            subprocess.run(["npm", "pack", package], cwd=cache, check=True, capture_output=True)
        files.append(file)
    return files


def read_json(tar: Path, member: str):
    with tarfile.open(tar) as archive:
        return json.load(archive.extractfile(f"package/{member}"))


def load_subjects(cache: Path, emoji: list[str]) -> list[Subject]:
    noto, cldr = fetch(cache)
    icons = read_json(noto, "icons.json")["icons"]
    names_of = {
        lang: read_json(cldr, f"annotations/{lang}/annotations.json")["annotations"]["annotations"] for lang in ("en", "zh")
    }
    icon_of = {}
    for points, icon in read_json(noto, "chars.json").items():
        icon_of.setdefault("".join(chr(int(p, 16)) for p in points.split("-")).replace("\ufe0f", ""), icon)
    subjects = []
    for char in emoji:
        en, zh = (names_of[lang][char]["tts"][0] for lang in ("en", "zh"))
        subjects.append(Subject(en, zh, render(icons[icon_of[char]]["body"])))
    return subjects


def render(body: str) -> np.ndarray:
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 128 128">{body}</svg>'
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SPRITE, height=SPRITE))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def compose(subject: Subject, colour: str, rng: np.random.Generator) -> np.ndarray:
    """One picture, SIZE x SIZE x 3 bytes, with a little chance in scale and place."""
    big = 4  # the disc is drawn large and shrunk, for a smooth edge
    radius = SIZE * rng.uniform(0.455, 0.48)
    cx, cy = SIZE / 2 + rng.uniform(-1.5, 1.5, 2)
    canvas = Image.new("RGB", (SIZE * big, SIZE * big), (255, 255, 255))
    box = [big * v for v in (cx - radius, cy - radius, cx + radius, cy + radius)]
    ImageDraw.Draw(canvas).ellipse(box, fill=COLOURS[colour][1])
    canvas = canvas.resize((SIZE, SIZE), Image.Resampling.BOX)
    side = round(SIZE * rng.uniform(0.60, 0.68))
    sprite = Image.fromarray(subject.sprite).resize((side, side), Image.Resampling.LANCZOS)
    x, y = (round(c - side / 2 + d) for c, d in zip((cx, cy), rng.uniform(-2.5, 2.5, 2)))
    canvas.paste(sprite, (x, y), sprite)
    return np.asarray(canvas)


def captions(subject: Subject, colour: str) -> list[str]:
    return [f"{COLOURS[colour][0]}色圆里的{subject.zh}", f"a {subject.en} in a {colour} circle"]


def held_out(subject_index: int, colour_index: int) -> bool:
    return (subject_index * 3 + colour_index * 7) % HELD_OUT_EVERY == 0


def pairs(subjects: list[Subject], held: bool = False) -> list[tuple[int, str]]:
    """(subject's index, colour) of the pairs to train on, or of those held out."""
    return [
        (s, colour)
        for s in range(len(subjects))
        for c, colour in enumerate(COLOURS)
        if held_out(s, c) == held
    ]
