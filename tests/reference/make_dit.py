"""Skip-DiT, class to image, in PyTorch -> skip_dit/parts.{safetensors,json}, skip_dit/pictures.json, skip_dit/*.png,
skip_dit/refresh.json

diffusers does not have Skip-DiT, so the model is written here, from its description: OpenSparseLLMs/Skip-DiT @72609de,
class-to-image/ (`DiT_skip`, and the sampling code that it has of improved diffusion). Weights are synthetic under the names
of that code's state_dict, so that `hydit-export synth --variant skip-dit` writes the same checkpoint.

parts, of a model of depth 28 and width 64:
    extra       [B, hidden]          the class's embedding
    temb        [B, hidden]          the timestep's embedding plus that
    skip_<i>    [B, tokens, hidden]  output of block i
    deep_<n>    [B, tokens, hidden]  output of block depth-1-n: the deep core of a model that is cut at n
    noise_pred  [B, 2*c, side, side]

pictures: whole ones by `draw`: ancestral steps with the learned variance, or DDIM's; guidance of the first three channels;
the cache rule with a branch of 4. Noise comes from a generator for each picture, as diffusers draws it.

refresh: "<spacing> <steps>" -> for gap 2..6 the steps that refresh with start 1000 and close 20, a bit each from the lowest.

    python make_dit.py
"""

import json
import math

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import nn
from torch.nn import functional as F

import golden
import make_vae
import synthetic

torch.set_num_threads(1)  # the tensors are tiny

DEPTH, HIDDEN, HEADS, SIDE, CLASSES = 28, 64, 1, 8, 1000
SCALING = 0.18215


def norm(x):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(HIDDEN, 3 * HIDDEN)
        self.proj = nn.Linear(HIDDEN, HIDDEN)

    def forward(self, x):
        b, s, d = x.shape
        q, k, v = self.qkv(x).reshape(b, s, 3, HEADS, d // HEADS).permute(2, 0, 3, 1, 4)
        attended = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(d // HEADS), dim=-1) @ v
        return self.proj(attended.transpose(1, 2).reshape(b, s, d))


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(HIDDEN, 4 * HIDDEN)
        self.fc2 = nn.Linear(4 * HIDDEN, HIDDEN)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn, self.mlp = Attention(), Mlp()
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(HIDDEN, 6 * HIDDEN))

    def forward(self, x, c):
        chunks = self.adaLN_modulation(c)[:, None].chunk(6, dim=2)
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = chunks
        x = x + gate_attn * self.attn(norm(x) * (1 + scale_attn) + shift_attn)
        return x + gate_mlp * self.mlp(norm(x) * (1 + scale_mlp) + shift_mlp)


class SkipLinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2 * HIDDEN, HIDDEN)


class FinalLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(HIDDEN, 2 * 2 * 8)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(HIDDEN, 2 * HIDDEN))


