#!/usr/bin/env python3
"""Times a guided step of diffusers' HunyuanDiT2DModel, eager and compiled, on the weights that hydit was given.

    python bench/gpu/torch_step.py CHECKPOINT --device cuda --size 1024 1024 --dtype fp16 --json torch.json

The transformer alone, on made-up inputs: batch 2, as guidance has it. Loading and compiling are not counted.
"""

import argparse
import json
import pathlib
import statistics
import time

import torch
from diffusers import HunyuanDiT2DModel
from diffusers.models.embeddings import get_2d_rotary_pos_embed

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def inputs(config, height, width, dtype, device):
    """What the pipeline hands over at a step, of the right shapes."""
    noise = torch.Generator().manual_seed(0)
    grid = (height // 16, width // 16)
    states = {"encoder_hidden_states": (config.text_len, config.cross_attention_dim),
              "encoder_hidden_states_t5": (config.text_len_t5, config.cross_attention_dim_t5)}
    given = {name: torch.randn(2, *shape, generator=noise).to(device, dtype) for name, shape in states.items()}
    for name, length in (("text_embedding_mask", config.text_len), ("text_embedding_mask_t5", config.text_len_t5)):
        given[name] = torch.ones(2, length, dtype=torch.int64, device=device)
    crops = ((0, 0), grid)
    tables = get_2d_rotary_pos_embed(config.attention_head_dim, crops, grid, output_type="pt")
    latents = torch.randn(2, config.in_channels, height // 8, width // 8, generator=noise)
    return given | {"hidden_states": latents.to(device, dtype), "timestep": torch.full((2,), 500.0).to(device, dtype),
                    "image_rotary_emb": tuple(table.to(device) for table in tables), "return_dict": False}


def measure(model, given, device, runs):
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    seconds = []
    with torch.inference_mode():
        for run in range(runs + 2):
            wait()
            started = time.perf_counter()
            model(**given)
            wait()
            if run >= 2:
                seconds.append(time.perf_counter() - started)
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("--device", choices=("cuda", "cpu"), required=True)
    parser.add_argument("--size", type=int, nargs=2, default=[1024, 1024], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--dtype", choices=DTYPES, default="fp16")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", required=True)
    arguments = parser.parse_args()

    device, dtype = arguments.device, DTYPES[arguments.dtype]
    model = HunyuanDiT2DModel.from_pretrained(arguments.checkpoint / "transformer", torch_dtype=dtype).to(device).eval()
    given = inputs(model.config, *arguments.size, dtype, device)
    report = {"torch": torch.__version__, "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
              "dtype": str(dtype), "size": arguments.size}
    for name, forward in (("eager", model), ("compile", torch.compile(model))):
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        try:
            seconds = measure(forward, given, device, arguments.runs)
        except Exception as error:
            if name == "eager":
                raise
            # torch.compile needs a C compiler, which is said and not fatal.
            report[name] = {"failed": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"}
            continue
        report[name] = {"median_seconds": statistics.median(seconds), "seconds": seconds}
        if device == "cuda":
            report[name]["peak_memory_bytes"] = torch.cuda.max_memory_allocated()
    arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
