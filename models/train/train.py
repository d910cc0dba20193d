"""The transformer and its text encoders: the loop.

Two phases, by time: texts cut short with the encoders in training, then full length with the encoders as they are.
"""

import copy
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, HunyuanDiT2DModel

import checkpoint
import model as dit
import text
from muon import Muon
from replicas import Replicas

EMPTY = 0.1  # share of pictures whose caption is left out, for guidance
DECAY = 0.999


class Trainer:
    def __init__(self, args, parts: Path, captions, latents, factor, log):
        self.args, self.captions, self.log = args, captions, log
        self.device, self.file = args.device, args.work / "transformer.pt"
        self.half = torch.bfloat16 if args.bf16 else torch.float32
        torch.manual_seed(args.seed)
        config = HunyuanDiT2DModel.load_config(parts / "transformer") | {"num_layers": args.layers}
        model = HunyuanDiT2DModel.from_config(config)
        for b in model.blocks:  # each branch adds nothing at first
            for layer in (b.attn1.to_out[0], b.attn2.to_out[0], b.ff.net[2]):
                torch.nn.init.zeros_(layer.weight)
        bert, t5 = text.build(parts / "text_encoder", parts / "text_encoder_2", args.warm_text)
        self.all = torch.nn.ModuleDict({"transformer": model, "text_encoder": bert, "text_encoder_2": t5})
        self.all.to(self.device)
        self.average = copy.deepcopy(self.all).requires_grad_(False)
        self.replicas = Replicas(self.all, args.workers)

        alphas = DDPMScheduler.from_pretrained(parts / "scheduler").alphas_cumprod.to(self.device)
        self.signal, self.noise = alphas.sqrt(), (1 - alphas).sqrt()
        self.latents = (latents * factor).to(self.device)
        self.rotary = dit.rotary(latents.shape[-1] // 2, self.device)

        matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
        self.muons = [
            Muon(matrices[i :: args.workers], lr=args.lr_muon, dtype=self.half) for i in range(args.workers)
        ]
        mine = {id(p) for p in matrices}
        self.rest = [p for p in self.all.parameters() if id(p) not in mine]
        adam = torch.optim.AdamW(self.rest, lr=args.lr_adam, betas=(0.9, 0.98), weight_decay=0.0)
        self.optimisers = [*self.muons, adam]
        self.step, self.spent, self.seen, self.phase = 0, 0.0, 0, "short"
        kept = checkpoint.load(self.file)
        if kept:
            self.all.load_state_dict(kept["all"])
            self.average.load_state_dict(kept["average"])
            for o, state in zip(self.optimisers, kept["optimisers"], strict=True):
                o.load_state_dict(state)
            self.step, self.spent, self.seen, self.phase = (kept[k] for k in ("step", "spent", "seen", "phase"))
            log(f"goes on from step {self.step}, {self.spent / 60:.1f} minutes")
        self.random = torch.Generator().manual_seed(args.seed + self.step)
        self.enter(self.phase)

    def keep(self):
        names = ("step", "spent", "seen", "phase")
        state = {"all": self.all.state_dict(), "average": self.average.state_dict()}
        state["optimisers"] = [o.state_dict() for o in self.optimisers]
        checkpoint.save(state | {n: getattr(self, n) for n in names}, self.file)

    def enter(self, phase):
        self.phase = phase
        self.short = self.captions.short if phase == "short" else None
        self.texts = dit.Texts(self.all["transformer"], self.short, self.device)
        if phase == "full":
            for name in ("text_encoder", "text_encoder_2"):
                self.all[name].load_state_dict(self.average[name].state_dict())
                self.replicas.freeze(name)
            self.encoded = text.encode_all((self.all["text_encoder"], self.all["text_encoder_2"]), self.captions, self.device)

    def batch(self):
        """Latents, captions' numbers, timesteps and noise."""
        n, latents = self.args.batch, self.latents
        pairs = torch.randint(latents.shape[0], (n,), generator=self.random)
        pictures = torch.randint(latents.shape[1], (n,), generator=self.random)
        rows = 1 + 2 * pairs + torch.randint(2, (n,), generator=self.random)
        rows[torch.rand(n, generator=self.random) < EMPTY] = 0
        # one timestep from each of n equal parts of the schedule: less noise in the gradient
        t = ((torch.arange(n) + torch.rand(n, generator=self.random)) / n * len(self.signal)).long()
        x = latents[pairs.to(self.device), pictures.to(self.device)]
        return x, rows, t.to(self.device), torch.randn(x.shape, generator=self.random).to(self.device)

    def loss_of(self, replica, x, rows, t, noise):
        """This share's part of the batch's mean loss."""
        a, s = (v[t].view(-1, 1, 1, 1) for v in (self.signal, self.noise))
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.args.bf16):
            if self.phase == "short":
                encoders = replica["text_encoder"], replica["text_encoder_2"]
                texts = text.encode(encoders, self.captions.cut(rows, self.short), self.device)
            else:
                texts = [e[rows].to(self.device) for e in self.encoded]
            noisy, features = a * x + s * noise, dit.time_features_of(t)
            out = dit.forward(replica["transformer"], self.texts, noisy, features, *texts, *self.rotary)
        return (out.float() - (a * noise - s * x)).pow(2).mean() * (len(x) / self.args.batch)

    def update(self):
        """One step; returns its loss."""
        loss = self.replicas.gradients(self.loss_of, self.replicas.split(*self.batch()))
        torch.nn.utils.clip_grad_norm_(self.rest, 1.0)
        factor = self.rate()
        for o in self.optimisers:
            for group in o.param_groups:
                group["lr"] = (self.args.lr_muon if o in self.muons else self.args.lr_adam) * factor
        list(self.replicas.threads.map(lambda o: o.step(), self.optimisers))
        self.all.zero_grad()
        decay = min(DECAY, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.all.parameters()), 1 - decay)
        self.step, self.seen = self.step + 1, self.seen + self.args.batch
        return loss

    def rate(self):
        """Of the peak: up in the first steps, level, and down to nothing over the last 45 % of the time."""
        done = self.spent / self.args.seconds
        return min(1, (self.step + 1) / 100) * min(1, max(0.01, (1 - done) / 0.45))

    def train(self, preview):
        last = saved = shown = time.time()
        losses = []
        while self.spent < self.args.seconds:
            if self.phase == "short" and self.spent > self.args.short_share * self.args.seconds:
                for both in (self.all, self.average):
                    dit.spread_padding(both["transformer"], self.short)
                self.enter("full")
                self.log(f"full texts from step {self.step}")
            losses.append(self.update())
            now = time.time()
            self.spent, last = self.spent + now - last, now
            if self.step % self.args.log_every == 0:
                mean = torch.stack(losses).mean().item()
                speed = len(losses) * self.args.batch / (now - shown)
                self.log(
                    f"step {self.step}, {self.spent / 60:.1f} min, {speed:.1f} samples/s, "
                    f"loss {mean:.4f}, rate x{self.rate():.2f}"
                )
                if not np.isfinite(mean):
                    raise SystemExit("the loss is no longer a number")
                losses, shown = [], now
            if now - saved > self.args.save_every:
                self.keep()
                preview(self)
                saved = shown = time.time()
                losses = []
        self.keep()
