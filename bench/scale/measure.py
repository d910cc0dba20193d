#!/usr/bin/env python3
"""What it costs to have a Triton draw: the time of a picture through hydit-serve over that of the host's own computing, and the
processor time that a picture takes of the front.

    measure.py PROGRAMS SERVER MODEL [PICTURES [SIDE]]

PROGRAMS has hydit-export and hydit-serve, SERVER is of scripts/setup-triton, MODEL is an artifact folder made with --single.
To be run with .venv-triton/bin/python.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests/triton"))
from tritonserver import TritonServer, free_port, run  # noqa: E402

PROGRAMS, SERVER, MODEL = (pathlib.Path(folder).absolute() for folder in sys.argv[1:4])
PICTURES = int(sys.argv[4]) if len(sys.argv) > 4 else 10
SIDE = sys.argv[5] if len(sys.argv) > 5 else "512"
COMPUTED = "nv_inference_compute_infer_duration_us"


def ask(address, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{address}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        return answer.read().decode()


def computed(server):
    """Seconds that the pipeline has computed so far."""
    lines = ask(f"127.0.0.1:{server.ports['metrics']}", "/metrics").splitlines()
    line = next(line for line in lines if line.startswith(COMPUTED) and 'model="bench-pipeline"' in line)
    return float(line.split()[-1]) / 1e6


def processor(pid):
    """Seconds of processor time that a process has taken."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        plan, repository = folder / "plan.safetensors", folder / "repository"
        order = {"prompt": "a cat", "steps": 10, "sampler": "dpmms", "cache": "N3-700-50", "size": f"{SIDE}x{SIDE}"}
        run(PROGRAMS / "hydit-serve", "plan", "--model", MODEL, "--prompt", "any", "--sampler", "dpmms", "--infer-steps", "10",
            "--image-size", SIDE, SIDE, "--tensors", plan)
        run(PROGRAMS / "hydit-export", "triton", "--model", MODEL, "--plan", plan, "--out", repository, "--name", "bench")
        (folder / "server").mkdir()
        address = f"127.0.0.1:{free_port()}"
        with TritonServer(SERVER, folder / "server", repository) as server:
            server.wait()
            with subprocess.Popen([
                PROGRAMS / "hydit-serve", "serve", "--model", f"bench={MODEL}", "--listen", address, "--data-dir", folder / "data",
                "--backend", "triton", "--triton", server.address,
            ], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as front:
                try:
                    while "ready" not in front.stdout.readline():
                        pass
                    overheads, wholes = [], []
                    begun = processor(front.pid)
                    for seed in range(PICTURES):
                        before = computed(server)
                        whole = json.loads(ask(address, "/v1/images/generations", order | {"seed": seed}))
                        whole = whole["hydit"]["drawing_seconds"]
                        own = computed(server) - before
                        wholes.append(whole)
                        overheads.append(whole / own - 1)
                    took = (processor(front.pid) - begun) / PICTURES
                finally:
                    front.terminate()
    print(f"{PICTURES} pictures of {SIDE}x{SIDE}, 10 steps: {statistics.median(wholes):.3f} s each (median); over the host's own "
          f"computing {statistics.median(overheads):.1%} (median), {min(overheads):.1%} to {max(overheads):.1%}; the front's "
          f"processor {1e3 * took:.0f} ms a picture")


main()
