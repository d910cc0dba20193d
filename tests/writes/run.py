#!/usr/bin/env python3
"""Writes of the programs that are lost or fail, one by one: what is left is the older file, the newer, or refused.

    tests/writes/run.py FOLDER OF hydit-export AND hydit-serve [CASE]...

First the power fails after each operation that strace has recorded. Of the trees that may be on the disk then
(`disk.py`), the place that is written to must have what it had or what it was to get, or be refused by `verify` and
`generate`; and the next export over some of them must succeed. Then each operation fails, once with ENOSPC and once
with EIO: the program says so in one line and leaves what was there before, or reaches its end.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections import Counter

from disk import Disk
from trace import fail, record

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
ERRORS = ("ENOSPC", "EIO")
#: Calls of the first thread that fail where the names of files are made up.
CALLS = ("write", "fsync", "rename", "renameat", "unlink")
#: Of each case so many trees are exported over.
REPAIRED = int(os.environ.get("REPAIRED", 50))
DRAW = ["--prompt", "a cat", "--sampler", "ddim", "--image-size", "128", "128", "--infer-steps", "2"]


def contents(root):
    """The bytes of all files below `root`, by path."""
    paths = [pathlib.Path(folder, name) for folder, _, names in os.walk(root) for name in names]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def lay(root, files):
    """Makes `files` all that is below `root`. The same bytes, not just equal ones, are one file under two names."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    laid = {}
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if data and id(data) in laid:
            os.link(laid[id(data)], root / path)
            continue
        (root / path).write_bytes(data)
        laid[id(data)] = root / path


def quiet(command, cwd):
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


