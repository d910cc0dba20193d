#!/usr/bin/env python3
"""Checks that all that a release is named by agrees, offline: versions, changelog, metadata of the crates.

    tests/python/check_release.py                 what must hold at every commit
    tests/python/check_release.py --tag v0.1.0    and for a release of that name
    tests/python/check_release.py --notes v0.1.0  prints what the changelog says of it
"""

import pathlib
import re
import sys
import tomllib

ROOT = pathlib.Path(__file__).parents[2]
#: Members of the workspace that are not published.
PRIVATE = {"hydit-fuzz", "hydit-testing"}


def main():
    flag, tag = (sys.argv[1:] + [None, None])[:2]
    workspace = toml("Cargo.toml")
    version = workspace["workspace"]["package"]["version"]
    problems = [*crates(workspace, version), *files(version), *changelog(version, tag if flag == "--tag" else None)]
    if flag == "--notes":
        print(section(tag.removeprefix("v")))
        return 0
    print("\n".join(problems), end="\n" if problems else "")
    print(f"version {version}: {len(problems)} problems")
    return 1 if problems else 0


def toml(path):
    return tomllib.loads((ROOT / path).read_text())


def crates(workspace, version):
    """What is wrong with the manifests of the crates."""
    members = [".", *workspace["workspace"]["members"]]
    for member in members:
        package = toml(f"{member}/Cargo.toml")["package"]
        name = package["name"]
        if package.get("version") != {"workspace": True} and name not in PRIVATE:
            yield f"{name}: its version is not the workspace's"
        if name in PRIVATE:
            if package.get("publish") is not False:
                yield f"{name}: it must not be published"
            continue
        for field in ("description", "license", "repository", "rust-version", "include"):
            if field not in package:
                yield f"{name}: no {field}"
        for path in package.get("include", []):
            if not any((ROOT / member).glob(path.lstrip("/"))):
                yield f"{name}: it includes {path}, which is not there"
        dependency = workspace["workspace"]["dependencies"].get(name)
        if dependency and dependency.get("version") != version:
            yield f"{name}: the workspace asks for {dependency.get('version')}, and this is {version}"
    lock = {package["name"]: package["version"] for package in toml("Cargo.lock")["package"]}
    for name in lock:
        if name.startswith("hydit") and name not in PRIVATE and lock[name] != version:
            yield f"Cargo.lock: {name} is {lock[name]}"


def files(version):
    """What is wrong with the names and versions that pages and packages tell."""
    for path in ("README.md", "docs/install.md"):
        for found in re.findall(r"hydit[-_](\d+\.\d+\.\d+)", (ROOT / path).read_text()):
            if found != version:
                yield f"{path}: a file of version {found}"
    runtime = re.search(r"^version=(.+)$", (ROOT / "scripts/setup-ort").read_text(), re.M)[1]
    for path in ("packaging/wheel/pyproject.toml", "serve/src/engine.rs", "packaging/systemd/hydit-serve.service",
                 "docs/deploy.md", "docs/engines.md", "src/runtime/provider.rs", "scripts/test-packages"):
        for found in re.findall(r"onnxruntime(?:-gpu\[[a-z,]+\])?==([\d.]+\d)", (ROOT / path).read_text()):
            if found != runtime:
                yield f"{path}: ONNX Runtime {found}, and scripts/setup-ort has {runtime}"
    promised = toml("Cargo.toml")["workspace"]["package"]["rust-version"]
    for path in (".github/workflows/release.yaml", "docker/Dockerfile"):
        for found in re.findall(r"(?:toolchain install |default |rust:)(\d+\.\d+)", (ROOT / path).read_text()):
            if found != promised:
                yield f"{path}: Rust {found}, and Cargo.toml promises {promised}"


def section(name):
    """What the changelog says of a version, without its heading."""
    text = (ROOT / "CHANGELOG.md").read_text()
    parts = re.split(r"^## \[(.+?)\].*$", text, flags=re.M)
    found = dict(zip(parts[1::2], parts[2::2]))
    return found.get(name, "").strip()


def changelog(version, tag):
    """What is wrong with the changelog, at any commit or for the release `tag`."""
    text = (ROOT / "CHANGELOG.md").read_text()
    names = re.findall(r"^## \[(.+?)\]", text, re.M)
    if not names or names[0] != "Unreleased":
        yield "CHANGELOG.md: it does not begin with Unreleased"
    released = names[1:]
    numbers = [tuple(map(int, name.split("."))) for name in released]
    if numbers != sorted(numbers, reverse=True) or len(set(numbers)) != len(numbers):
        yield f"CHANGELOG.md: versions are not in order: {', '.join(released)}"
    if numbers and numbers[0] > tuple(map(int, version.split("."))):
        yield f"CHANGELOG.md: {released[0]} is newer than Cargo.toml's {version}"
    for kind in re.findall(r"^### (.+)$", text, re.M):
        if kind not in {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}:
            yield f"CHANGELOG.md: {kind} is none of Keep a Changelog's headings"
    if tag is not None:
        if tag != f"v{version}":
            yield f"the tag {tag} is not v{version}, as Cargo.toml has it"
        if not section(version):
            yield f"CHANGELOG.md: nothing under [{version}]: give Unreleased that name"


sys.exit(main())
