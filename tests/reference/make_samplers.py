"""Writes samplers.json and samplers.safetensors: diffusers' schedulers run on a model everyone can repeat exactly.

The model is made of float32 operations that round the same way everywhere (no sine), so a difference in a
trajectory is a difference in the sampler. torch's own sqrt, log, exp and expm1 come from MKL and are off by one unit
in the last place here and there, depending on the processor. So each run is made twice: `run<i>` with these four
rounded correctly, and the solution of unipc's equations too, every state of it, to be met exactly; `plain<i>` as
torch computes it, the last state. Two pictures of 16 numbers each have generators of their own, seeded 42 and 43; they
draw the first latents and then the noise of each step, of samplers that have any. `karras` is a spacing here as it is
in hydit: use_karras_sigmas, with euler over timestep_spacing="linspace", which decides its ends.

    python make_samplers.py     # torch 2.15.0, diffusers 0.42.1, x86 with AVX2
"""

import json
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    UniPCMultistepScheduler,
)
from diffusers.utils.torch_utils import randn_tensor
from safetensors.torch import save_file

CLASSES = {
    "ddpm": DDPMScheduler,
    "ddim": DDIMScheduler,
    "dpmms": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
    "euler": EulerDiscreteScheduler,
    "euler-ancestral": EulerAncestralDiscreteScheduler,
    "lcm": LCMScheduler,
}
STEPS = [1, 2, 3, 4, 7, 10, 15, 25, 50, 100]
SPACINGS = ["leading", "linspace", "trailing"]
KARRAS = ["dpmms", "unipc", "euler"]
OLD, NEW = ["ddpm", "ddim", "dpmms"], {"unipc": "linspace", "euler": "linspace", "euler-ancestral": "linspace", "lcm": "trailing"}
BASE = {"beta_start": 0.00085, "beta_end": 0.018, "beta_schedule": "scaled_linear", "prediction_type": "v_prediction"}
SCHEDULES = [
    BASE,
    {**BASE, "beta_end": 0.02},
    {**BASE, "beta_end": 0.03},
    {**BASE, "beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
    {**BASE, "num_train_timesteps": 500},
]
EPSILON = {**BASE, "prediction_type": "epsilon"}
DIT = {**SCHEDULES[3], "prediction_type": "epsilon"}  # of DiT and Skip-DiT, whose ddpm learns the variance too
LEARNED = {**DIT, "variance_type": "learned_range"}


def scheduler(sampler, spacing, config):
    extra = {"ddpm": {"clip_sample": False}, "ddim": {"clip_sample": False}}.get(sampler, {})
    if spacing == "karras":
        spacing, extra = "linspace", {"use_karras_sigmas": True}
    if sampler != "lcm":
        extra = {**extra, "timestep_spacing": spacing}
    return CLASSES[sampler](**config, **extra, steps_offset=1)


def model(x, t):
    u = x - x.round()
    return (u * 1.2) * (1.0 - u.abs() * 2.0) + torch.tensor(float(t)) / 1000.0 * 0.1


def cases():
    for steps in STEPS:
        yield "ddpm", "leading", BASE, steps, 0.0
        yield "ddim", "leading", BASE, steps, 0.0
        yield "dpmms", "linspace", BASE, steps, 0.0
    for sampler in OLD:
        for spacing in SPACINGS:
            yield sampler, spacing, SCHEDULES[2], 12, 0.0
        yield sampler, "leading", EPSILON, 10, 0.0
    yield "ddim", "leading", BASE, 10, 0.7
    yield "ddim", "leading", {**BASE, "set_alpha_to_one": False}, 10, 1.0
    for sampler, usual in NEW.items():
        for steps in [1, 2, 3, 10, 25, 50]:
            yield sampler, usual, BASE, steps, 0.0
        for spacing in SPACINGS if sampler != "lcm" else []:
            yield sampler, spacing, SCHEDULES[2], 12, 0.0
        yield sampler, usual, EPSILON, 10, 0.0
    for sampler in KARRAS:
        for steps in [1, 3, 10, 25, 50]:
            yield sampler, "karras", BASE, steps, 0.0
        yield sampler, "karras", SCHEDULES[3], 12, 0.0
    for steps in [1, 2, 10, 50, 250]:
        yield "ddpm", "linspace", LEARNED, steps, 0.0
        yield "ddim", "leading", DIT, steps, 0.0


@contextmanager
def rounded_correctly():
    """sqrt (also written ** 0.5), log, exp, expm1 and solve in double precision, rounded once to float32."""
    power, solve = torch.Tensor.__pow__, torch.linalg.solve

    def pow(x, exponent):
        return x.double().sqrt().float() if exponent == 0.5 else power(x, exponent)

    def double(f):
        return lambda x: f(x.double()).float()

    with (
        patch.object(torch.Tensor, "__pow__", pow),
        patch.object(torch, "sqrt", double(torch.sqrt)),
        patch.object(torch.Tensor, "sqrt", double(torch.Tensor.sqrt)),
        patch.object(torch, "log", double(torch.log)),
        patch.object(torch, "exp", double(torch.exp)),
        patch.object(torch, "expm1", double(torch.expm1)),
        patch.object(torch.linalg, "solve", lambda a, b: solve(a.double(), b.double()).float()),
    ):
        yield


def trajectory(sampler, spacing, config, steps, eta):
    """The latents after each step; of long runs every tenth and the last."""
    s = scheduler(sampler, spacing, config)
    s.set_timesteps(steps)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in (42, 43)]
    x = randn_tensor((2, 4, 2, 2), generators) * s.init_noise_sigma
    states = []
    for i, t in enumerate(s.timesteps):
        extra = {} if sampler == "unipc" else {"generator": generators}
        if sampler == "ddim":
            extra["eta"] = eta
        output = model(s.scale_model_input(x, t), t)
        if config is LEARNED:
            output = torch.cat([output, model(x * 0.5, t) * 4.0], dim=1)
        x = s.step(output, t, x, return_dict=False, **extra)[0]
        if steps < 50 or i % 10 == 9:
            states.append(x.flatten())
    return torch.stack(states)


