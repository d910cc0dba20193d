"""Edges by cv2.Canny(image, 100, 200), as everyone calls it -> control/canny-*.png

canny-<name>-photo.png is what edges are found in, canny-<name>-edges.png what OpenCV finds.
"""

import cv2
import numpy as np
from PIL import Image

import golden

FOLDER = golden.HERE / "control"


def photos():
    sample = Image.open(golden.EMOJI / "sample.png").convert("RGB")
    yield "emoji", sample.crop((128, 0, 384, 128))
    yield "resized", sample.crop((300, 20, 480, 120)).resize((97, 61), Image.Resampling.LANCZOS)
    y, x = np.mgrid[0:60, 0:90]
    waves = np.stack([np.sin(x / 5 + y / 9), np.sin(y / 4), np.cos(x * y / 200)], axis=-1) * 127 + 128
    noise = np.random.default_rng(0).integers(-60, 60, waves.shape)
    yield "noise", Image.fromarray(np.clip(waves + noise, 0, 255).astype(np.uint8))


FOLDER.mkdir(exist_ok=True)
for name, photo in photos():
    edges = cv2.Canny(np.asarray(photo), 100, 200)
    photo.save(FOLDER / f"canny-{name}-photo.png", optimize=True)
    Image.fromarray(edges).save(FOLDER / f"canny-{name}-edges.png", optimize=True)
    print(name, photo.size, (edges > 0).mean())
