"""The loop of those that train one model on what does not change: as long as the processor has minutes left.

It goes on from its last checkpoint. A subclass has the constants below, `batch`, which draws what the model is trained on
next, and `loss_of(model, *share)`, this share's part of the batch's mean loss.
"""

import copy
import time

import numpy as np
import torch

import checkpoint
from replicas import Replicas

PARTS = ("model", "average", "muon", "adam")


def log(line):
    print(time.strftime("%H:%M:%S"), line, flush=True)


class Loop:
    DECAY: float  # of the averaged weights, which are saved
    WARM: int  # steps in which the learning rates go up
    COOL: float  # share of the time in which they go down, at its end
    EVERY: int  # steps from one line of the log to the next
    CLIP = float("inf")  # norm of the gradients of what Adam trains

    def __init__(self, args, model, muon, adam, file):
        """Trains `model` by its two optimisers; `file` is the checkpoint's."""
        self.args, self.model, self.muon, self.adam, self.file = args, model, muon, adam, file
        self.average = copy.deepcopy(model).requires_grad_(False)
        self.replicas = Replicas(model, args.workers)
        self.step, self.spent = 0, 0.0
        kept = checkpoint.load(file)
        if kept:
            for part in PARTS:
                getattr(self, part).load_state_dict(kept[part])
            self.step, self.spent = kept["step"], kept["spent"]
            log(f"goes on from step {self.step}, {self.spent / 60:.1f} minutes")
        self.random = torch.Generator().manual_seed(args.seed + self.step)

    def keep(self):
        state = {part: getattr(self, part).state_dict() for part in PARTS}
        checkpoint.save(state | {"step": self.step, "spent": self.spent}, self.file)

    def rate(self):
        """Of the peak: up in the first steps, level, and down to nothing at the end."""
        done = self.spent / (60 * self.args.minutes)
        return min(1, (self.step + 1) / self.WARM) * min(1, max(0.01, (1 - done) / self.COOL))

    def update(self):
        loss = self.replicas.gradients(self.loss_of, self.replicas.split(*self.batch()))
        torch.nn.utils.clip_grad_norm_([p for group in self.adam.param_groups for p in group["params"]], self.CLIP)
        for optimiser, peak in ((self.muon, self.args.lr_muon), (self.adam, self.args.lr_adam)):
            for group in optimiser.param_groups:
                group["lr"] = peak * self.rate()
            optimiser.step()
        self.model.zero_grad()
        decay = min(self.DECAY, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - decay)
        self.step += 1
        return loss.item()

    def train(self):
        last, saved, shown, losses = time.process_time(), time.time(), time.time(), []
        while self.spent < 60 * self.args.minutes:
            losses.append(self.update())
            now, busy = time.time(), time.process_time()
            self.spent, last = self.spent + busy - last, busy
            if self.step % self.EVERY == 0:
                speed, mean = len(losses) * self.args.batch / (now - shown), np.mean(losses)
                log(f"step {self.step}, {self.spent / 60:.1f} min, {speed:.1f} samples/s, loss {mean:.4f}")
                if not np.isfinite(mean):
                    raise SystemExit("the loss is no longer a number")
                losses, shown = [], now
            if now - saved > 60:
                self.keep()
                saved = now
        self.keep()
