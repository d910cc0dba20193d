#!/usr/bin/env python3
"""Draws by a genuine tritonserver what `generate` draws, from a repository of `hydit-export triton` as it is.

    run.py PROGRAMS SERVER      PROGRAMS has hydit-export and hydit-serve, SERVER is the folder of scripts/setup-triton

Then `generate` itself has it draw, by --backend triton. Images may be 1 of 255 apart: the graphs add in another order, and
the ensemble's noise is drawn in numpy.
"""
import pathlib
import shutil
import sys
import tempfile

import numpy
import tritonclient.grpc
from PIL import Image
from tritonclient.utils import InferenceServerException

from tritonserver import TritonServer, run

PROGRAMS, SERVER = (pathlib.Path(folder).absolute() for folder in sys.argv[1:])
#: Plans by name: their flags; then prompts, negative prompts and seeds to draw with each.
PLANS = {
    "dpmms-N3": "--sampler dpmms --infer-steps 10 --cache-policy N3-700-50",
    "ddpm-rescale": "--sampler ddpm --infer-steps 6 --image-size 128 96 --guidance-rescale 0.5",
    "pair": "--sampler ddim --infer-steps 4 --cache-policy N2+taylor1 --batch-size 2",
    "photo": "--sampler dpmms --infer-steps 8 --init-image tests/reference/image_to_image/ddim-25-cat-0.3.png --strength 0.6",
    "style": "--sampler dpmms --infer-steps 4 --lora-dir tests/reference/lora --lora emoji-style:0.8",
}
ORDERS = [
    ("dpmms-N3", "蓝色背景上的猫", "", 42),
    ("dpmms-N3", "a rocket on a black background", "a cat", 2**33 + 5),
    ("ddpm-rescale", "绿色背景上的草莓", "", 7),
    ("pair", "a robot on a yellow background", "", 1),
    ("photo", "a robot on a yellow background", "", 1),
    ("style", "a robot on a yellow background", "", 1),
]


def ask(client, **given):
    inputs = []
    for name, value in given.items():
        kind, dtype = ("INT64", numpy.int64) if name == "seed" else ("BYTES", object)
        tensor = tritonclient.grpc.InferInput(name, [1], kind)
        tensor.set_data_from_numpy(numpy.array([value], dtype=dtype))
        inputs.append(tensor)
    return client.infer("emoji", inputs).as_numpy("images")


def generate(folder, model, where, flags, prompt, negative, seed, *backend):
    """The images of `hydit-serve generate`, in one array."""
    with tempfile.TemporaryDirectory(prefix=where, dir=folder) as out:
        out = pathlib.Path(out)
        run(PROGRAMS / "hydit-serve", "generate", "--model", model, "--prompt", prompt, "--negative", negative,
            "--seed", seed, *flags.split(), *backend, "-o", out / "image.png")
        return numpy.stack([numpy.asarray(Image.open(file)) for file in sorted(out.iterdir())])


def remote(folder, model, server):
    """What --backend triton needs of the artifact folder, and what it refuses."""
    front, other = folder / "front", folder / "other"
    for copy in (front, other):
        copy.mkdir()
        for file in ("manifest.yaml", "tokenizer.json", "tokenizer_2.json"):
            shutil.copy(model / file, copy)
    order = ("--sampler dpmms --infer-steps 4", "a cat", "", 3)
    tritons = ("--backend", "triton", "--triton")
    here, there = generate(folder, model, "here", *order), generate(folder, front, "front", *order, *tritons, server.address)
    if numpy.abs(here.astype(int) - there.astype(int)).max() > 1:
        sys.exit("the manifest and the tokenizers alone draw another picture")
    (other / "manifest.yaml").open("a").write("# another export\n")
    out = folder / "none.png"
    for model, address, flags, expected in [
        (other, server.address, [], "it has no model of this export: make its repository from this very folder"),
        (front, "127.0.0.1:1", [], "grpc://127.0.0.1:1: Connection refused"),
        (front, "no-such-host.invalid", [], "grpc://no-such-host.invalid:8001: not found"),
        (front, server.address, ["--cache-policy", "probe:0.3"], "decides while the picture is drawn"),
        (front, server.address, ["--use-cache", "--compare"], "--compare needs an engine in this program"),
        (front, server.address, ["--threads", "2"], "--threads is for an engine in this program"),
        (front, f"{server.address}9999999", [], "expected grpc://HOST:PORT"),
    ]:
        ended = run(PROGRAMS / "hydit-serve", "generate", "--model", model, "--prompt", "x", *tritons, address, *flags, "-o",
                    out, check=False)
        if ended.returncode == 0 or expected not in ended.stderr or out.exists():
            sys.exit(f"{address} {flags}: expected {expected!r}, got {ended.returncode}:\n{ended.stderr}")
    ended = run(PROGRAMS / "hydit-serve", "generate", "--model", front, "--prompt", "x", *tritons, f"127.0.0.1:1,{server.address}",
                "--json", "-o", out)
    if f"Triton {server.address.split('?')[0]}, model emoji-pipeline" not in ended.stdout:
        sys.exit(f"not the host that is there: {ended.stdout}")


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        model, repository = folder / "emoji", folder / "repository"
        run(PROGRAMS / "hydit-export", "--checkpoint", "models/emoji", "--out", model, "--single", "--lora-slots", 64,
            "--image-to-image")
        plans = []
        for name, flags in PLANS.items():
            plans += ["--plan", folder / f"{name}.safetensors"]
            run(PROGRAMS / "hydit-serve", "plan", "--model", model, "--prompt", "any", *flags.split(), "--tensors", plans[-1])
        run(PROGRAMS / "hydit-export", "triton", "--model", model, *plans, "--out", repository, "--name", "emoji")
        (folder / "server").mkdir()
        with TritonServer(SERVER, folder / "server", repository) as server:
            client = server.wait()
            for plan, prompt, negative, seed in ORDERS:
                theirs = ask(client, prompt=prompt.encode(), negative_prompt=negative.encode(), seed=seed, plan=plan.encode())
                ours = generate(folder, model, "here", PLANS[plan], prompt, negative, seed)
                far = numpy.abs(ours.astype(int) - theirs.astype(int)).max()
                print(f"{plan}: {theirs.shape}, at most {far} of 255 from what generate draws")
                if far > 1:
                    sys.exit(f"{plan}: too far")
                theirs = generate(folder, model, "triton", PLANS[plan], prompt, negative, seed,
                                  "--backend", "triton", "--triton", server.address)
                far = numpy.abs(ours.astype(int) - theirs.astype(int)).max()
                print(f"{plan}: --backend triton, at most {far} of 255 from the engine here")
                if far > 1:
                    sys.exit(f"{plan}: too far")
            remote(folder, model, server)
            first = ask(client, prompt=b"a cat", plan=sorted(PLANS)[0].encode(), seed=0, negative_prompt=b"")
            if not numpy.array_equal(first, ask(client, prompt=b"a cat")):
                sys.exit("what may be left out is not what it is said to be")
            try:
                ask(client, prompt=b"a cat", plan=b"none")
                sys.exit("a plan that is not there was drawn")
            except InferenceServerException as error:
                if "there is no 'none'; there are ddpm-rescale, dpmms-N3, pair" not in str(error):
                    sys.exit(f"not the message that was expected: {error}")


main()
