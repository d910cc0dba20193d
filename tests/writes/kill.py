#!/usr/bin/env python3
"""Exports that are killed at any moment, one over what the last has left: the folder has one of them whole, or is refused.

    tests/writes/kill.py FOLDER OF hydit-export AND hydit-serve

`SOAK_EXPORTS` says how many, 1,000 by default. Every third is run inside of the folder, where files are moved one by one.
"""

import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter

from run import REPOSITORY, contents, quiet

KILLS = int(os.environ.get("SOAK_EXPORTS", 1000))
DTYPES = ("fp32", "fp16")


def main():
    bin = pathlib.Path(sys.argv[1]).resolve()
    os.environ["ORT_DYLIB_PATH"] = str(next(REPOSITORY.glob(".runtime/*/libonnxruntime.so.*")))
    dice, told, wrong = random.Random(20261127), Counter(), []
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as scratch:
        out = pathlib.Path(scratch, "out")

        def export(dtype, where=out):
            checkpoint = str(REPOSITORY / "models/emoji")
            return [f"{bin}/hydit-export", "--checkpoint", checkpoint, "--out", str(where), "--dtype", dtype]

        whole, longest = {}, 0
        for dtype in DTYPES:
            start = time.monotonic()
            subprocess.run(export(dtype, out), check=True, stdout=subprocess.DEVNULL)
            longest = max(longest, time.monotonic() - start)
            whole[dtype] = contents(out)
        assert whole["fp32"] != whole["fp16"]
        for number in range(KILLS):
            inside = number % 3 == 2
            command = export(dice.choice(DTYPES), "." if inside else out)
            program = subprocess.Popen(command, cwd=out if inside else None, stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
            time.sleep(dice.random() * longest)
            told["ended before" if program.poll() is not None else "killed"] += 1
            program.kill()
            program.wait()
            left = {path: data for path, data in contents(out).items() if not path.startswith(".hydit-export-")}
            if left in whole.values():
                told["one is whole"] += 1
                continue
            draw = ["--prompt", "a cat", "--infer-steps", "1", "-o", f"{scratch}/no.png"]
            accepted = [command for command in ("verify", "generate") if not quiet(
                [f"{bin}/hydit-serve", command, *([str(out)] if command == "verify" else ["--model", str(out), *draw])],
                scratch).returncode]
            told["refused"] += not accepted
            wrong += [f"after kill {number}, {name} takes {sorted(left)}" for name in accepted]
        last = quiet(export("fp32"), scratch)
        if last.returncode or contents(out) != whole["fp32"] or os.listdir(scratch) != ["out"]:
            wrong.append(f"the last export: {last.stderr}, {os.listdir(scratch)}")
    print(f"{KILLS} exports:", ", ".join(f"{count} {what}" for what, count in told.items()))
    print("\n".join(wrong), end="\n" if wrong else "")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