class Case:
    """A command that writes to `place`, below a folder that it is run for."""

    def __init__(self, bin, scratch, name, place, command, before, inside=False):
        self.name, self.place, self.command, self.before = name, place, command, before
        self.root, self.log = scratch / "root", scratch / "log"
        self.cwd = str(self.root / place if inside else self.root)
        self.is_export = place == "out"
        self.bin, self.scratch = bin, scratch
        self.told, self.wrong = Counter(), []

    def at_place(self, files):
        """Those of `files` that a reader of the place sees."""
        here = (path for path in files if path == self.place or path.startswith(f"{self.place}/"))
        return {path: files[path] for path in here if "/.hydit-export-" not in path}

    def run(self):
        lay(self.root, self.before)
        disk = Disk(self.root)
        self.operations = record(self.command, self.root, self.log, self.cwd)
        self.after = contents(self.root)
        self.older, self.newer = self.at_place(self.before), self.at_place(self.after)
        assert self.older != self.newer, f"{self.name}: the command changes nothing"
        self.lose_power(disk)
        self.fail_each()

    def lose_power(self, disk):
        trees = {}
        for done, operation in enumerate(self.operations):
            disk.do(operation)
            for tree in disk.losses():
                trees.setdefault(frozenset(tree.items()), done)
        files = disk.files()
        assert files.keys() == self.after.keys(), f"not all was recorded: {files.keys() ^ self.after.keys()}"
        assert all(node.size == len(self.after[path]) for path, node in files.items()), "not all writes were recorded"
        data = {node: self.after[path] for path, node in files.items()}
        judged = {}
        for number, (tree, done) in enumerate(trees.items()):
            here = frozenset(self.at_place(dict(tree)).items())
            if here not in judged:
                judged[here] = self.judge(self.left(tree, data), self.left(here, data))
            self.told[judged[here]] += 1
            if judged[here] == "WRONG":
                self.wrong.append(f"power lost after {self.operations[done]}: neither the older nor the newer")
            if self.is_export and number % max(1, len(trees) // REPAIRED) == 0:
                self.repair(self.left(tree, data), self.operations[done])

    def left(self, tree, data):
        """The bytes that are left of each file of a tree. What was not synced may have its length, and zeros."""
        found = {}
        for path, file in tree:
            if file:
                node, size = file
                older = self.before.get(os.path.relpath(node.name, self.root), b"")
                whole = data.get(node, older if node.size == len(older) else b"")
                found[path] = whole if size == len(whole) else whole[:size].ljust(size, b"\0")
        return found

    def judge(self, found, here):
        if here == self.older:
            return "older"
        if here == self.newer:
            return "newer"
        if not self.is_export:
            return "WRONG"
        lay(self.root, found)
        out = str(self.root / self.place)
        verify = [f"{self.bin}/hydit-serve", "verify", out]
        draw = [f"{self.bin}/hydit-serve", "generate", "--model", out, *DRAW, "-o", f"{self.scratch}/no.png"]
        return "refused" if all(quiet(command, "/").returncode for command in (verify, draw)) else "WRONG"

    def repair(self, found, operation):
        """The next export over what is left succeeds."""
        lay(self.root, found)
        pathlib.Path(self.cwd).mkdir(exist_ok=True)
        done = quiet(self.command, self.cwd)
        self.told["exported over"] += 1
        if done.returncode or contents(self.root) != self.after:
            self.wrong.append(f"the export after a power loss after {operation}: {done.stderr}")

    def fail_each(self):
        if not self.is_export:
            each = ((None, call, nth) for call in CALLS for nth in range(1, 1000))
        else:
            counted = Counter()
            each = []
            for operation in self.operations:
                what = (operation.paths[0], operation.call)
                counted[what] += 1
                each.append((*what, counted[what]))
        over = set()
        for path, call, nth in each:
            if (path, call) in over:
                continue
            for error in ERRORS:
                lay(self.root, self.before)
                code, said, happened = fail(self.command, self.cwd, call, nth, error, self.log, path)
                if not happened:
                    over.add((path, call))
                    break
                self.judge_failure(f"{call} {nth} of {path} fails with {error}", code, said)

    def judge_failure(self, what, code, said):
        left = self.at_place(contents(self.root))
        lines = [line for line in said.splitlines() if line.startswith("error: ")]
        self.told["failed calls"] += 1
        whole = left == self.newer or code and left == self.older
        right = whole and len(lines) == bool(code)
        if not right or "panicked" in said:
            here = "older" if left == self.older else "newer" if left == self.newer else "neither"
            self.wrong.append(f"{what}: exit code {code}, {here} is left: {said.strip()}")


def cases(bin, scratch):
    """What is written: exports, an image, a calibration."""
    root = scratch / "root"

    def export(dtype, out=f"{root}/out"):
        checkpoint = str(REPOSITORY / "models/emoji")
        return [f"{bin}/hydit-export", "--checkpoint", checkpoint, "--out", out, "--dtype", dtype]

    lay(root, {})
    subprocess.run(export("fp16"), check=True, stdout=subprocess.DEVNULL)
    shutil.copytree(root / "out", scratch / "model")
    older = contents(root) | {"out/calibration-ddim-leading-4.yaml": b"mine", "out/notes/a.txt": b"mine too"}
    model = ["--model", str(scratch / "model")]
    draw = [f"{bin}/hydit-serve", "generate", *model, *DRAW, "-o", f"{root}/cat.png"]
    (scratch / "prompts.txt").write_text("a cat\na dog\n")
    calibrate = [f"{bin}/hydit-serve", "calibrate", *model, "--prompts", f"{scratch}/prompts.txt", "--sampler", "ddim",
                 "--infer-steps", "6", "-o", f"{root}/c.yaml"]
    for name, place, command, before, *inside in (
        ("new", "out", export("fp32"), {}),
        ("over", "out", export("fp32"), older),
        ("inside", "out", export("fp32", "."), older, True),
        ("image", "cat.png", draw, {"cat.png": b"older"}),
        ("calibration", "c.yaml", calibrate, {"c.yaml": b"older"}),
    ):
        yield Case(bin, scratch, name, place, command, before, *inside)


def main():
    bin = pathlib.Path(sys.argv[1]).resolve()
    os.environ["ORT_DYLIB_PATH"] = str(next(REPOSITORY.glob(".runtime/*/libonnxruntime.so.*")))
    if not shutil.which("strace"):
        sys.exit("strace is missing (on Debian: apt-get install strace)")
    wrong = []
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as scratch:
        for case in cases(bin, pathlib.Path(scratch)):
            if sys.argv[2:] and case.name not in sys.argv[2:]:
                continue
            case.run()
            print(f"{case.name:12} {len(case.operations)} operations:",
                  ", ".join(f"{count} {what}" for what, count in sorted(case.told.items())), flush=True)
            print("\n".join(case.wrong), end="\n" if case.wrong else "", flush=True)
            wrong += case.wrong
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
