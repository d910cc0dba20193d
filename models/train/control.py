"""Trains a ControlNet for a model of this repository on edges of pictures that the model draws itself.

    python models/train/control.py --base models/emoji --out models/emoji-canny

Stopped at any moment, the same command goes on from what lies in --work. `edges.py` makes the data, `follows.py` tells
whether a net does what its edges say.
"""

import argparse
import copy
import os
from pathlib import Path

import torch
from diffusers import DDPMScheduler, HunyuanDiT2DControlNetModel, HunyuanDiTPipeline

import edges
import model as dit
from loop import Loop, log
from muon import Muon

HERE = Path(__file__).resolve().parent
EMPTY, OTHER = 0.35, 0.35  # shares of pictures without a caption, and with another subject's on the same background
EARLIEST = 300  # timestep below which outlines are drawn already
SHORT = 24  # positions of each text that are computed; what the model draws is 0.5 % from that of all


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--base", type=Path, default=HERE.parent / "emoji")
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--work", type=Path, default=HERE / ".work" / "control")
    p.add_argument("--pictures", type=int, default=384)
    p.add_argument("--steps", type=int, default=15, help="of each picture of the bank")
    p.add_argument("--minutes", type=float, default=46, help="of the processor, all threads together")
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--workers", type=int, default=os.cpu_count(), help="threads that share a batch")
    p.add_argument("--lr-muon", type=float, default=0.01)
    p.add_argument("--lr-adam", type=float, default=1e-3)
    p.add_argument("--fp32", action="store_true", help="no bf16 autocast")
    p.add_argument("--seed", type=int, default=0)
    return p.parse_args()


def net_of(transformer):
    """A net whose blocks are the model's first ones. It reads its image from the start, and says nothing at first."""
    config = {name: value for name, value in transformer.config.items() if not name.startswith("_")}
    layers = config.pop("num_layers")
    config = {name: value for name, value in config.items() if name not in ("learn_sigma", "norm_type")}
    net = HunyuanDiT2DControlNetModel(**config, transformer_num_layers=layers)
    net.load_state_dict(transformer.state_dict(), strict=False)
    torch.nn.init.eye_(net.input_block.weight)
    net.requires_grad_(False)
    for part in (net.blocks, net.input_block, net.controlnet_blocks):
        part.requires_grad_(True)
    return net


@torch.no_grad()
def encoded(pipe, texts):
    """States and masks of both encoders."""
    found = []
    for index, length in enumerate((77, 256)):
        parts = [
            pipe.encode_prompt(
                texts[start : start + 64], device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False,
                max_sequence_length=length, text_encoder_index=index,
            )
            for start in range(0, len(texts), 64)
        ]  # fmt: skip
        found += [torch.cat([part[0] for part in parts]), torch.cat([part[2] for part in parts]).bool()]
    return found


class Trainer(Loop):
    DECAY, WARM, COOL, EVERY = 0.995, 50, 0.4, 50

    def __init__(self, args, pipe, captions, bank):
        self.what, self.latents, self.edges = bank
        self.encoded = [dit.cut(states, SHORT) for states in encoded(pipe, captions.all)]
        self.base = copy.deepcopy(pipe.transformer).requires_grad_(False)
        dit.average_padding(self.base, SHORT)
        self.texts = dit.Texts(self.base, SHORT, "cpu")
        self.turn = dit.rotary(self.latents.shape[-1] // 2, "cpu")
        alphas = DDPMScheduler.from_pretrained(args.base / "scheduler").alphas_cumprod
        self.signal, self.noise = alphas.sqrt(), (1 - alphas).sqrt()
        net = net_of(pipe.transformer)
        trained = [p for p in net.parameters() if p.requires_grad]
        half = torch.float32 if args.fp32 else torch.bfloat16
        muon = Muon([p for p in trained if p.ndim == 2], lr=args.lr_muon, weight_decay=0.02, dtype=half)
        adam = torch.optim.AdamW([p for p in trained if p.ndim != 2], lr=args.lr_adam, weight_decay=0.0)
        super().__init__(args, net, muon, adam, args.work / "net.pt")

    def batch(self):
        """Latents, those of their edges, captions' numbers, timesteps and noise."""
        n, captions = self.args.batch, edges.Captions
        chosen = torch.randint(len(self.latents), (n,), generator=self.random)
        place = torch.randint(edges.PLACES, (n,), generator=self.random)
        subject, colour, _ = self.what[chosen].unbind(1)
        kind = torch.rand(n, generator=self.random)
        others = self.what[torch.randint(len(self.what), (n,), generator=self.random), 0]
        subject = torch.where(kind < EMPTY + OTHER, others, subject)
        rows = captions.number(subject, colour, torch.randint(2, (n,), generator=self.random))
        rows[kind < EMPTY] = 0
        share = (torch.arange(n) + torch.rand(n, generator=self.random)) / n
        t = (EARLIEST + share * (len(self.signal) - EARLIEST)).long()
        x = self.latents[chosen, place]
        return x, self.edges[chosen, place], rows, t, torch.randn(x.shape, generator=self.random)

    def loss_of(self, net, x, image, rows, t, noise):
        """This share's part of the batch's mean loss."""
        base, texts = self.base, self.texts
        a, s = (v[t].view(-1, 1, 1, 1) for v in (self.signal, self.noise))
        with torch.autocast("cpu", torch.bfloat16, enabled=not self.args.fp32):
            read = dit.read(base, texts, dit.time_features_of(t), *(e[rows] for e in self.encoded))
            noisy, image = (dit.patches_of(base, v) for v in (a * x + s * noise, image))
            controls = dit.controls_of(net, texts, noisy, image, *read, *self.turn)
            out = dit.draw(base, texts, noisy, *read, *self.turn, controls)
        return (out.float() - (a * noise - s * x)).pow(2).mean() * (len(x) / self.args.batch)


def save(net, out: Path):
    """The net as fp16, which is half the size."""
    copy.deepcopy(net).to(torch.float16).save_pretrained(out)
    for file in out.glob("*.safetensors"):
        file.chmod(0o644)


def main():
    args = arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    pipe = HunyuanDiTPipeline.from_pretrained(args.base, torch_dtype=torch.float32, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    captions = edges.Captions(args.base)
    bank = edges.bank(pipe, captions, args, log)
    torch.set_num_threads(1)  # a thread for each share of the batch
    trainer = Trainer(args, pipe, captions, bank)
    trainer.train()
    save(trainer.average, args.out)


if __name__ == "__main__":
    main()
