"""Does a saved model draw what is asked? Each picture is compared with those of the training set.

    python models/train/judge.py models/badges

One picture for each subject in a colour it was trained in, and one in the colour held out, in Chinese and English by
turns. A picture counts as right in its subject (colour) if the training picture most like it, pixel by pixel, has that subject (colour). This is no measure of beauty.
"""

import argparse
from pathlib import Path

import numpy as np
from diffusers import DPMSolverMultistepScheduler

import data
import save

HERE = Path(__file__).resolve().parent


def templates(subjects, rng, each=6):
    labels, pictures = [], []
    for s, subject in enumerate(subjects):
        for colour in data.COLOURS:
            for _ in range(each):
                labels.append((s, colour))
                pictures.append(data.compose(subject, colour, rng))
    return labels, np.stack(pictures)


def small(pictures):
    """Halved in size: less is made of edges that are a pixel off."""
    p = pictures.astype(np.float32) / 255
    return (p[:, ::2, ::2] + p[:, 1::2, ::2] + p[:, ::2, 1::2] + p[:, 1::2, 1::2]) / 4


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", type=Path)
    p.add_argument("--work", type=Path, default=HERE / ".work")
    p.add_argument("--device", default="cpu")
    p.add_argument("--steps", type=int, default=20)
    p.add_argument("--sheet", type=Path, help="PNG of all the pictures")
    args = p.parse_args()
    subjects = data.load_subjects(args.work / "packages", (HERE / "emoji.txt").read_text(encoding="utf-8").split())
    labels, known = templates(subjects, np.random.default_rng(1))
    known = small(known)
    pipe = save.load(args.model, args.device)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    seen = data.pairs(subjects)
    one_each = [[pair for pair in seen if pair[0] == s][(3 * s) % 7] for s in range(len(subjects))]
    for name, pairs in (("trained", one_each), ("held out", data.pairs(subjects, held=True))):
        prompts = [data.captions(subjects[s], colour)[i % 2] for i, (s, colour) in enumerate(pairs)]
        sheet = args.sheet and args.sheet.with_stem(f"{args.sheet.stem}-{name.replace(' ', '-')}")
        drawn = save.grid(pipe, prompts, sheet, 10, args.steps)
        right = np.zeros(2, int)
        for (s, colour), picture in zip(pairs, small(np.stack([np.asarray(d) for d in drawn]))):
            found = labels[((known - picture) ** 2).mean((1, 2, 3)).argmin()]
            right += (found[0] == s, found[1] == colour)
            if found != (s, colour):
                print(f"  asked {subjects[s].en}, {colour}: like {subjects[found[0]].en}, {found[1]}")
        print(f"{name}: {len(pairs)} pictures, subject right in {right[0]}, colour right in {right[1]}")


if __name__ == "__main__":
    main()
