#!/usr/bin/env python3
"""Measures cache policies on this machine and prints them as a Markdown table.

    python3 bench/cache_table.py --model artifacts/emoji --prompt 蓝色背景上的猫 --sampler dpmms --infer-steps 25

Each run is one `hydit-serve generate --compare --json`: the engine is warmed up, then the picture is drawn without the
cache and with it in the same process. Policies take turns within a round, so that a slow minute of the machine hits
all of them. Figures are medians over the rounds; a speed-up is the median of the rounds' own ratios. N1 does the work
of `off`: how far its speed-up is from 1.00 is what this machine's noise is worth.

Standard library only. Flags after `--` go to hydit-serve as they are.
"""

import argparse
import json
import math
import os
import pathlib
import platform
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile

HEADER = ["policy", "core runs", "denoise median, s", "speed-up", "low to high", "allowed by FLOPs", "ratio", "PSNR, dB",
          "SSIM", "loop overhead"]


def parse_arguments():
    own, _, passed_on = split(sys.argv[1:], "--")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", default=default_serve(), help="the program hydit-serve")
    parser.add_argument("--model", default="artifacts/emoji", help="artifact folder")
    parser.add_argument("--prompt", default="蓝色背景上的猫")
    parser.add_argument("--sampler", default="dpmms", choices=["ddpm", "ddim", "dpmms"])
    parser.add_argument("--infer-steps", type=int, default=25)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--gaps", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6], metavar="N")
    parser.add_argument("--cache-start", type=int, default=700)
    parser.add_argument("--cache-close", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args(own)
    if arguments.rounds < 1 or min(arguments.gaps) < 1:
        parser.error("--rounds and --gaps are 1 or more")
    arguments.passed_on = passed_on
    return arguments


def split(items, mark):
    """What is before `mark`, the mark, what is after it; as str.partition."""
    place = items.index(mark) if mark in items else len(items)
    return items[:place], items[place:place + 1], items[place + 1:]


def default_serve():
    built = pathlib.Path(__file__).resolve().parent.parent / "target/release/hydit-serve"
    return str(built) if built.exists() else shutil.which("hydit-serve") or str(built)


def generate(arguments, policy, picture):
    """One run; the object that hydit-serve prints."""
    command = [arguments.serve, "generate", "--model", arguments.model, "--prompt", arguments.prompt,
               "--sampler", arguments.sampler, "--infer-steps", str(arguments.infer_steps),
               "--seed", str(arguments.seed), "--cache-policy", policy, "--compare", "--json",
               "-o", str(picture), *arguments.passed_on]
    try:
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    except OSError as error:
        sys.exit(f"{arguments.serve}: {error.strerror}; build it with `make build` or name it with --serve")
    if run.returncode != 0:
        sys.exit(f"{shlex.join(command)}\nended with {run.returncode}:\n{run.stderr.strip()}")
    return json.loads(run.stdout)


def measure(arguments):
    """The runs of each policy, round by round."""
    policies = [f"N{gap}-{arguments.cache_start}-{arguments.cache_close}" for gap in arguments.gaps]
    runs = {policy: [] for policy in policies}
    with tempfile.TemporaryDirectory() as folder:
        for round_ in range(arguments.rounds):
            for policy in policies:
                print(f"\rround {round_ + 1} of {arguments.rounds}, {policy}   ", end="", file=sys.stderr, flush=True)
                runs[policy].append(generate(arguments, policy, pathlib.Path(folder) / "picture.png"))
    print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
    return runs


def off_row(runs):
    every = [run for of_policy in runs.values() for run in of_policy]
    seconds = statistics.median(run["compare"]["uncached_denoise_seconds"] for run in every)
    return ["off", f"{every[0]['steps']} of {every[0]['steps']}", f"{seconds:.3f}", "1.00", "", "1.00", "", "", "", ""]


def row(policy, runs):
    compared = [run["compare"] for run in runs]
    speed_ups = [c["uncached_denoise_seconds"] / run["denoise_seconds"] for c, run in zip(compared, runs)]
    speed_up = statistics.median(speed_ups)
    allowed = compared[0]["speed_up_allowed"]
    psnr = compared[0]["psnr"]
    return [
        policy,
        f"{runs[0]['core_runs']} of {runs[0]['steps']}",
        f"{statistics.median(run['denoise_seconds'] for run in runs):.3f}",
        f"{speed_up:.2f}",
        f"{min(speed_ups):.2f} to {max(speed_ups):.2f}",
        f"{allowed:.2f}",
        f"{speed_up / allowed:.2f}",
        "equal" if psnr is None or math.isinf(psnr) else f"{psnr:.1f}",
        f"{compared[0]['ssim']:.4f}",
        f"{100 * statistics.median(run['overhead'] for run in runs):.2f} %",
    ]


def check(policy, runs):
    """The same request must draw the same picture in every round."""
    for key in ("psnr", "ssim"):
        values = {run["compare"][key] for run in runs}
        if len(values) > 1:
            print(f"note: {policy}: {key} differs from round to round: {sorted(values, key=str)}")


def processor():
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return f"{names[0]}, {len(names)} logical cores" if names else platform.machine()


def main():
    arguments = parse_arguments()
    runs = measure(arguments)
    first = next(iter(runs.values()))[0]
    parameters = first["parameters"]
    print(f"    python3 {shlex.join([os.path.relpath(sys.argv[0]), *sys.argv[1:]])}\n")
    engine = re.sub(r" \(/.*\)", "", first["backend"])  # without the library's path
    print(f"{parameters['model']}, {parameters['height']}x{parameters['width']}, {arguments.sampler}, "
          f"{first['steps']} steps, seed {arguments.seed}, {arguments.rounds} rounds. {engine}. {processor()}.\n")
    rows = [HEADER, ["---"] + ["--:"] * (len(HEADER) - 1), off_row(runs)]
    rows += [row(policy, of_policy) for policy, of_policy in runs.items()]
    for cells in rows:
        print("| " + " | ".join(cells) + " |")
    print()
    for policy, of_policy in runs.items():
        check(policy, of_policy)


if __name__ == "__main__":
    main()
