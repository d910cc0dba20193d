"""Writes noise.safetensors: what torch.randn draws on a CPU generator.

One tensor per stream, named `seed<seed>_<shape>[_<shape>...]`: the shapes are drawn in turn from one
`torch.Generator("cpu").manual_seed(seed)`. A draw of more than 192 numbers is thinned by `sample`, the
thinned draws of a stream are concatenated.

    python make_noise.py        # torch 2.15.0, x86 with AVX2 (ATEN_CPU_CAPABILITY=avx2 or avx512: equal bits)
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

# Sizes below 16 take torch's scalar path, others its path of blocks of 16.
STREAMS = [
    (0, [(1, 4, 16, 16)]),
    (0, [(3,)]),
    (0, [(16,)]),
    (42, [(1, 4, 16, 16)]),
    (42, [(1, 4, 128, 128)]),
    (42, [(1, 4, 24, 16)]),
    (42, [(5, 7)]),
    (42, [(17,)]),
    (42, [(1,)]),
    (42, [(15,)]),
    (1, [(31,)]),
    (7, [(1, 4, 96, 128)]),
    (123456789, [(1000,)]),
    (2**31 - 1, [(33,)]),
    (2**31, [(1, 4, 16, 16)]),
    (2**32 - 1, [(1, 4, 16, 16)]),
    (2**32, [(1, 4, 16, 16)]),
    (2**32 + 42, [(5, 7)]),
    (2**63 + 5, [(20,)]),
    (2**64 - 1, [(1, 4, 160, 160)]),
    # Several calls on one generator: the state crosses a refill of the 624 words, the cached second
    # normal of the scalar path waits behind a block draw.
    (42, [(1, 4, 16, 16)] * 3),
    (42, [(3,), (17,), (3,), (16,), (2,)]),
    (9, [(700,), (1,), (700,), (1,), (1,)]),
    (5, [(625,), (624,), (15,), (35,)]),
]


def sample(x):
    x = x.flatten()
    n = x.numel()
    if n <= 192:
        return x
    return torch.cat([x[:64], x[[i * n // 64 for i in range(64)]], x[-64:]])


def main():
    tensors = {}
    for seed, shapes in STREAMS:
        generator = torch.Generator("cpu").manual_seed(seed)
        draws = [sample(torch.randn(shape, generator=generator)) for shape in shapes]
        name = f"seed{seed}_" + "_".join("x".join(map(str, shape)) for shape in shapes)
        tensors[name] = torch.cat(draws)
    save_file(tensors, Path(__file__).parent / "noise.safetensors")


if __name__ == "__main__":
    main()