def fnv(numbers):
    """FNV-1a over little-endian 32-bit floats, 64 bits."""
    h = 0xCBF29CE484222325
    for byte in numpy.array(numbers, "<f4").tobytes():
        h = (h ^ byte) * 0x100000001B3 % 2**64
    return f"{h:016x}"


def every_count(sampler, spacing):
    """A hash over the timesteps of all step counts, and the counts whose timesteps diffusers gets wrong.

    Wrong is: refused, beyond the table, below zero, or repeated. With karras neighbours may be equal. An extra last timestep of -1 (a rounding of "trailing") is
    cut off.
    """
    s = scheduler(sampler, spacing, BASE)
    hashed, wrong = [], []
    for steps in range(1, 1001):
        try:
            s.set_timesteps(steps)
        except ValueError:  # lcm, beyond the steps that were distilled
            wrong.append(steps)
            continue
        t = s.timesteps.tolist()
        if len(t) == steps + 1 and t[-1] == -1:
            t.pop()
        if len(t) != steps or t[0] > 999 or t[-1] < 0 or (spacing != "karras" and len(set(t)) < steps):
            wrong.append(steps)
        else:
            hashed += t
    return {"fnv": fnv(hashed), "wrong": wrong}


def main():
    tensors, runs = {}, []
    for i, (sampler, spacing, config, steps, eta) in enumerate(cases()):
        tensors[f"plain{i}"] = trajectory(sampler, spacing, config, steps, eta)[-1].clone()
        with rounded_correctly():
            tensors[f"run{i}"] = trajectory(sampler, spacing, config, steps, eta)
            s = scheduler(sampler, spacing, config)
            s.set_timesteps(steps)
        runs.append({"sampler": sampler, "spacing": spacing, "steps": steps, "eta": eta, "schedule": config,
                     "timesteps": s.timesteps.tolist()})
    for i, config in enumerate(SCHEDULES):
        tensors[f"alphas_cumprod{i}"] = DDPMScheduler(**config).alphas_cumprod
    pairs = [(sampler, spacing) for sampler in CLASSES for spacing in SPACINGS if sampler != "lcm"]
    pairs += [("lcm", "trailing"), ("dpmms", "karras"), ("unipc", "karras")]
    with rounded_correctly():
        counts = {f"{sampler} {spacing}": every_count(sampler, spacing) for sampler, spacing in pairs}
    here = Path(__file__).parent
    save_file(tensors, here / "samplers.safetensors")
    text = ",\n".join(json.dumps(run, separators=(",", ":")) for run in runs)
    text = f'{{"schedules":{json.dumps(SCHEDULES)},\n"counts":{json.dumps(counts)},\n"runs":[\n{text}\n]}}\n'
    json.loads(text)
    (here / "samplers.json").write_text(text)


if __name__ == "__main__":
    main()
