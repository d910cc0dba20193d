"""What the cache costs with a ControlNet: pictures beside uncached ones, with the net and without.

    python bench/control/cache.py --serve target/release/hydit-serve --model artifacts/emoji-canny --net canny \
        --prompts bench/cache/prompts/emoji-heldout.txt --policy N3-700-50 --policy N2 --policy auto:30dB

The edges are those of a picture that the model draws of the same prompt with another seed, and, in rows of their own,
of the next prompt: they contradict the caption. Mean PSNR in dB over all prompts and seeds; equal pictures are left out.
"""

import argparse
import csv
import pathlib
import statistics
import subprocess
import tempfile
from collections import defaultdict


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", required=True, help="the program hydit-serve")
    parser.add_argument("--model", required=True, help="artifact folder with the net")
    parser.add_argument("--net", required=True, help="name of the net in it")
    parser.add_argument("--prompts", required=True, type=pathlib.Path)
    parser.add_argument("--count", type=int, default=12, help="prompts, the first ones")
    parser.add_argument("--seeds", type=int, default=2, help="pictures of each")
    parser.add_argument("--policy", action="append", required=True)
    flags = parser.parse_args()
    lines = flags.prompts.read_text(encoding="utf-8").splitlines()
    prompts = [line for line in lines if line.strip() and not line.startswith("#")][: flags.count]
    found = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for i, prompt in enumerate(prompts):
            run(flags, "generate", "--prompt", prompt, "--seed", "1000", "-o", folder / f"{i}.png")
        for i, prompt in enumerate(prompts):
            for name, photo in (("without", None), ("its own edges", i), ("another's edges", (i + 1) % len(prompts))):
                for row in judged(flags, folder, prompt, photo):
                    found[row["policy"]][name].append(row)
    print("| policy | core runs | without | its own edges | another's edges |\n| --- | --: | --: | --: | --: |")
    for policy, columns in found.items():
        runs = statistics.mean(float(row["core_runs"]) for row in columns["without"])
        figures = [mean(rows) for rows in columns.values()]
        print("| " + " | ".join([policy, f"{runs:g}", *figures]) + " |")


def run(flags, command, *more):
    words = [flags.serve, command, "--model", flags.model, "--sampler", "dpmms", "--infer-steps", "25", *map(str, more)]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def judged(flags, folder, prompt, photo):
    """The figures of a prompt's pictures with the edges of picture `photo`, if any: a row for each policy and seed."""
    figures = folder / "figures.csv"
    more = ["--prompt", prompt, "--seeds", flags.seeds, "--csv", figures, "-o", folder / "sheet.png"]
    for policy in flags.policy:
        more += ["--policy", policy]
    if photo is not None:
        more += ["--control", f"{flags.net}={folder / f'{photo}.png'}", "--control-preprocess", "canny"]
    run(flags, "sheet", *more)
    with open(figures, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def mean(rows):
    return f"{statistics.mean(float(row['psnr']) for row in rows if row['psnr']):.1f}"


if __name__ == "__main__":
    main()
