"""Writes image.json: what diffusers makes of decoder values, and the likeness of three pairs of made-up pictures.

    python make_image.py        # torch 2.15.0, diffusers 0.42.1, numpy 2.4.6
"""

import json
from pathlib import Path

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor


def decoder_values():
    """All halves between two bytes that float32 meets exactly, their neighbours, and values outside [-1, 1]."""
    values = [-3.0, -1.0, -0.0, 0.0, 0.25, 1.0, 1.0000001, 7.5]
    for k in range(255):
        x = np.float32((k + 0.5) / 255 * 2 - 1)
        if (x * np.float32(0.5) + np.float32(0.5)) * np.float32(255) == k + 0.5:
            values += [float(x), float(np.nextafter(x, np.float32(-2))), float(np.nextafter(x, np.float32(2)))]
    return values + [values[-1]] * (-len(values) % 3)


def picture(width, height, kind):
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    smooth = (3 * x + 5 * y + 29 * c + (x * y) % 31) % 256
    if kind == 0:
        return smooth.astype(np.uint8)
    hashed = (x * 7919 + y * 104729 + c * 1299709) % 97
    if kind == 1:  # a little noise
        return np.clip(smooth + hashed % 9 - 4, 0, 255).astype(np.uint8)
    return (hashed * 2).astype(np.uint8)  # unrelated


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))


def ssim(a, b):
    """Wang et al. 2004 written out: one 11 x 11 window after the other, two-dimensional weights."""
    luma = lambda p: p.astype(np.float64) @ [0.299, 0.587, 0.114]
    a, b = luma(a), luma(b)
    i, j = np.mgrid[-5:6, -5:6]
    window = np.exp(-(i**2 + j**2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for y in range(a.shape[0] - 10):
        for x in range(a.shape[1] - 10):
            p, q = a[y : y + 11, x : x + 11], b[y : y + 11, x : x + 11]
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
            cov = (window * (p - mp) * (q - mq)).sum()
            values.append((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return float(np.mean(values))


def main():
    values = decoder_values()
    tensor = torch.tensor(values, dtype=torch.float32).reshape(1, 3, 1, -1)
    (image,) = VaeImageProcessor().postprocess(tensor, output_type="pil")
    pairs = []
    for width, height, one, other in [(40, 33, 0, 1), (40, 33, 0, 2), (11, 11, 1, 2), (24, 12, 0, 1)]:
        a, b = picture(width, height, one), picture(width, height, other)
        pairs.append({"width": width, "height": height, "kinds": [one, other], "psnr": psnr(a, b), "ssim": ssim(a, b)})
    out = {"values": values, "rgb": np.asarray(image).flatten().tolist(), "pairs": pairs}
    (Path(__file__).parent / "image.json").write_text(json.dumps(out) + "\n")


if __name__ == "__main__":
    main()
