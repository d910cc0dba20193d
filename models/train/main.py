"""Trains a small Hunyuan-DiT from nothing but two npm packages, and saves it in diffusers' layout.

    python models/train/main.py --minutes 45 --out models/badges

Stopped at any moment, the same command goes on from the last checkpoint.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that wait must not spin: the cores may be shared

import torch  # noqa: E402
from diffusers import AutoencoderKL  # noqa: E402

import data  # noqa: E402
import save  # noqa: E402
import text  # noqa: E402
import vae as autoencoder  # noqa: E402
from train import Trainer  # noqa: E402

HERE = Path(__file__).resolve().parent
PROMPTS = [
    "红色圆里的考拉", "a shark in a yellow circle", "蓝色圆里的铃铛", "a top hat in a pink circle",
    "绿色圆里的胡萝卜", "a skull in a purple circle", "青色圆里的啤酒", "a game die in a orange circle",
]  # fmt: skip


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, help="folder to save the model in")
    p.add_argument("--work", type=Path, default=HERE / ".work", help="folder for downloads, checkpoints, log, previews")
    p.add_argument("--parts", type=Path, default=HERE.parent / "emoji", help="tokenizers, scheduler and configs; also VAE")
    p.add_argument("--minutes", type=float, default=45, help="of the transformer's training")
    p.add_argument("--vae-minutes", type=float, default=15)
    p.add_argument("--vae-from-scratch", action="store_true", help="not from the one in --parts; give it 30 minutes then")
    p.add_argument("--warm-text", action="store_true", help="start from the text encoders in --parts")
    p.add_argument("--device", default="cpu", help="cpu or cuda")
    p.add_argument("--workers", type=int, help="threads that share a batch; one per core on a CPU, 1 on cuda")
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--layers", type=int, default=20)
    p.add_argument("--lr-muon", type=float, default=0.01)
    p.add_argument("--lr-adam", type=float, default=1.5e-3)
    p.add_argument("--fp32", action="store_true", help="no bf16 autocast")
    p.add_argument("--short-share", type=float, default=0.8, help="share of the time with texts cut short")
    p.add_argument("--per-pair", type=int, default=32, help="pictures of each subject and colour")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--log-every", type=int, default=50, help="steps")
    p.add_argument("--save-every", type=float, default=300, help="seconds between checkpoints")
    p.add_argument("--smoke", action="store_true", help="all stages in tiny, with an interruption; nothing is kept")
    args = p.parse_args()
    if not args.smoke and not args.out:
        p.error("--out is required")
    if args.workers is None:
        args.workers = 1 if args.device.startswith("cuda") else max(1, min(os.cpu_count() or 1, args.batch // 8))
    args.bf16 = not args.fp32
    args.seconds = args.minutes * 60
    return args


def run(args):
    args.work.mkdir(parents=True, exist_ok=True)
    started = time.time()

    def log(line):
        with open(args.work / "train.log", "a", encoding="utf-8") as out:
            for where in (out, sys.stdout):
                print(time.strftime("%H:%M:%S"), line, file=where, flush=True)

    emoji = (HERE / "emoji.txt").read_text(encoding="utf-8").split()
    if args.smoke:
        emoji = emoji[:3]
    subjects = data.load_subjects(args.work / "packages", emoji)
    captions = text.Captions(subjects, args.parts)
    log(f"{len(subjects)} subjects, {len(captions)} captions of at most {captions.short - 1} tokens")

    warm = None if args.vae_from_scratch else args.parts / "vae"
    config = AutoencoderKL.load_config(args.parts / "vae")
    threads = 1 if args.workers > 1 else os.cpu_count() or 1
    torch.set_num_threads(threads)
    vae = autoencoder.train(args.work, warm, config, subjects, args.vae_minutes * 60, 32, args.workers, args.device, log)
    torch.set_num_threads(os.cpu_count() or 1)
    latents, factor = autoencoder.bank(args.work / "latents.pt", vae, subjects, args.per_pair, args.device, log)

    torch.set_num_threads(threads)
    trainer = Trainer(args, args.parts, captions, latents, factor, log)

    def preview(trainer):
        place = args.work / "preview"
        save.folder(place, args.parts, trainer, vae, factor, subjects)
        torch.set_num_threads(os.cpu_count() or 1)
        with torch.random.fork_rng():
            save.grid(save.load(place, args.device), PROMPTS[:6], args.work / "preview.png", columns=6)
        torch.set_num_threads(threads)

    trainer.train(preview)
    save.folder(args.out, args.parts, trainer, vae, factor, subjects)
    save.grid(save.load(args.out, args.device), PROMPTS, args.out / "sample.png", columns=4)
    log(f"{args.out}: {trainer.step} steps, {trainer.seen} pictures seen, {(time.time() - started) / 60:.1f} minutes in this run")
    return trainer


def smoke(args):
    """Every stage with tiny counts: training is stopped once and must go on where it was."""
    with tempfile.TemporaryDirectory() as folder:
        args.work, args.out = Path(folder) / "work", Path(folder) / "model"
        args.layers, args.batch, args.workers, args.per_pair = 4, 4, 2 if args.device == "cpu" else 1, 2
        args.vae_minutes, args.log_every, args.save_every = 1 / 60, 1, 1.0
        args.seconds = 4.0
        packages = os.environ.get("TRAIN_PACKAGES")
        if packages:
            args.work.mkdir(parents=True)
            (args.work / "packages").symlink_to(Path(packages).resolve())
        save.STEPS = 2
        first = run(args)
        assert first.step > 0 and first.phase == "full", "no step at full length was made"
        args.seconds = 6.0
        again = run(args)
        assert again.step > first.step, "did not go on from the checkpoint"
        names = {p.name for p in args.out.iterdir()}
        missing = {"model_index.json", "transformer", "vae", "tokenizer_2", "subjects.tsv", "sample.png"} - names
        assert not missing, f"not saved: {missing}"
        left = [p.name for p in args.out.parent.rglob("*partial*")]
        assert not left, f"left behind: {left}"
    print("smoke: ok")


if __name__ == "__main__":
    arguments_ = arguments()
    smoke(arguments_) if arguments_.smoke else run(arguments_)
