#!/usr/bin/env python3
"""Draws by a genuine tritonserver what `generate` draws, from a repository of `hydit-export triton` as it is.

    run.py PROGRAMS SERVER      PROGRAMS has hydit-export and hydit-serve, SERVER is the folder of scripts/setup-triton

No package carries Triton's ONNX Runtime backend; onnxruntime/model.py beside this file is in its place, which is found by
the name of the backend. Images may be 1 of 255 apart: noise is drawn in numpy, and the two add in different orders.
"""
import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time

import numpy
import tritonclient.grpc
from PIL import Image
from tritonclient.utils import InferenceServerException

PROGRAMS, SERVER = (pathlib.Path(folder).absolute() for folder in sys.argv[1:])
HERE = pathlib.Path(__file__).parent
#: What the Python of the two models imports. Triton starts it isolated, with the folder of its backend on the path.
PACKAGES = ["numpy", "numpy.libs", "onnxruntime", "safetensors", "tokenizers", "huggingface_hub"]
#: Plans by name: their flags; then prompts, negative prompts and seeds to draw with each.
PLANS = {
    "dpmms-N3": "--sampler dpmms --infer-steps 10 --cache-policy N3-700-50",
    "ddpm-rescale": "--sampler ddpm --infer-steps 6 --image-size 128 96 --guidance-rescale 0.5",
    "pair": "--sampler ddim --infer-steps 4 --cache-policy N2+taylor1 --batch-size 2",
}
ORDERS = [
    ("dpmms-N3", "蓝色背景上的猫", "", 42),
    ("dpmms-N3", "a rocket on a black background", "a cat", 2**33 + 5),
    ("ddpm-rescale", "绿色背景上的草莓", "", 7),
    ("pair", "a robot on a yellow background", "", 1),
]


def run(*command):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


def free_port():
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return listener.getsockname()[1]


@contextlib.contextmanager
def server(folder, repository):
    """A server on `repository`; gives the address of its gRPC."""
    backends = folder / "backends"
    shutil.copytree(SERVER / "backends", backends)
    shutil.copytree(HERE / "onnxruntime", backends / "onnxruntime")
    packages = pathlib.Path(sysconfig.get_path("purelib"))
    for name in PACKAGES:
        if (packages / name).exists():
            (backends / "python" / name).symlink_to(packages / name)
    ports = {name: free_port() for name in ("http", "grpc", "metrics")}
    flags = [flag for name, port in ports.items() for flag in (f"--{name}-address=127.0.0.1", f"--{name}-port={port}")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [SERVER / "bin/tritonserver", f"--model-repository={repository}", f"--backend-directory={backends}", *flags],
            stdout=log, stderr=log, env={**os.environ, "LD_LIBRARY_PATH": str(SERVER / "libs")},
        )
    try:
        address = f"127.0.0.1:{ports['grpc']}"
        client = tritonclient.grpc.InferenceServerClient(address)
        for _ in range(240):
            with contextlib.suppress(InferenceServerException):
                if client.is_server_ready():
                    break
            if process.poll() is not None:
                break
            time.sleep(0.5)
        else:
            process.kill()
        if process.poll() is not None:
            sys.exit(f"tritonserver did not start:\n{(folder / 'log').read_text()[-6000:]}")
        yield client
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def ask(client, **given):
    inputs = []
    for name, value in given.items():
        kind, dtype = ("INT64", numpy.int64) if name == "seed" else ("BYTES", object)
        tensor = tritonclient.grpc.InferInput(name, [1], kind)
        tensor.set_data_from_numpy(numpy.array([value], dtype=dtype))
        inputs.append(tensor)
    return client.infer("emoji", inputs).as_numpy("images")


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        model, repository = folder / "emoji", folder / "repository"
        run(PROGRAMS / "hydit-export", "--checkpoint", "models/emoji", "--out", model, "--single")
        plans = []
        for name, flags in PLANS.items():
            plans += ["--plan", folder / f"{name}.safetensors"]
            run(PROGRAMS / "hydit-serve", "plan", "--model", model, "--prompt", "any", *flags.split(), "--tensors", plans[-1])
        run(PROGRAMS / "hydit-export", "triton", "--model", model, *plans, "--out", repository, "--name", "emoji")
        with server(folder, repository) as client:
            for number, (plan, prompt, negative, seed) in enumerate(ORDERS):
                theirs = ask(client, prompt=prompt.encode(), negative_prompt=negative.encode(), seed=seed, plan=plan.encode())
                out = folder / str(number)
                out.mkdir()
                run(PROGRAMS / "hydit-serve", "generate", "--model", model, "--prompt", prompt, "--negative", negative,
                    "--seed", seed, *PLANS[plan].split(), "-o", out / "image.png")
                ours = numpy.stack([numpy.asarray(Image.open(file)) for file in sorted(out.iterdir())])
                far = numpy.abs(ours.astype(int) - theirs.astype(int)).max()
                print(f"{plan}: {theirs.shape}, at most {far} of 255 from what generate draws")
                if far > 1:
                    sys.exit(f"{plan}: too far")
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
