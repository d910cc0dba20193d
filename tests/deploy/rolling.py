"""Two replicas behind nginx with docker/nginx.conf, restarted one after the other while 200 requests come in.

    python3 tests/deploy/rolling.py FOLDER_OF_THE_PROGRAMS

No request may fail, and both replicas must have drawn before and after.
"""

import concurrent.futures
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).parents[2]
BIN = pathlib.Path(sys.argv[1]).resolve()
REQUESTS, CLIENTS, PATIENCE = 200, 8, 300
KEY = "key-of-this-test"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(port, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    try:
        connection.request(method, path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class Replica:
    def __init__(self, name, model, folder, running):
        self.running = running
        self.name, self.model, self.port, self.data = name, model, free_port(), folder / name
        self.drawn = 0
        self.start()

    def start(self):
        flags = ["--listen", f"127.0.0.1:{self.port}", "--model", f"emoji={self.model}", "--data-dir", self.data]
        command = [BIN / "hydit-serve", "serve", *flags, "--api-key", KEY, "--threads", "1", "--allowed-host", "*"]
        with open(f"{self.data}.log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, cwd=ROOT)
        self.running.append(self.process)
        end = time.monotonic() + PATIENCE
        while not self.is_ready():
            assert self.process.poll() is None and time.monotonic() < end, (
                f"{self.name} did not get ready:\n{pathlib.Path(log.name).read_text()}")
            time.sleep(0.05)

    def is_ready(self):
        try:
            return ask(self.port, "GET", "/ready")[0] == 200
        except OSError:
            return False

    def pictures(self):
        text = ask(self.port, "GET", "/metrics")[1].decode()
        return int(float(next(l for l in text.splitlines() if l.startswith("hydit_pictures_total ")).split()[1]))

    def restart(self):
        """As an orchestrator does it: SIGTERM, wait for the end, start again, wait until it is ready."""
        self.drawn += self.pictures()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == 0, f"{self.name} did not end in order: {self.process.returncode}"
        self.start()


def nginx(replicas, folder, running):
    port = free_port()
    text = (ROOT / "docker/nginx.conf").read_text()
    for replica in replicas:
        text = text.replace(f"{replica.name}:8080", f"127.0.0.1:{replica.port}")
    text = text.replace("listen 8080;", f"listen 127.0.0.1:{port};").replace("/run/nginx.pid", f"{folder}/nginx.pid")
    (folder / "nginx.conf").write_text(text)
    user = "user root; " if os.getuid() == 0 else ""
    # It warns of each request that it has asked of another replica.
    with open(folder / "nginx.log", "ab") as log:
        command = ["nginx", "-c", folder / "nginx.conf", "-g", f"daemon off; {user}"]
        process = subprocess.Popen(command, stderr=log)
    running.append(process)
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if ask(port, "GET", "/health")[0] == 200:
                return port
        except OSError:
            pass
        assert process.poll() is None and time.monotonic() < end, (folder / "nginx.log").read_text()
        time.sleep(0.05)


def main():
    with tempfile.TemporaryDirectory() as name:
        folder, running = pathlib.Path(name), []  # every process that was started
        try:
            model = folder / "emoji"
            export = [BIN / "hydit-export", "--checkpoint", ROOT / "models/emoji", "--out", model]
            subprocess.run(export, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            replicas = [Replica(replica, model, folder, running) for replica in ("hydit-1", "hydit-2")]
            roll(replicas, nginx(replicas, folder, running))
        finally:
            for process in running:
                process.terminate()
                process.wait(PATIENCE)


def roll(replicas, port):
    done, failed, lock = [], [], threading.Lock()

    def draw(number):
        body = {"prompt": f"a cat {number}", "size": "64x64", "steps": 8, "seed": number, "sampler": "ddim"}
        try:
            status, answer = ask(port, "POST", "/v1/images/generations", body)
            good = status == 200 and json.loads(answer)["data"][0]["b64_json"]
            told = f"{status} {answer[:200]}"
        except Exception as error:  # whatever goes wrong is a request that failed
            good, told = False, repr(error)
        with lock:
            done.append(number)
            if not good:
                failed.append(f"{number}: {told}")

    def at(share):
        while len(done) < share * REQUESTS:
            time.sleep(0.02)

    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as clients:
        sent = [clients.submit(draw, number) for number in range(REQUESTS)]
        for replica, share in zip(replicas, (0.1, 0.4)):
            at(share)
            replica.restart()
        assert not failed, "\n".join(failed[:5])
        assert len(done) < REQUESTS, "the last replica was back only after all requests: give it more of them"
        concurrent.futures.wait(sent)
    shares = [(replica.drawn, replica.pictures()) for replica in replicas]
    seconds = time.monotonic() - start
    print(f"{len(done)} requests by {CLIENTS} clients in {seconds:.0f} s, both replicas restarted: {len(failed)} failed")
    for replica, (before, after) in zip(replicas, shares):
        print(f"  {replica.name}: {before} pictures before its restart, {after} after it")
    assert not failed, "\n".join(failed[:5])
    assert all(before and after for before, after in shares), shares
    # What was drawn between the question and the end of a replica is not counted.
    assert sum(map(sum, shares)) <= REQUESTS, "a request was drawn twice"


main()
