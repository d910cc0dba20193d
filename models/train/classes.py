"""Trains a small Skip-DiT, or a DiT without long skips, that draws classes: each is a subject, in any colour.

    python models/train/classes.py --out models/emoji-classes

The model is the tests' Skip-DiT in PyTorch; the autoencoder is one of this repository, as it is. Stopped at any moment, the
same command goes on from what lies in --work.
"""

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.embeddings import get_2d_sincos_pos_embed
from PIL import Image
from safetensors.torch import save_file

import data
import vae as autoencoder
from loop import Loop, log
from muon import Muon

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[1] / "tests" / "reference"))
from skip_dit import SkipDiT, draw  # noqa: E402

EMPTY = 0.1  # share of pictures without a class


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--work", type=Path, default=HERE / ".work" / "classes")
    p.add_argument("--packages", type=Path, default=HERE / ".work" / "packages", help="folder for downloads")
    p.add_argument("--vae", type=Path, default=HERE.parent / "badges" / "vae")
    p.add_argument("--minutes", type=float, default=18, help="of the processor, all threads together")
    p.add_argument("--layers", type=int, default=12)
    p.add_argument("--width", type=int, default=128, help="heads are 64 wide")
    p.add_argument("--no-skips", action="store_true", help="a DiT, without long skips")
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--per-pair", type=int, default=12, help="pictures of each subject and colour")
    p.add_argument("--workers", type=int, default=1, help="threads that share a batch")
    p.add_argument("--lr-muon", type=float, default=0.01)
    p.add_argument("--lr-adam", type=float, default=1.5e-3)
    p.add_argument("--fp32", action="store_true", help="no bf16 autocast")
    p.add_argument("--guidance", type=float, default=2.0, help="of sample.png")
    p.add_argument("--seed", type=int, default=0)
    return p.parse_args()


