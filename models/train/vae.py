"""The autoencoder: fitted to the new pictures, then used once to turn them into latents."""

import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

import checkpoint
import data
from replicas import Replicas


def gradients(x):
    return x[..., :, 1:] - x[..., :, :-1], x[..., 1:, :] - x[..., :-1, :]


class GroupNorm(torch.nn.GroupNorm):
    """The same sums by way of layer_norm, whose backward pass is several times as fast on a CPU."""

    def forward(self, x):
        y = F.layer_norm(x.reshape(len(x), self.num_groups, -1), (x[0].numel() // self.num_groups,), eps=self.eps)
        shape = (1, -1) + (1,) * (x.ndim - 2)
        return y.view(x.shape) * self.weight.view(shape) + self.bias.view(shape)


def quicken(vae):
    for module in vae.modules():
        if type(module) is torch.nn.GroupNorm:
            module.__class__ = GroupNorm
    return vae


def loss_of(vae, pictures, kl_weight=1e-6):
    posterior = vae.encode(pictures).latent_dist
    decoded = vae.decode(posterior.sample()).sample
    edges = sum(F.l1_loss(a, b) for a, b in zip(gradients(decoded), gradients(pictures)))
    kl = posterior.kl().mean()
    return F.l1_loss(decoded, pictures) + F.mse_loss(decoded, pictures) + edges + kl_weight * kl


def to_tensor(pictures: list[np.ndarray], device) -> torch.Tensor:
    batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).to(device, torch.float32)
    return batch / 127.5 - 1


def crops(subjects, pool, rng, count, size):
    """`count` random crops of fresh pictures, four of each picture."""
    out = []
    while len(out) < count:
        s, colour = pool[rng.integers(len(pool))]
        picture = data.compose(subjects[s], colour, rng)
        for _ in range(4 if size < data.SIZE else 1):
            y, x = rng.integers(0, data.SIZE - size + 1, 2)
            out.append(picture[y : y + size, x : x + size])
    return out[:count]


def train(folder: Path, warm: Path | None, config: dict, subjects, seconds, batch, workers, device, log):
    """Trains for `seconds` in all, over any number of runs; returns the autoencoder of exponentially averaged weights."""
    vae = AutoencoderKL.from_pretrained(warm) if warm else AutoencoderKL.from_config(config)
    vae = quicken(vae.to(device, torch.float32).train())
    replicas = Replicas(vae, workers)
    kept = checkpoint.load(folder / "vae.pt") or {"step": 0, "spent": 0.0}
    peak = 1e-3
    optimiser = torch.optim.AdamW(vae.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=0.0)
    if "model" in kept:
        vae.load_state_dict(kept["model"])
        optimiser.load_state_dict(kept["optimiser"])
    average = kept.get("average") or {k: v.clone() for k, v in vae.state_dict().items()}
    average = {k: v.to(device) for k, v in average.items()}
    step, spent = kept["step"], kept["spent"]
    rng = np.random.default_rng(step)
    pool = data.pairs(subjects)
    last = saved = time.time()

    def keep():
        state = {"model": vae.state_dict(), "optimiser": optimiser.state_dict(), "average": average}
        checkpoint.save(state | {"step": step, "spent": spent}, folder / "vae.pt")

    while spent < seconds:
        for group in optimiser.param_groups:
            group["lr"] = peak * min(1, (step + 1) / 20) * max(0.02, 1 - spent / seconds)
        whole = step % 4 == 3  # a quarter of the time on whole pictures: the middle's attention sees all of them
        size, count = (data.SIZE, max(workers, batch // 4)) if whole else (64, batch)
        pictures = to_tensor(crops(subjects, pool, rng, count, size), device)
        loss = replicas.gradients(lambda m, x: loss_of(m, x) * (len(x) / count), replicas.split(pictures))
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        decay = min(0.995, (step + 1) / (step + 10))
        for k, v in vae.state_dict().items():
            average[k].lerp_(v, 1 - decay)
        step += 1
        now = time.time()
        spent, last = spent + now - last, now
        if step % 100 == 0:
            log(f"vae: step {step}, {spent:.0f} of {seconds:.0f} s, loss {loss.item():.4f}")
        if now - saved > 120:
            keep()
            saved = now
    keep()
    vae.load_state_dict(average)
    return vae.eval()


@torch.no_grad()
def bank(file: Path, vae, subjects, per_pair, device, log):
    """Latents of `per_pair` pictures of each pair, unscaled, and the factor that gives them unit variance."""
    kept = checkpoint.load(file)
    if kept:
        return kept["latents"], kept["scaling_factor"]
    rng = np.random.default_rng(7)
    pool = data.pairs(subjects)
    latents = []
    for s, colour in pool:
        pictures = to_tensor([data.compose(subjects[s], colour, rng) for _ in range(per_pair)], device)
        latents.append(vae.encode(pictures).latent_dist.mode().cpu())
    latents = torch.stack(latents)  # pair, picture, channel, row, column
    factor = 1 / latents.std().item()
    decoded = vae.decode(latents[0, :8].to(device)).sample.cpu()
    rng = np.random.default_rng(7)
    true = to_tensor([data.compose(subjects[pool[0][0]], pool[0][1], rng) for _ in range(min(8, per_pair))], "cpu")
    error = (decoded.clamp(-1, 1) - true).pow(2).mean().item() / 4
    log(f"latents: {tuple(latents.shape)}, scaling factor {factor:.4f}, PSNR {-10 * np.log10(error):.1f} dB")
    checkpoint.save({"latents": latents, "scaling_factor": factor}, file)
    return latents, factor
