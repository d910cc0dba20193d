#!/usr/bin/env python3
"""Measures hydit beside its peers on this machine: one checkpoint, one prompt, one seed, one sampler, as many threads.

    python bench/peers/run.py --checkpoint models/emoji --artifacts artifacts/emoji \\
        --table demo/peers.md --json demo/peers.json --plot demo/peers.png

Every peer lives in a process of its own (worker.py) that loads once. In each round every peer has one turn, in an order
that moves on by one; a turn draws the picture twice and only the second one counts. hydit's turn is one
`hydit-serve generate --compare`, which warms up and then draws without and with the cache. README.md tells the rest.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

import report

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BASE = "diffusers-fp32"
# PyTorch's threads spin while they wait, and lose ten times over to anything else that runs; asleep they do not.
OPENMP = {"OMP_WAIT_POLICY": "passive"}
PEERS = [BASE, "diffusers-bf16", "diffusers-fp32-compile", "diffusers-bf16-compile", "diffusers-fp32-cachedit",
         "diffusers-bf16-cachedit", "diffusers-bf16-compile-cachedit", "diffusers-fp32-cachedit-taylor",
         "onnxruntime-fp32", "openvino-fp32", "openvino-bf16"]


class Artifact:
    """An export, and the provider of ONNX Runtime that hydit runs it on."""

    def __init__(self, text):
        folder, _, self.provider = str(text).partition("@")
        self.path = pathlib.Path(folder)
        self.name = self.path.name + (f"-{self.provider}" if self.provider else "")

    def __str__(self):
        return str(self.path) + (f"@{self.provider}" if self.provider else "")

    def flags(self, library):
        return ["--provider", self.provider, *(["--ep-library", library] if library else [])] if self.provider else []


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", default=str(ROOT / "target/release/hydit-serve"), help="the program hydit-serve")
    parser.add_argument("--checkpoint", type=pathlib.Path, default=ROOT / "models/emoji")
    parser.add_argument("--artifacts", type=Artifact, nargs="+", default=[Artifact(ROOT / "artifacts/emoji")],
                        metavar="DIR[@PROVIDER]", help="exports of the checkpoint, each on the CPU provider or on a plugin "
                        "such as openvino:bf16; the first one with full.onnx (--full) feeds the other engines")
    parser.add_argument("--ep-library", metavar="PATH", help="the plugin's library, as for hydit-serve")
    parser.add_argument("--peers", nargs="*", default=PEERS, metavar="NAME", help=f"default: {' '.join(PEERS)}")
    parser.add_argument("--policy", default="N3-700-50", help="hydit's cache; cache-dit gets the same full steps")
    parser.add_argument("--prompt", default="蓝色背景上的猫")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--size", type=int, nargs=2, default=[128, 128], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--base", default=BASE, metavar="NAME", help="the peer that speed-ups and PSNR refer to")
    parser.add_argument("--once", action="store_true", help="a turn draws once, not twice: for pictures of minutes")
    for flag in ("--table", "--json", "--plot"):
        parser.add_argument(flag, type=pathlib.Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.base not in arguments.peers:
        arguments.peers.insert(0, arguments.base)
    # A made-up checkpoint has no encoder in its VAE, and diffusers does not load it: the transformer alone, then.
    weights = arguments.checkpoint / "vae/diffusion_pytorch_model.safetensors"
    arguments.transformer_only = not weights.exists() or b'"encoder.conv_in.weight"' not in header(weights)
    return arguments


def header(safetensors):
    with open(safetensors, "rb") as file:
        return file.read(int.from_bytes(file.read(8), "little"))


class Worker:
    """A peer in Python; None from draw() when it failed, and then the reason in `failure`."""

    def __init__(self, name, arguments, folder, full_steps):
        self.name, self.folder, self.failure, self.once = name, folder, None, arguments.once
        graphs = [artifact.path for artifact in arguments.artifacts if (artifact.path / "full.onnx").exists()]
        if not name.startswith("diffusers") and not graphs:
            self.failure = "no export with full.onnx was given"
            return
        job = {key: getattr(arguments, key) for key in
               ("transformer_only", "prompt", "steps", "guidance", "seed", "threads")}
        job |= {"peer": name, "checkpoint": str(arguments.checkpoint), "graphs": str(graphs[0]) if graphs else "",
                "height": arguments.size[0], "width": arguments.size[1], "full_steps": full_steps,
                "picture": str(self.picture())}
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py"), json.dumps(job)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=open(folder / f"{name}.log", "w"), text=True,
            env=OPENMP | os.environ | {"OMP_NUM_THREADS": str(arguments.threads), "HF_HUB_OFFLINE": "1"})

    def picture(self):
        return self.folder / f"{self.name}.png"

    def draw(self):
        if self.failure:
            return None
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            lines = (self.folder / f"{self.name}.log").read_text().strip().splitlines()
            self.failure = lines[-1] if lines else f"ended with {self.process.wait()}"
            return None
        return json.loads(line)

    def turn(self):
        if not self.once:
            self.draw()
        drawn = self.draw()
        return {self.name: drawn} if drawn else {}

    def close(self):
        if hasattr(self, "process"):
            with contextlib.suppress(BrokenPipeError):  # it has ended already
                self.process.stdin.close()
            self.process.wait()


class Hydit:
    """An artifact folder: two rows, without the cache and with it, from one process."""

    def __init__(self, artifact, arguments, folder):
        self.artifact, self.arguments, self.folder = artifact, arguments, folder
        self.name, self.failure = f"hydit-{artifact.name}", None
        self.off, self.cached = self.name, f"{self.name}-{arguments.policy}"

    def generate(self, name, *flags):
        a = self.arguments
        command = [a.serve, "generate", "--model", str(self.artifact.path), "--prompt", a.prompt, "--sampler", "dpmms",
                   "--spacing", "linspace", "--infer-steps", str(a.steps), "--cfg-scale", str(a.guidance),
                   "--image-size", *map(str, a.size), "--seed", str(a.seed), "--threads", str(a.threads),
                   "--backend", "ort", "--json", "-o", str(self.folder / f"{name}.png"),
                   *self.artifact.flags(a.ep_library), *flags]
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if run.returncode:
            sys.exit(f"{shlex.join(command)}\nended with {run.returncode}:\n{run.stderr.strip()}")
        return json.loads(run.stdout)

    def prepare(self):
        """Leaves the uncached picture; gives the steps that the policy makes full ones, and the engine."""
        self.generate(self.off, "--cache-policy", "off")
        made = self.generate(self.cached, "--cache-policy", self.arguments.policy)
        return made["refresh"], made["backend"].partition(" (")[0]

    def turn(self):
        made = self.generate(self.cached, "--cache-policy", self.arguments.policy, "--compare")
        stages = {stage["stage"]: stage["seconds"] for stage in made["stages"]}
        around = stages["text-encoders"] + stages["conditioner"] + stages["vae"]  # no PNG: the peers' has none either
        rows = ((self.off, made["compare"]["uncached_denoise_seconds"], made["steps"]),
                (self.cached, made["denoise_seconds"], made["core_runs"]))
        return {name: {"denoise": seconds, "pipeline": seconds + around, "full_steps": full}
                for name, seconds, full in rows}

    def close(self):
        pass


def main():
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        ours = [Hydit(artifact, arguments, folder) for artifact in arguments.artifacts]
        full_steps, engine = [hydit.prepare() for hydit in ours][0]
        workers = [Worker(name, arguments, folder, full_steps) for name in arguments.peers]
        everyone, rounds = workers + ours, []
        try:
            for number in range(-1, arguments.rounds):  # round -1 loads, compiles and warms up; it does not count
                place = max(number, 0) % len(everyone)
                drawn = {}
                for peer in everyone[place:] + everyone[:place]:
                    print(f"\rround {number + 1} of {arguments.rounds}, {peer.name:40}", end="", file=sys.stderr, flush=True)
                    drawn |= peer.turn()
                if number >= 0:
                    rounds.append(drawn | {"load": os.getloadavg()[0]})
        except KeyboardInterrupt:
            if not rounds:
                raise
            print(f"\ninterrupted: {len(rounds)} whole rounds count", file=sys.stderr)
        finally:
            for peer in everyone:
                peer.close()
        print("\r" + " " * 72 + "\r", end="", file=sys.stderr)
        order = arguments.peers + [row for hydit in ours for row in (hydit.off, hydit.cached)]
        failures = {worker.name: worker.failure for worker in workers if worker.failure}
        report.write(arguments, order, rounds, failures, folder, engine, arguments.base)


if __name__ == "__main__":
    main()
