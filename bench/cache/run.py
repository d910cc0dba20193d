"""Judges the cache policies of a calibrated model on prompts it was not calibrated with, and prints tables.

    bench/cache/run.py --serve target/release/hydit-serve --model artifacts/emoji \
        --prompts bench/cache/prompts/emoji-heldout.txt --out demo/cache

For each sampler and number of steps the mean PSNR in dB of: Skip-Cache's rule with gaps 2 to 6; the calibrated
schedules with as many core runs, with 0.7 of those of gap 2, with 6, and as auto:30dB chooses; and uncached pictures
with as few steps as there are core runs. The columns name the number of core runs; a schedule
with fewer has its own behind it. Needs `hydit-serve calibrate` to have run for each. What is measured already is not measured again.
"""

import argparse
import csv
import json
import math
import pathlib
import statistics
import subprocess
from collections import defaultdict

GAPS = range(2, 7)
#: Stands for the PSNR of equal pictures.
EQUAL = 99.0


def main():
    arguments = parse()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for steps in arguments.steps:
        for sampler in arguments.samplers:
            Case(arguments, sampler, steps).report()


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", required=True, help="the program hydit-serve")
    parser.add_argument("--model", required=True, type=pathlib.Path, help="artifact folder")
    parser.add_argument("--prompts", required=True, help="text file, a prompt a line")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="folder for sheets, plots and CSV files")
    parser.add_argument("--seeds", default="2", help="pictures of each prompt")
    parser.add_argument("--samplers", nargs="+", default=["dpmms", "ddim", "ddpm"])
    parser.add_argument("--steps", nargs="+", type=int, default=[25, 50])
    parser.add_argument("--control-every", type=int, default=1, help="fewer steps at every n-th number of core runs")
    parser.add_argument("--threads", default="2")
    return parser.parse_args()


class Case:
    """A model with one sampler and one number of steps."""

    def __init__(self, arguments, sampler, steps):
        self.arguments, self.sampler = arguments, sampler
        self.flags = ["--model", str(arguments.model), "--sampler", sampler, "--infer-steps", str(steps)]
        self.name = f"{sampler}, {steps}"
        self.base = arguments.out / f"{sampler}-{steps}"
        self.rule_runs = {gap: self.runs(f"N{gap}-700-50") for gap in GAPS}
        few = {6, int(0.7 * self.rule_runs[2])}
        self.counts = sorted(set(self.rule_runs.values()) | few, reverse=True)

    def runs(self, policy):
        command = [self.arguments.serve, "plan", *self.flags, "--cache-policy", policy, "--json"]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["core_runs"]

    def report(self):
        """Three lines: the rule, calibrated schedules, fewer steps; a column for each number of core runs."""
        found = self.measure()
        columns = [(f"N{gap}, {runs}", f"N{gap}-700-50", runs) for gap, runs in self.rule_runs.items()]
        named = {runs for _, _, runs in columns}
        columns += [(str(runs), None, runs) for runs in self.counts if runs not in named]
        chosen = found["auto:30dB"]

        def line(name, contender, last=""):
            cells = [found.get(contender(rule, runs)) for _, rule, runs in columns]
            less = [f" ({cell.runs:.0f})" if cell and cell.runs < column[2] else "" for cell, column in zip(cells, columns)]
            cells = [f"{cell.mean:.1f}{note}" if cell else "" for cell, note in zip(cells, less)]
            print("| " + " | ".join([name, *cells, last]) + " |", flush=True)

        print("\n| " + " | ".join([self.name, *(head for head, _, _ in columns), "auto:30dB"]) + " |")
        print("| --- " + "| --: " * (len(columns) + 1) + "|")
        line("Skip-Cache's rule", lambda rule, runs: rule)
        last = f"{chosen.runs:.0f} runs: {chosen.mean:.1f}, p10 {chosen.p10:.1f}"
        line("calibrated", lambda rule, runs: f"auto:{runs}runs", last)
        line("fewer steps", lambda rule, runs: f"off, {runs} steps")

    def measure(self):
        path = self.base.with_suffix(".csv")
        done = self.base.with_suffix(".command")
        policies = [f"N{gap}-700-50" for gap in GAPS]
        policies += [f"auto:{runs}runs" for runs in self.counts] + ["auto:30dB"]
        command = [self.arguments.serve, "sheet", *self.flags, "--prompts", self.arguments.prompts]
        command += ["--seeds", self.arguments.seeds, "--threads", self.arguments.threads]
        command += ["--policy", ",".join(policies)]
        if self.sampler != "ddpm":  # there fewer steps draw other noise
            command += ["--fewer-steps", ",".join(map(str, self.counts[:: self.arguments.control_every]))]
        command += ["-o", f"{self.base}-sheet.png", "--plot", f"{self.base}.svg", "--csv", str(path)]
        if not path.exists() or not done.exists() or done.read_text(encoding="utf-8") != "\n".join(command):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            done.write_text("\n".join(command), encoding="utf-8")
        rows = defaultdict(list)
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                rows[row["policy"]].append(row)
        return {policy: Figures(rows) for policy, rows in rows.items()}


class Figures:
    """Means of a contender over prompts and seeds."""

    def __init__(self, rows):
        psnrs = sorted(float(row["psnr"] or EQUAL) for row in rows)
        differing = [float(row["psnr"]) for row in rows if row["psnr"]]
        self.runs = statistics.mean(float(row["core_runs"]) for row in rows)
        self.mean = statistics.mean(differing) if differing else EQUAL
        self.p10 = psnrs[math.ceil(len(psnrs) / 10) - 1]


if __name__ == "__main__":
    main()
