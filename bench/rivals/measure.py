"""How far pictures are apart: PSNR, and SSIM as hydit has it (Wang et al. 2004, of the luma)."""

import math

import numpy

#: Stands for the PSNR of equal pictures.
EQUAL = 99.0

WINDOW = numpy.exp(-((numpy.arange(11) - 5.0) ** 2) / 4.5)
WINDOW /= WINDOW.sum()


def psnr(a, b):
    """Of two arrays of bytes, in dB."""
    error = ((a.astype(numpy.float64) - b.astype(numpy.float64)) ** 2).mean()
    return EQUAL if error == 0 else 10 * math.log10(255**2 / error)


def blur(values):
    """The Gaussian mean of every window of 11 x 11 that lies inside."""
    for axis in (0, 1):
        windows = numpy.lib.stride_tricks.sliding_window_view(values, 11, axis=axis)
        values = windows @ WINDOW
    return values


def ssim(a, b):
    """Of two pictures [height, width, 3] of bytes."""
    x, y = (picture.astype(numpy.float64) @ [0.299, 0.587, 0.114] for picture in (a, b))
    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return float(((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())


def lowest_tenth(values):
    """What nine in ten reach."""
    return sorted(values)[math.ceil(len(values) / 10) - 1]
