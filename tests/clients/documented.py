"""Runs the commands of docs/clients.md, as they are but for addresses and key, against a server: URL KEY ADDRESS, that of
gRPC. Each leaves a picture or an answer with one. `--node FOLDER` has OpenAI's JavaScript client; a block that imports a
package which this Python lacks is told, and with `--all` it is an error."""

import argparse
import ast
import base64
import importlib.util
import json
import pathlib
import re
import subprocess
import sys
import tempfile

PAGE = pathlib.Path(__file__).parents[2] / "docs/clients.md"
BLOCK = re.compile(r"^```(bash|python|js)\n(.*?)^```$", re.M | re.S)


def heading(text, at):
    """The last heading before `at`."""
    return re.findall(r"^#+ (.*)$", text[:at], re.M)[-1]


def lacks(code):
    """The packages that a block of Python imports and that are not there."""
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.split(".")[0])
    return sorted(name for name in names if importlib.util.find_spec(name) is None)


def picture(place):
    """The first bytes of the picture that a command has left."""
    if (file := place / "cat.png").exists():
        return file.read_bytes()[:8]
    answer = json.loads((place / "answer.json").read_text())
    data = answer.get("images") or [one["b64_json"] for one in answer.get("data", [])]
    data = data or next(output["data"] for output in answer["outputs"] if output["name"] == "image")
    return base64.b64decode(data[0])[:8]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("key")
    parser.add_argument("grpc")
    parser.add_argument("--node", type=pathlib.Path)
    parser.add_argument("--all", action="store_true")
    given = parser.parse_args()
    address = given.url.removeprefix("http://")
    host, port = address.split(":")
    text = PAGE.read_text()
    blocks = list(BLOCK.finditer(text))
    assert len(blocks) >= 10, f"{PAGE}: {len(blocks)} commands"
    left_out = []
    for block in blocks:
        kind, code = block.groups()
        name = heading(text, block.start())
        code = code.replace("127.0.0.1:8001", given.grpc).replace("127.0.0.1:8080", address).replace("KEY", given.key)
        code = code.replace('host="127.0.0.1", port=8080', f'host="{host}", port={port}')
        missing = lacks(code) if kind == "python" else ["--node"] if kind == "js" and not given.node else []
        if missing:
            left_out.append(f"{name} ({', '.join(missing)})")
            continue
        with tempfile.TemporaryDirectory(dir=given.node if kind == "js" else None) as place:
            place = pathlib.Path(place)
            command = {"bash": ["bash", "-euo", "pipefail", "-c", code], "python": [sys.executable, "-c", code],
                       "js": ["node", "--input-type=module", "-e", code]}[kind]
            run = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=120)
            assert run.returncode == 0, f"{name}:\n{code}\n{run.stdout}{run.stderr}"
            assert picture(place) == b"\x89PNG\r\n\x1a\n", name
        print(f"documented: {name} ({kind})")
    assert not (given.all and left_out), left_out
    print(f"commands of the page passed: {len(blocks) - len(left_out)} of {len(blocks)}"
          + (f"; left out: {'; '.join(left_out)}" if left_out else ""))


main()
