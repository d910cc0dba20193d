"""Rotary position tables -> rope/rope.{safetensors,json}

As the pipeline makes them: diffusers' get_resize_crop_region_for_grid with base size 32, then
get_2d_rotary_pos_embed. Tencent's own code takes numpy's linspace(start, stop, n, endpoint=False) instead of
diffusers' torch.linspace(start, stop * (n-1)/n, n); the two differ when start is not 0, i.e. along the shorter side.

    small/<th>x<tw>x<head>/{cos,sin}                        [th, tw, head] diffusers' reading, whole
    <reading>/<height>x<width>/{cos,sin}_{w,h}              [tw, head/2] and [th, head/2], head 88, sizes in pixels:
                                                            the table is [cos_w | cos_h]: its first half depends on the
                                                            column only, its second half on the row only

rope.json: for every supported size and some more: the region, and the positions along both axes in both readings.
"""

import numpy as np
import torch
from diffusers.models.embeddings import get_2d_rotary_pos_embed, get_2d_rotary_pos_embed_from_grid
from diffusers.pipelines.hunyuandit.pipeline_hunyuandit import SUPPORTED_SHAPE, get_resize_crop_region_for_grid
from safetensors.torch import save_file

import golden

BASE = 512 // 8 // 2


def rotary_tables(head_dim: int, grid: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin, each [th, tw, head_dim], as HunyuanDiTPipeline makes them."""
    region = get_resize_crop_region_for_grid(grid, BASE)
    cos, sin = get_2d_rotary_pos_embed(head_dim, region, grid, output_type="pt")
    return cos.reshape(*grid, head_dim), sin.reshape(*grid, head_dim)


def tencent_tables(head_dim: int, grid: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The same with Tencent's positions."""
    rows, columns = (torch.from_numpy(axis) for axis in tencent_positions(grid))
    mesh = torch.stack(torch.meshgrid(columns, rows, indexing="xy"))[:, None]
    cos, sin = get_2d_rotary_pos_embed_from_grid(head_dim, mesh, use_real=True)
    return cos.reshape(*grid, head_dim), sin.reshape(*grid, head_dim)


def tencent_positions(grid):
    start, stop = get_resize_crop_region_for_grid(grid, BASE)
    return [np.linspace(start[i], stop[i], grid[i], endpoint=False, dtype=np.float32) for i in (0, 1)]


def diffusers_positions(grid):
    start, stop = get_resize_crop_region_for_grid(grid, BASE)
    return [torch.linspace(start[i], stop[i] * (grid[i] - 1) / grid[i], grid[i], dtype=torch.float32) for i in (0, 1)]


def halves(table: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[tw, head/2] of the columns and [th, head/2] of the rows; checks that the table has no other content."""
    middle = table.shape[2] // 2
    columns, rows = table[0, :, :middle], table[:, 0, middle:]
    assert torch.equal(table[:, :, :middle], columns[None].expand_as(table[:, :, :middle]))
    assert torch.equal(table[:, :, middle:], rows[:, None].expand_as(table[:, :, middle:]))
    return columns.contiguous(), rows.contiguous()


def main():
    tensors = {}
    for th, tw, head in [(8, 8, 64), (6, 10, 64), (3, 5, 88), (5, 2, 8), (1, 1, 4)]:
        cos, sin = rotary_tables(head, (th, tw))
        tensors[f"small/{th}x{tw}x{head}/cos"], tensors[f"small/{th}x{tw}x{head}/sin"] = cos, sin
    for reading, make in [("diffusers", rotary_tables), ("tencent", tencent_tables)]:
        for height, width in [(1280, 768), (768, 1024)]:
            for name, table in zip(("cos", "sin"), make(88, (height // 16, width // 16))):
                columns, rows = halves(table)
                tensors[f"{reading}/{height}x{width}/{name}_w"] = columns
                tensors[f"{reading}/{height}x{width}/{name}_h"] = rows
    (golden.HERE / "rope").mkdir(exist_ok=True)
    save_file(tensors, golden.HERE / "rope/rope.safetensors")

    sizes = []
    supported = [(height, width) for width, height in SUPPORTED_SHAPE]
    for height, width in supported + [(128, 128), (96, 160), (192, 128), (512, 512), (16, 256), (1280, 720)]:
        grid = (height // 16, width // 16)
        start, stop = get_resize_crop_region_for_grid(grid, BASE)
        rows, columns = diffusers_positions(grid)
        tencent_rows, tencent_columns = tencent_positions(grid)
        sizes.append(
            {
                "height": height,
                "width": width,
                "grid": grid,
                "start": start,
                "stop": stop,
                "diffusers": {"rows": ends(rows), "columns": ends(columns)},
                "tencent": {"rows": ends(tencent_rows), "columns": ends(tencent_columns)},
            }
        )
    golden.write_json("rope/rope.json", {"start_and_stop": "[row, column]", "positions": "the first two and the last two", "sizes": sizes})


def ends(positions) -> list[float]:
    positions = [float(p) for p in positions]
    return positions if len(positions) < 4 else positions[:2] + positions[-2:]


if __name__ == "__main__":
    main()