def model_of(layers, width, side, classes, skips):
    """As DiT begins: every block is the identity, the prediction is zero, positions are sines and cosines."""
    model = SkipDiT(layers, width, width // 64, side, classes, skips)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.xavier_uniform_(module.weight)
            torch.nn.init.zeros_(module.bias)
    for silent in [part.adaLN_modulation[1] for part in (*model.blocks, model.final_layer)] + [model.final_layer.linear]:
        torch.nn.init.zeros_(silent.weight)
    for named in (model.t_embedder["mlp"][0], model.t_embedder["mlp"][2], model.y_embedder["embedding_table"]):
        torch.nn.init.normal_(named.weight, std=0.02)
    places = get_2d_sincos_pos_embed(width, side // 2, output_type="pt").float()
    model.pos_embed.data = places[None]
    return model


class Diffusion:
    """The noise of improved diffusion, and its hybrid loss."""

    def __init__(self):
        betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
        products = torch.cumprod(1 - betas, 0)
        before = torch.cat([torch.ones(1), products[:-1]])
        lowest = betas * (1 - before) / (1 - products)
        tables = products.sqrt(), (1 - products).sqrt(), betas.log(), lowest.clamp(min=1e-20).log()
        tables += ((betas / ((1 - betas).sqrt() * (1 - products).sqrt())),)  # what the noise counts in the mean of a step
        self.tables = [table.float() for table in tables]

    def at(self, t):
        return [table[t].view(-1, 1, 1, 1) for table in self.tables]

    def loss(self, predict, x, t, noise):
        """Mean square of the noise, and the bits by which a step's distribution is off; these teach the variance alone.
        They are left out at t = 0, where a sampler adds no noise."""
        signal, sigma, high, low, share = self.at(t)
        eps, variance = predict(signal * x + sigma * noise).float().chunk(2, dim=1)
        between = (variance + 1) / 2
        between = between * high + (1 - between) * low
        off = share * (eps.detach() - noise)
        bits = (between - low - 1 + (low - between).exp() + off.square() * (-between).exp()) / (2 * math.log(2))
        bits = bits.mean(dim=(1, 2, 3)) * (t > 0)
        return (eps - noise).square().mean() + bits.mean()


class Trainer(Loop):
    DECAY, WARM, COOL, EVERY, CLIP = 0.999, 100, 0.45, 100, 1.0

    def __init__(self, args, latents, labels):
        self.latents, self.labels, self.classes = latents, labels, int(labels.max()) + 1
        self.diffusion = Diffusion()
        model = model_of(args.layers, args.width, latents.shape[-1], self.classes, not args.no_skips)
        parts = (model.blocks, model.skip_linears)
        matrices = [p for part in parts for p in part.parameters() if p.ndim == 2]
        mine = {id(p) for p in matrices}
        half = torch.float32 if args.fp32 else torch.bfloat16
        rest = [p for p in model.parameters() if id(p) not in mine]
        muon = Muon(matrices, lr=args.lr_muon, dtype=half)
        adam = torch.optim.AdamW(rest, lr=args.lr_adam, betas=(0.9, 0.98), weight_decay=0.0)
        super().__init__(args, model, muon, adam, args.work / "model.pt")

    def batch(self):
        """Latents, labels, timesteps and noise."""
        n = self.args.batch
        chosen = torch.randint(len(self.latents), (n,), generator=self.random)
        labels = self.labels[chosen].clone()
        labels[torch.rand(n, generator=self.random) < EMPTY] = self.classes
        t = ((torch.arange(n) + torch.rand(n, generator=self.random)) / n * 1000).long()
        x = self.latents[chosen]
        return x, labels, t, torch.randn(x.shape, generator=self.random)

    def loss_of(self, model, x, labels, t, noise):
        """This share's part of the batch's mean loss."""
        with torch.autocast("cpu", torch.bfloat16, enabled=not self.args.fp32):
            loss = self.diffusion.loss(lambda noisy: model(noisy, t, labels)[0], x, t, noise)
        return loss * (len(x) / self.args.batch)


@torch.no_grad()
def sheet(model, vae, file, guidance, columns=10):
    """A picture of each class by 50 DDIM steps."""
    classes = list(range(model.classes))
    latents = draw(model, classes, classes, 50, "ddim", guidance, 1)
    pictures = vae.decode(latents / vae.config.scaling_factor).sample
    pixels = ((pictures / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    rows = [np.concatenate(pixels[i : i + columns], axis=1) for i in range(0, len(pixels) // columns * columns, columns)]
    Image.fromarray(np.concatenate(rows)).save(file, optimize=True)


def save(model, subjects, out: Path):
    """The model as fp16, which is half the size, under its authors' names; and the names of its classes."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, out / "emoji-classes.safetensors")
    (out / "emoji-classes.safetensors").chmod(0o644)
    (out / "classes.txt").write_text("".join(f"{s.en}\n" for s in subjects), encoding="utf-8")


def main():
    args = arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)  # a thread for each share of the batch
    subjects = data.load_subjects(args.packages, (HERE / "emoji.txt").read_text(encoding="utf-8").split())
    vae = AutoencoderKL.from_pretrained(args.vae, torch_dtype=torch.float32).eval()
    latents, _ = autoencoder.bank(args.work / "latents.pt", vae, subjects, args.per_pair, "cpu", log)
    labels = torch.tensor([s for s, _ in data.pairs(subjects)]).repeat_interleave(latents.shape[1])
    trainer = Trainer(args, latents.flatten(0, 1) * vae.config.scaling_factor, labels)
    size = sum(p.numel() for p in trainer.model.parameters())
    log(f"{len(labels)} pictures of {trainer.classes} classes, {size / 1e6:.2f} M parameters")
    trainer.train()
    save(trainer.average, subjects, args.out)
    sheet(trainer.average, vae, args.out / "sample.png", args.guidance)


if __name__ == "__main__":
    main()
