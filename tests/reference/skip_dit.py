"""Skip-DiT, class to image, in PyTorch, and how pictures are drawn with it.

diffusers does not have it, so it is written here, from its description: OpenSparseLLMs/Skip-DiT @72609de, class-to-image/
(`DiT_skip`, and the sampling code that it has of improved diffusion). Names are those of that code's state_dict. Without
long skips it is DiT as its authors have it, whose code that is.
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

CLASSES = 1000


def norm(x):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        b, s, d = x.shape
        q, k, v = self.qkv(x).reshape(b, s, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        attended = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(d // self.heads), dim=-1) @ v
        return self.proj(attended.transpose(1, 2).reshape(b, s, d))


class Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.attn, self.mlp = Attention(width, heads), Mlp(width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x, c):
        chunks = self.adaLN_modulation(c)[:, None].chunk(6, dim=2)
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = chunks
        x = x + gate_attn * self.attn(norm(x) * (1 + scale_attn) + shift_attn)
        return x + gate_mlp * self.mlp(norm(x) * (1 + scale_mlp) + shift_mlp)


class SkipLinear(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(2 * width, width)


class FinalLayer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, 2 * 2 * 8)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))


class SkipDiT(nn.Module):
    """Of latents with four channels and `side` rows. `branch` and `kept` are Skip-Cache's: where something is kept, the
    blocks between do not run. Without `skips` it is what they add to their input."""

    def __init__(self, depth, width, heads, side, classes=CLASSES, skips=True):
        super().__init__()
        self.depth, self.side, self.classes, self.skips = depth, side, classes, skips
        named = lambda **modules: nn.ModuleDict(modules)
        self.x_embedder = named(proj=nn.Conv2d(4, width, 2, 2))
        self.t_embedder = named(mlp=nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width)))
        self.y_embedder = named(embedding_table=nn.Embedding(classes + 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, (side // 2) ** 2, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.final_layer = FinalLayer(width)
        self.skip_norms = nn.ModuleList(nn.LayerNorm(2 * width, eps=1e-6) for _ in range(skips * (depth // 2)))
        self.skip_linears = nn.ModuleList(SkipLinear(width) for _ in range(skips * (depth // 2)))

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
            between = kept is not None and branch <= i < self.depth - branch
            if self.skips and i >= self.depth // 2:
                skip = skips.pop()
                if not between:
                    j = i - self.depth // 2
                    x = self.skip_linears[j].linear(self.skip_norms[j](torch.cat([x, skip], dim=-1)))
            if not between:
                x = block(x, c)
            elif self.skips or i == branch:
                x = kept if self.skips else x + kept
            outputs[i] = x
            if i < self.depth // 2:
                skips.append(x)
        shift, scale = self.final_layer.adaLN_modulation(c)[:, None].chunk(2, dim=2)
        x = self.final_layer.linear(norm(x) * (1 + scale) + shift)
        b, grid = len(x), self.side // 2
        x = torch.einsum("nhwpqc->nchpwq", x.reshape(b, grid, grid, 2, 2, 8))
        return x.reshape(b, 8, self.side, self.side), outputs

    def deep(self, outputs, branch):
        """What is kept of the outputs of all blocks."""
        last = outputs[self.depth - 1 - branch]
        return last if self.skips else last - outputs[branch - 1]


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
    noise = lambda: torch.cat([torch.randn([1, 4, model.side, model.side], generator=g) for g in generators])
    x, n, kept = noise(), len(labels), None
    y = torch.tensor(labels + [model.classes] * n)
    for i, (t, refresh) in enumerate(zip(timesteps, refreshes(timesteps, gap))):
        both = torch.cat([x, x]) if scale > 1 else x
        out, outputs = model(both, torch.full([len(both)], t), y[: len(both)], branch, None if refresh else kept)
        if refresh:
            kept = model.deep(outputs, branch)
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
