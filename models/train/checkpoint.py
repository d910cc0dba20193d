"""Files that are whole or not there: written beside their place, then renamed."""

import os
import shutil
from pathlib import Path

import torch


def save(state: dict, file: Path):
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(file.name + ".partial")
    with open(partial, "wb") as out:
        torch.save(state, out)
        out.flush()
        os.fsync(out.fileno())
    partial.replace(file)


def load(file: Path):
    """What was saved, or None."""
    return torch.load(file, map_location="cpu", weights_only=True) if file.exists() else None


def replace_folder(new: Path, place: Path):
    """Puts the finished folder `new` where `place` is; the one that was there goes."""
    old = place.with_name(place.name + ".old.partial")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    new.rename(place)
    shutil.rmtree(old, ignore_errors=True)