class SkipDiT(nn.Module):
    """Names of modules are those of `DiT_skip`. `branch` and `kept` are Skip-Cache's: where something is kept, the blocks
    between do not run."""

    def __init__(self):
        super().__init__()
        named = lambda **modules: nn.ModuleDict(modules)
        self.x_embedder = named(proj=nn.Conv2d(4, HIDDEN, 2, 2))
        self.t_embedder = named(mlp=nn.Sequential(nn.Linear(256, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN)))
        self.y_embedder = named(embedding_table=nn.Embedding(CLASSES + 1, HIDDEN))
        self.pos_embed = nn.Parameter(torch.zeros(1, (SIDE // 2) ** 2, HIDDEN))
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.final_layer = FinalLayer()
        self.skip_norms = nn.ModuleList(nn.LayerNorm(2 * HIDDEN, eps=1e-6) for _ in range(DEPTH // 2))
        self.skip_linears = nn.ModuleList(SkipLinear() for _ in range(DEPTH // 2))

    def condition(self, t, y):
        frequencies = torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float32) / 128)
        angles = t[:, None].float() * frequencies[None]
        return self.t_embedder["mlp"](torch.cat([angles.cos(), angles.sin()], dim=-1)) + self.y_embedder["embedding_table"](y)

    def forward(self, x, t, y, branch=None, kept=None):
        """The prediction, and the output of every block that has run."""
        c = self.condition(t, y)
        x = self.x_embedder["proj"](x).flatten(2).transpose(1, 2) + self.pos_embed
        skips, outputs = [], {}
        for i, block in enumerate(self.blocks):
            between = kept is not None and branch <= i < DEPTH - branch
            if i >= DEPTH // 2:
                skip = skips.pop()
                if not between:
                    j = i - DEPTH // 2
                    x = self.skip_linears[j].linear(self.skip_norms[j](torch.cat([x, skip], dim=-1)))
            x = outputs[i] = kept if between else block(x, c)
            if i < DEPTH // 2:
                skips.append(x)
        shift, scale = self.final_layer.adaLN_modulation(c)[:, None].chunk(2, dim=2)
        x = self.final_layer.linear(norm(x) * (1 + scale) + shift)
        b, grid = len(x), SIDE // 2
        x = torch.einsum("nhwpqc->nchpwq", x.reshape(b, grid, grid, 2, 2, 8))
        return x.reshape(b, 8, SIDE, SIDE), outputs


def spread(steps, spacing):
    """`space_timesteps`: descending; "leading" is its "ddim<steps>"."""
    if spacing == "leading":
        stride = next(i for i in range(1, 1000) if len(range(0, 1000, i)) == steps)
        return list(range(0, 1000, stride))[::-1]
    stride = 1 if steps == 1 else 999 / (steps - 1)
    taken, at = [], 0.0
    for _ in range(steps):
        taken.append(round(at))
        at += stride
    return taken[::-1]


def refreshes(timesteps, gap, start=1000, close=20):
    count, found = 0, []
    for t in timesteps:
        found.append(count % gap == 0 or t >= start)
        count = 0 if t <= close else count + 1
    return found


@torch.no_grad()
def draw(model, labels, seeds, steps, sampler, scale, gap, branch=4):
    """Clean latents, as `p_sample_loop` or `ddim_sample_loop` (eta 0) of a respaced diffusion with `forward_with_cfg`."""
    products = np.cumprod(1 - np.linspace(0.0001, 0.02, 1000, dtype=np.float64))
    timesteps = spread(steps, "leading" if sampler == "ddim" else "linspace")
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    noise = lambda: torch.cat([torch.randn([1, 4, SIDE, SIDE], generator=g) for g in generators])
    x, n, kept = noise(), len(labels), None
    y = torch.tensor(labels + [CLASSES] * n)
    for i, (t, refresh) in enumerate(zip(timesteps, refreshes(timesteps, gap))):
        both = torch.cat([x, x]) if scale > 1 else x
        out, outputs = model(both, torch.full([len(both)], t), y[: len(both)], branch, None if refresh else kept)
        kept = outputs[DEPTH - 1 - branch]
        eps, rest = out[:n, :3], out[:n, 3:]
        if scale > 1:
            eps = out[n:, :3] + scale * (eps - out[n:, :3])
        eps, variance = torch.cat([eps, rest], dim=1).split(4, dim=1)
        a = products[t]
        before = products[timesteps[i + 1]] if i + 1 < steps else 1.0
        clean = (x - (1 - a) ** 0.5 * eps) / a**0.5
        if sampler == "ddim":
            x = before**0.5 * clean + (1 - before) ** 0.5 * eps
            continue
        beta = 1 - a / before
        mean = beta * before**0.5 / (1 - a) * clean + (1 - before) * (1 - beta) ** 0.5 / (1 - a) * x
        x = mean
        if i + 1 < steps:
            share = (variance + 1) / 2
            low = math.log(beta * (1 - before) / (1 - a))
            x = mean + torch.exp(0.5 * (share * math.log(beta) + (1 - share) * low)) * noise()
    return x


# name: (labels, seeds, steps, sampler, guidance scale, gap)
PICTURES = {
    "ddpm-250": ([207], [1], 250, "ddpm", 4.0, 1),
    "ddpm-250-N2": ([207], [1], 250, "ddpm", 4.0, 2),
    "ddpm-250-N6": ([207], [1], 250, "ddpm", 4.0, 6),
    "ddpm-20-two": ([360, 360], [7, 8], 20, "ddpm", 1.5, 1),
    "ddpm-50-plain-N3": ([974], [3], 50, "ddpm", 1.0, 3),
    "ddim-50": ([88], [5], 50, "ddim", 4.0, 1),
    "ddim-25-N2": ([979], [6], 25, "ddim", 2.0, 2),
}


@torch.no_grad()
def main():
    model = synthetic.fill(SkipDiT())
    specs = {
        "latents": {"shape": [3, 4, SIDE, SIDE], "scale": 2.0},
        "timestep": {"values": [999.0, 500.0, 3.0], "dtype": "float32"},
        "class_labels": {"values": [207, 0, CLASSES], "dtype": "int64"},
    }
    inputs = golden.make_inputs(specs, {})
    latents, timestep, labels = (inputs[name] for name in specs)
    prediction, outputs = model(latents, timestep, labels)
    tensors = {"extra": model.y_embedder["embedding_table"](labels), "temb": model.condition(timestep, labels)}
    tensors |= {f"skip_{i}": outputs[i] for i in (0, 3, 12)} | {f"deep_{n}": outputs[DEPTH - 1 - n] for n in (1, 4, 13)}
    tensors["noise_pred"] = prediction
    config = {"depth": DEPTH, "heads": HEADS, "image_size": 8 * SIDE}
    golden.save("skip_dit/parts", {"config": config, "weights": "synthetic", "inputs": specs}, tensors, list(tensors))

    vae = make_vae.config([16, 32, 64, 64], 8, 1, attention=True, scaling_factor=SCALING)
    vae = synthetic.fill(AutoencoderKL(**vae))
    listing = []
    for name, (labels, seeds, steps, sampler, scale, gap) in PICTURES.items():
        latents = draw(model, labels, seeds, steps, sampler, scale, gap)
        images = vae.decode(latents / SCALING, return_dict=False)[0]
        pixels = ((images / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
        print(f"{name}: latents up to {latents.abs().max():.3g}, image {images.mean():.2f} +- {images.std():.2f}")
        for i, image in enumerate(pixels):
            Image.fromarray(image).save(golden.HERE / "skip_dit" / f"{name}-{i}.png", optimize=True)
        keys = ["name", "class", "seed", "images", "steps", "sampler", "guidance_scale", "gap"]
        listing.append(dict(zip(keys, [name, labels[0], seeds[0], len(seeds), steps, sampler, scale, gap])))
    golden.write_json("skip_dit/pictures.json", listing)

    table = {}
    for spacing, counts in [("linspace", [10, 20, 25, 50, 100, 250, 999]), ("leading", [10, 25, 50, 100, 250])]:
        for steps in counts:
            timesteps = spread(steps, spacing)
            rows = [refreshes(timesteps, gap) for gap in range(2, 7)]
            table[f"{spacing} {steps}"] = [f"{sum(bit << i for i, bit in enumerate(row)):x}" for row in rows]
    text = ",\n".join(f"{json.dumps(k)}:{json.dumps(v, separators=(',', ':'))}" for k, v in table.items())
    (golden.HERE / "skip_dit/refresh.json").write_text(f"{{{text}}}\n")


if __name__ == "__main__":
    main()
