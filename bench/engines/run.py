#!/usr/bin/env python3
"""Start-up of a model with and without engines that `hydit-serve compile` has made, in turns, as a Markdown table.

    bench/engines/run.py SERVE MODEL ENGINES ROUNDS [FLAG...]

SERVE is hydit-serve, FLAG are those of `hydit-serve generate` that choose the provider and the picture. Start-up is what
generate reports as such: from the start of the process to the first step. The first round warms up and is not counted.
"""
import json
import os
import statistics
import subprocess
import sys
import tempfile

serve, model, engines, rounds, *flags = sys.argv[1:]
kinds = {"without engines": [], "with engines": ["--engines", engines]}
seconds = {kind: [] for kind in kinds}
pictures = {}
with tempfile.TemporaryDirectory() as folder:
    for turn in range(int(rounds) + 1):
        for kind, more in kinds.items():
            out = os.path.join(folder, "out.png")
            words = [serve, "generate", "--model", model, "--prompt", "a cat", "--infer-steps", "2", "--json", "-o", out]
            done = subprocess.run([*words, *flags, *more], check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            with open(out, "rb") as file:
                pictures[kind] = file.read()
            if turn:
                seconds[kind].append(json.loads(done.stdout)["start_seconds"])
print(f"Load average {os.getloadavg()[0]:.1f}, {rounds} rounds; the pictures are",
      "equal" if len(set(pictures.values())) == 1 else "NOT equal", "\n")
print("| | start-up, s | low to high | speed-up, median of the rounds |\n|---|--:|--:|--:|")
first = seconds["without engines"]
for kind, own in seconds.items():
    gain = statistics.median(a / b for a, b in zip(first, own))
    print(f"| {kind} | {statistics.median(own):.2f} | {min(own):.2f} to {max(own):.2f} | {gain:.2f} |")
