"""A genuine tritonserver for tests, with onnxruntime/model.py beside this file in the place of Triton's ONNX Runtime
backend, which no package carries: it is found by the name of the backend."""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import uuid

import tritonclient.grpc
from tritonclient.utils import InferenceServerException

HERE = pathlib.Path(__file__).parent
#: What the Python of the two models imports. Triton starts it isolated, with the folder of its backend on the path.
PACKAGES = ["numpy", "numpy.libs", "onnxruntime", "safetensors", "tokenizers", "huggingface_hub"]


def run(*command, check=True):
    ended = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if check and ended.returncode != 0:
        sys.exit(f"{command}: exit code {ended.returncode}\n{ended.stderr}")
    return ended


def free_port():
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return listener.getsockname()[1]


class TritonServer:
    """One on `repository`, with files in `folder`, by the programs in `server`; it keeps its ports when it is started
    again."""

    def __init__(self, server, folder, repository):
        self.server, self.folder, self.repository, self.process = server, folder, repository, None
        backends = folder / "backends"
        shutil.copytree(server / "backends", backends)
        shutil.copytree(HERE / "onnxruntime", backends / "onnxruntime")
        packages = pathlib.Path(sysconfig.get_path("purelib"))
        for name in PACKAGES:
            if (packages / name).exists():
                (backends / "python" / name).symlink_to(packages / name)
        self.ports = {name: free_port() for name in ("http", "grpc", "metrics")}
        self.shared = f"hydit_{uuid.uuid4().hex}_"
        self.address = f"grpc://127.0.0.1:{self.ports['grpc']}?metrics={self.ports['metrics']}"

    def start(self):
        flags = [f"--{name}-{what}" for name, port in self.ports.items() for what in ("address=127.0.0.1", f"port={port}")]
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [self.server / "bin/tritonserver", f"--model-repository={self.repository}",
                 f"--backend-directory={self.folder}/backends",
                 f"--backend-config=python,shm-region-prefix-name={self.shared}", "--log-verbose=1", *flags],
                stdout=log, stderr=log, env={**os.environ, "LD_LIBRARY_PATH": str(self.server / "libs")},
                start_new_session=True,
            )

    def wait(self):
        """Waits until it is ready; gives a client of it."""
        client = tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{self.ports['grpc']}")
        for _ in range(240):
            with contextlib.suppress(InferenceServerException):
                if client.is_server_ready():
                    return client
            if self.process.poll() is not None:
                break
            time.sleep(0.5)
        sys.exit(f"tritonserver did not start:\n{(self.folder / 'log').read_text()[-6000:]}")

    def state(self):
        """Whether it runs, and the end of its log."""
        code = self.process.poll()
        runs = "runs" if code is None else f"has ended with {code}"
        lines = (self.folder / "log").read_text().splitlines()
        lines = [line[:200] for line in lines if line and not line.startswith(("|", "+", "I"))]
        return "\n".join([f"it {runs}", *lines[-24:]])

    def cancelled(self):
        """How many calls it was told to cancel, by its log."""
        log = (self.folder / "log").read_text()
        if "ServerReady" not in log:
            sys.exit(f"{self.address}: its log says nothing of calls")
        return log.count("Cancellation notification received for ModelInfer")

    def kill(self):
        """Ends it and the processes of its Python models at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.clear()

    def clear(self):
        """Removes the shared memory that its Python models had."""
        for region in pathlib.Path("/dev/shm").glob(f"{self.shared}*"):
            region.unlink(missing_ok=True)

    def hang(self, hangs):
        """Lets it hang, or go on; the processes of its Python models do not, since its backend for Python ends the server
        when one of them has been still."""
        self.process.send_signal(signal.SIGSTOP if hangs else signal.SIGCONT)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # a model's process may outlive it
        self.clear()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()
