"""Gives the wheel the tag of what its programs need: the machine, and the newest symbol of glibc that they name."""

import pathlib
import platform
import re
import subprocess

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

#: What a manylinux wheel may link, as far as Rust programs do.
ALLOWED = {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "libdl.so.2", "libpthread.so.0", "librt.so.1"}
LOADER = re.compile(r"ld-linux(-x86-64|-aarch64)\.so\.\d")


class PlatformTag(BuildHookInterface):
    def initialize(self, version, build_data):
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{tag(pathlib.Path(self.root, 'bin').iterdir())}"


def tag(programs):
    newest = (2, 17)
    for program in programs:
        read = ["readelf", "--wide", "--dynamic", "--version-info", str(program)]
        said = subprocess.run(read, check=True, capture_output=True, text=True).stdout
        linked = set(re.findall(r"\(NEEDED\).*\[(.+)\]", said))
        foreign = {name for name in linked - ALLOWED if not LOADER.fullmatch(name)}
        if foreign:
            raise SystemExit(f"{program} links {', '.join(sorted(foreign))}, which not every Linux has")
        found = re.findall(r"Name: GLIBC_(\d+)\.(\d+)", said)
        newest = max([newest, *((int(major), int(minor)) for major, minor in found)])
    return f"manylinux_{newest[0]}_{newest[1]}_{platform.machine()}"
