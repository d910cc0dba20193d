"""Writes rope.safetensors: 2-D rotary tables of several grids, in diffusers' and in Tencent's reading.

`<reading>_<h>x<w>_cos` and `_sin` are thinned: the tables [h * w, 88] at the token rows listed by `rows`, and of the
88 numbers of a token every fourth (each comes twice in a row, which is checked here).

The diffusers reading is HunyuanDiTPipeline's own functions. Tencent's is transcribed from Tencent/HunyuanDiT
@368280e, hydit/modules/posemb_layers.py (`get_meshgrid`, `get_1d_rotary_pos_embed`), numpy positions.

    python make_rope.py         # torch 2.15.0, diffusers 0.42.1, x86 with AVX2
"""

from pathlib import Path

import numpy as np
import torch
from diffusers.models.embeddings import get_2d_rotary_pos_embed
from diffusers.pipelines.hunyuandit.pipeline_hunyuandit import get_resize_crop_region_for_grid
from safetensors.torch import save_file

HEAD_DIM = 88
# Height and width in tokens of 16 pixels: the sizes the model was trained for, the emoji model's and odd ones.
GRIDS = [(64, 64), (80, 80), (48, 64), (64, 48), (54, 72), (60, 80), (48, 80), (80, 48)]
GRIDS += [(8, 8), (8, 12), (5, 3), (1, 7), (7, 1), (1, 1)]
BASE = 32


def rotary_tables(head_dim, grid):
    """cos and sin, each [th, tw, head_dim], as HunyuanDiTPipeline makes them."""
    crops = get_resize_crop_region_for_grid(grid, BASE)
    cos, sin = get_2d_rotary_pos_embed(head_dim, crops, grid, output_type="pt")
    return cos.reshape(*grid, head_dim), sin.reshape(*grid, head_dim)


def diffusers(h, w):
    return [table.reshape(h * w, HEAD_DIM) for table in rotary_tables(HEAD_DIM, (h, w))]


def tencent(h, w):
    # get_fill_resize_and_crop equals get_resize_crop_region_for_grid for a square base.
    start, stop = get_resize_crop_region_for_grid((h, w), BASE)
    grid_h = np.linspace(start[0], stop[0], h, endpoint=False, dtype=np.float32)
    grid_w = np.linspace(start[1], stop[1], w, endpoint=False, dtype=np.float32)
    grid = np.stack(np.meshgrid(grid_w, grid_h), axis=0).reshape([2, 1, h, w])

    def one(pos):
        dim = HEAD_DIM // 2
        freqs = 1.0 / (10000.0 ** (torch.arange(0, dim, 2)[: (dim // 2)].float() / dim))
        freqs = torch.outer(torch.from_numpy(pos), freqs).float()
        return freqs.cos().repeat_interleave(2, dim=1), freqs.sin().repeat_interleave(2, dim=1)

    along_w, along_h = one(grid[0].reshape(-1)), one(grid[1].reshape(-1))
    return tuple(torch.cat([a, b], dim=1) for a, b in zip(along_w, along_h))


def rows(h, w):
    """The first row, the last column and the diagonal of the grid, each thinned to 5."""
    pick = lambda n: sorted({i * (n - 1) // 4 for i in range(5)})
    cells = [(0, x) for x in pick(w)] + [(y, w - 1) for y in pick(h)]
    cells += [(i * (h - 1) // 4, i * (w - 1) // 4) for i in range(5)]
    return [y * w + x for y, x in cells]


def main():
    tensors = {}
    for h, w in GRIDS:
        for reading in (diffusers, tencent):
            for name, table in zip(("cos", "sin"), reading(h, w)):
                assert table.shape == (h * w, HEAD_DIM) and table.dtype == torch.float32
                assert torch.equal(table[:, 0::2], table[:, 1::2])
                tensors[f"{reading.__name__}_{h}x{w}_{name}"] = table[rows(h, w)][:, ::4].contiguous()
    save_file(tensors, Path(__file__).parent / "rope.safetensors")


if __name__ == "__main__":
    main()
