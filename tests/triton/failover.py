#!/usr/bin/env python3
"""Two genuine tritonservers draw for one hydit-serve while clients go away, the servers are killed in turn, and one hangs:
every order is drawn, with the bytes that it has in quiet, and no call of a server is cancelled.

    failover.py PROGRAMS SERVER [KILLS]     PROGRAMS has hydit-export and hydit-serve, SERVER is of scripts/setup-triton
"""

import concurrent.futures
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time
import urllib.request

from tritonserver import TritonServer, free_port, run

PROGRAMS, SERVER = (pathlib.Path(folder).absolute() for folder in sys.argv[1:3])
KILLS = int(sys.argv[3]) if len(sys.argv) > 3 else 3
#: Orders under way when a server is killed: more than the two have room for.
ORDERS = 8
PLAN = "--sampler dpmms --infer-steps 10 --cache-policy N3-700-50"
DICE = random.Random(1)


def ask(address, path, body=None, patience=300):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{address}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=patience) as answer:
        return answer.read().decode()


def draw(address, seed, patience=300):
    body = {"prompt": "蓝色背景上的猫", "seed": seed, "steps": 10, "sampler": "dpmms", "cache": "N3-700-50"}
    return json.loads(ask(address, "/v1/images/generations", body, patience))["data"][0]["b64_json"]


def go_away(address, seed, patience):
    """A client that does not wait for its picture: whether it has none."""
    try:
        draw(address, seed, patience)
    except TimeoutError:
        return True
    return False


def metric(address, name):
    line = next(line for line in ask(address, "/metrics").splitlines() if line.startswith(f"{name} "))
    return int(float(line.split()[1]))


def until(what, true):
    for _ in range(600):
        if true():
            return
        time.sleep(0.1)
    sys.exit(f"not within a minute: {what}")


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        model, plan, repository = folder / "emoji", folder / "n3.safetensors", folder / "repository"
        run(PROGRAMS / "hydit-export", "--checkpoint", "models/emoji", "--out", model, "--single")
        run(PROGRAMS / "hydit-serve", "plan", "--model", model, "--prompt", "any", *PLAN.split(), "--tensors", plan)
        run(PROGRAMS / "hydit-export", "triton", "--model", model, "--plan", plan, "--out", repository, "--name", "emoji")
        servers = []
        for name in ("a", "b"):
            (folder / name).mkdir()
            servers.append(TritonServer(SERVER, folder / name, repository))
        address = f"127.0.0.1:{free_port()}"
        command = [PROGRAMS / "hydit-serve", "serve", "--model", model, "--listen", address, "--data-dir", folder / "data",
                   "--backend", "triton", "--triton", ",".join(server.address for server in servers)]
        log = (folder / "log").open("w")
        with servers[0], servers[1], subprocess.Popen([str(part) for part in command], stdout=log, stderr=log) as serve:
            try:
                for server in servers:
                    server.wait()
                until("both draw", lambda: serve.poll() is None and metric(address, "hydit_tritons") == 2)
                with concurrent.futures.ThreadPoolExecutor(ORDERS) as clients:
                    compare(address, servers, clients)
            except BaseException:
                lines = [line for line in (folder / "log").read_text().splitlines() if "/metrics" not in line]
                print("hydit-serve:", *lines[-40:], sep="\n", file=sys.stderr)
                for server in servers:
                    print(f"{server.address}: {server.state()}", file=sys.stderr)
                looks = [line for line in lines if "does not draw" in line or " draws " in line]
                print("hosts as hydit-serve saw them:", *looks[-6:], sep="\n", file=sys.stderr)
                raise
            finally:
                serve.terminate()


def compare(address, servers, clients):
    together = lambda: clients.map(lambda seed: draw(address, seed), range(ORDERS))
    start = time.monotonic()
    quiet = list(together())
    took = time.monotonic() - start
    if len(set(quiet)) != ORDERS:
        sys.exit("orders of different seeds are alike")
    gone = sum(clients.map(lambda seed: go_away(address, seed, DICE.uniform(0.1, 0.8) * took), range(2 * ORDERS)))
    if list(together()) != quiet:
        sys.exit("other pictures than in quiet when clients have gone away")
    if gone == 0:
        sys.exit("no client has gone away in mid-picture: it proves nothing")
    for kill in range(KILLS):
        victim = servers[kill % 2]
        drawing = together()
        time.sleep(DICE.uniform(0.05, 0.6) * took)
        victim.kill()
        if list(drawing) != quiet:
            sys.exit(f"kill {kill}: other pictures than in quiet")
        victim.start()
        victim.wait()
        until("both draw again", lambda: metric(address, "hydit_tritons") == 2)
    # A host that hangs breaks no connection.
    drawing = together()
    time.sleep(0.3 * took)
    servers[0].hang(True)
    if list(drawing) != quiet:
        sys.exit("other pictures than in quiet while a server hangs")
    servers[0].hang(False)
    until("both draw again", lambda: metric(address, "hydit_tritons") == 2)
    if cancelled := [server.address for server in servers if server.cancelled()]:
        sys.exit(f"calls were cancelled: {', '.join(cancelled)}")
    again = metric(address, "hydit_redrawn_total")
    print(f"clients gone away {gone}, kills {KILLS}, and one that hangs; orders {(KILLS + 2) * ORDERS}, all drawn with the same bytes; begun again elsewhere: {again}")
    if again == 0:
        sys.exit("no kill was in mid-picture: it proves nothing")


main()
