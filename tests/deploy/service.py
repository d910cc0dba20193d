"""The unit hydit-serve.service under a systemd that has just been started: python3 service.py PORT UNSHARE

It starts, begins again after `kill -9` with the job that was under way, and stops in order.
"""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request

port, unshare = sys.argv[1:]
PATIENCE = 300


def systemd():
    """Process 1 of the namespaces: the only child of unshare."""
    return subprocess.run(["pgrep", "-P", unshare], capture_output=True, text=True).stdout.strip()


def systemctl(*arguments):
    command = ["nsenter", "--target", systemd(), "--pid", "--mount", "systemctl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)


def shown(name):
    return systemctl("show", "--value", f"--property={name}", "hydit-serve").stdout.strip()


def ask(method, path, body=None):
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)


def until(what, holds):
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if found := holds():
                return found
        except (OSError, urllib.error.URLError, json.JSONDecodeError):
            pass
        assert time.monotonic() < end, f"{what}:\n{systemctl('status', '--no-pager', '--lines=20', 'hydit-serve').stdout}"
        time.sleep(0.1)


until("it does not get ready", lambda: ask("GET", "/ready"))
first = shown("MainPID")
user = shown("User")
print(f"  systemd has started it as {user or 'a dynamic user'}, process {first}")

job = ask("POST", "/v1/jobs", {"prompt": "a cat", "size": "128x128", "steps": 40, "sampler": "ddim"})["id"]
until("the job is not begun", lambda: ask("GET", f"/v1/jobs/{job}")["status"] != "queued")
assert ask("GET", f"/v1/jobs/{job}")["status"] == "running", "the job is done too early to be killed"
killed = systemctl("kill", "--signal=KILL", "hydit-serve")
assert killed.returncode == 0, killed.stderr
until("it is not started again", lambda: shown("MainPID") not in ("0", first) and ask("GET", "/ready"))
done = until("the job is not finished", lambda: ask("GET", f"/v1/jobs/{job}")["status"] == "done")
assert done and shown("NRestarts") == "1"
print("  after kill -9 it was started again, and has finished the job")

ask("POST", "/v1/images/generations", {"prompt": "a cat", "steps": 2, "sampler": "ddim"})
stopped = systemctl("stop", "hydit-serve")
state = shown("ActiveState"), shown("Result"), shown("ExecMainStatus")
assert stopped.returncode == 0 and state == ("inactive", "success", "0"), (stopped.stderr, state)
print("  it stops in order")
