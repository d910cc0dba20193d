"""What a program does to the files below a folder, recorded by strace, and one of its calls made to fail."""

import os
import re
import subprocess
from dataclasses import dataclass

CALLS = ("openat,creat,write,writev,pwrite64,fsync,fdatasync,rename,renameat,renameat2,"
         "unlink,unlinkat,link,linkat,mkdir,mkdirat,rmdir")
LINE = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+|\?)(.*)")
STARTED = re.compile(r"(\d+) +(\w+)\((.*) <unfinished \.\.\.>$")
RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)$")
#: A path, and the folder that it is relative to if the call says so.
NAMED = re.compile(r'(?:<([^>]*)>, )?"([^"]*)"')
#: Calls that put data into files, or none yet.
WRITES = {"write", "writev", "pwrite64"}
SYNCS = {"fsync", "fdatasync"}


@dataclass(frozen=True)
class Operation:
    """A call that was made, without an error: what it does, its name, the paths it names, the bytes written."""

    kind: str
    call: str
    paths: tuple
    size: int = 0
    exchange: bool = False
    directory: bool = False


def record(command, folder, log, cwd):
    """Runs `command`, which must succeed; gives its operations on what lies below `folder`."""
    strace = ["strace", "-f", "-y", "-qq", "-s", "0", "-o", str(log), "-e", f"trace={CALLS}"]
    subprocess.run(strace + command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=cwd)
    operations = (operation(*call, cwd) for call in calls(log.read_text().splitlines()))
    return [found for found in operations if found and any(below(path, folder) for path in found.paths)]


def below(path, folder):
    return path == str(folder) or path.startswith(f"{folder}/")


def calls(lines):
    """Name, arguments and what was returned of each call, in the order in which they returned."""
    waiting = {}
    for line in lines:
        if started := STARTED.match(line):
            waiting[started[1]] = started[3]
            continue
        if resumed := RESUMED.match(line):
            line = f"{resumed[1]} {resumed[2]}({waiting.pop(resumed[1])}{resumed[3]}"
        if whole := LINE.match(line):
            _, call, arguments, returned, rest = whole.groups()
            if returned != "?" and int(returned) >= 0:
                yield call, arguments, int(returned), rest


def operation(call, arguments, returned, rest, cwd):
    """An operation, or nothing if the call changes nothing."""
    named = tuple(os.path.normpath(os.path.join(folder or cwd, path)) for folder, path in NAMED.findall(arguments))
    opened = re.match(r"\d+<([^>]*)>", arguments)
    if call in WRITES and opened:
        return Operation("write", call, (opened[1],), size=returned)
    if call in SYNCS and opened:
        return Operation("sync", call, (opened[1],))
    if call in {"openat", "creat"}:
        made = re.match(r"<(.*)>", rest)
        writes = "O_CREAT" in arguments or call == "creat"
        return Operation("create", call, (made[1],)) if writes and made else None
    if call.startswith("rename"):
        return Operation("rename", call, named, exchange="RENAME_EXCHANGE" in arguments)
    for begins, kind in (("unlink", "remove"), ("rmdir", "remove"), ("link", "link")):
        if call.startswith(begins):
            return Operation(kind, call, named)
    if call.startswith("mkdir"):
        return Operation("create", call, named, directory=True)
    return None


def fail(command, cwd, call, nth, error, log, path=None):
    """Runs `command`, whose `nth` `call` on `path`, or of its first thread, fails with `error`. Gives exit code,
    standard error, and whether there was such a call."""
    where = ["-f", "-P", path] if path else []
    inject = ["-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={nth}"]
    done = subprocess.run(["strace", "-qq", "-o", str(log)] + where + inject + command, cwd=cwd, timeout=300,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return done.returncode, done.stderr, "(INJECTED)" in log.read_text()
