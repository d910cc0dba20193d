"""hydit's calibrated schedules, from the files that `hydit-serve calibrate` writes, applied here in PyTorch.

A schedule names the steps that refresh. What the last block reads is a weighted sum of the core's last three outputs, at
most refreshes too, and, at some of the other steps, a correction: how far the first block's output has moved since the refresh, times a matrix of low rank.
"""

import pathlib

import torch
import yaml
from safetensors.torch import load_file

from .base import Method


class Schedule:
    """Refreshes, and by step the weights and the corrections."""

    def __init__(self, entry):
        self.refresh = set(entry["refresh"])
        self.weights = {int(step): weights for step, weights in (entry.get("forecast") or {}).items()}
        self.corrections = {}


def read(path):
    """The schedules of a calibration by their number of refreshes."""
    path = pathlib.Path(path)
    found = {len(entry["refresh"]): Schedule(entry) for entry in yaml.safe_load(path.read_text())["schedules"]}
    beside = path.with_suffix(".corrections.safetensors")
    if beside.exists():
        tensors = load_file(beside)
        for name, down in tensors.items():
            runs, step, factor = name.split(".")
            if factor == "down":
                up = tensors[f"{runs}.{step}.up"]
                found[int(runs)].corrections[int(step)] = down.float(), up.float()
    return found


class Hydit(Method):
    name, source = "hydit, calibrated", "hydit-serve calibrate"
    never = {"runs": None}

    def __init__(self, context, runs):
        super().__init__(context)
        self.schedule = context.schedules[runs] if runs else Schedule({"refresh": range(context.steps)})
        self.kept = []

    @staticmethod
    def settings(context):
        return [{"runs": runs} for runs in sorted(context.schedules)]

    def hidden(self, step):
        last = self.depth - 1
        seen = step.blocks(0, 1, step.x)
        if step.index in self.schedule.refresh:
            self.seen = seen
            self.kept = [step.blocks(1, last, seen), *self.kept[:2]]
        weights = self.schedule.weights.get(step.index, [1.0])
        deep = sum(weight * kept for weight, kept in zip(weights, self.kept))
        if step.index in self.schedule.corrections:
            down, up = self.schedule.corrections[step.index]
            deep = deep + torch.matmul(torch.matmul(seen - self.seen, down), up)
            step.count("correction")
        return step.blocks(last, self.depth, deep)
