"""Writes refresh.json: the steps at which the reference model with Skip-Cache runs all its blocks.

`Model` keeps its state as the reference does (OpenSparseLLMs/Skip-DiT @72609de,
text-to-image/hydit/modules/models_cache.py, `HunYuanDiT_cache.forward`): a counter and the cached value are
attributes of the module, the timestep is read with `.item()`. The timesteps are those of diffusers' schedulers.
A fresh model is made for each run: a reused one starts with a stale counter where no step was <= 50.

The file maps "<sampler> <steps>" to one hexadecimal number per gap 1..6; bit i, from the lowest, is step i.

    python make_refresh.py      # torch 2.15.0, diffusers 0.42.1
"""

import json
from pathlib import Path

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

SAMPLERS = {
    "ddpm": (DDPMScheduler, "leading"),
    "ddim": (DDIMScheduler, "leading"),
    "dpmms": (DPMSolverMultistepScheduler, "linspace"),
}


class Model(torch.nn.Module):
    def __init__(self, cache_step):
        super().__init__()
        self.cache_step = cache_step
        self.cache_val = None
        self.cache_cont = 0

    def forward(self, t):
        cur_time = t[0].item()
        full = self.cache_cont % self.cache_step == 0 or cur_time >= 700
        if full:
            self.cache_val = "the input of block 40 - cache_at_branch"
        else:
            assert self.cache_val is not None
        self.cache_cont += 1
        if cur_time <= 50:
            self.cache_cont = 0
            self.cache_val = None
        return full


def main():
    table = {}
    for name, (scheduler, spacing) in SAMPLERS.items():
        for steps in range(10, 101):
            s = scheduler(timestep_spacing=spacing, steps_offset=1)
            s.set_timesteps(steps)
            row = []
            for gap in range(1, 7):
                model = Model(gap)
                bits = sum(model(t.expand(2)) << i for i, t in enumerate(s.timesteps))
                row.append(f"{bits:x}")
            table[f"{name} {steps}"] = row
    text = ",\n".join(f"{json.dumps(k)}:{json.dumps(v, separators=(',', ':'))}" for k, v in table.items())
    (Path(__file__).parent / "refresh.json").write_text(f"{{{text}}}\n")


if __name__ == "__main__":
    main()
