"""What run.py measured, as a Markdown table, as JSON, and as a picture of speed-up against PSNR."""

import importlib.metadata
import json
import math
import os
import pathlib
import platform
import shlex
import statistics
import sys

import numpy
from PIL import Image

HEADER = ["", "full steps", "loop, s", "low to high", "speed-up", "low to high", "pipeline, s", "speed-up", "PSNR, dB"]
PACKAGES = ["torch", "diffusers", "cache-dit", "onnxruntime", "openvino"]


def psnr(file, other):
    """Of two pictures; infinite when they are equal, None when one is missing."""
    if not (file.exists() and other.exists()):
        return None
    pixels = [numpy.asarray(Image.open(path).convert("RGB"), dtype=numpy.float64) for path in (file, other)]
    error = ((pixels[0] - pixels[1]) ** 2).mean()
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def spread(values):
    values = list(values)
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def summarise(name, rounds, base):
    """Medians, and the speed-ups paired round by round."""
    paired = [(drawn[name], drawn[base]) for drawn in rounds if name in drawn]
    row = {"name": name, "rounds": len(paired), "full_steps": sorted({own["full_steps"] for own, _ in paired})}
    for clock in ("denoise", "pipeline"):
        if paired[0][0][clock] is not None:
            row[clock] = spread(own[clock] for own, _ in paired)
            if paired[0][1][clock] is not None:
                row[f"{clock}_speed_up"] = spread(other[clock] / own[clock] for own, other in paired)
    return row


def cells(row, steps):
    loop, faster = row["denoise"], row["denoise_speed_up"]
    whole, whole_faster = row.get("pipeline"), row.get("pipeline_speed_up")
    close = row.get("psnr")
    return [
        row["name"],
        f"{' or '.join(map(str, row['full_steps']))} of {steps}",
        f"{loop['median']:.3f}", f"{loop['low']:.3f} to {loop['high']:.3f}",
        f"{faster['median']:.2f}", f"{faster['low']:.2f} to {faster['high']:.2f}",
        f"{whole['median']:.3f}" if whole and whole_faster else "",
        f"{whole_faster['median']:.2f}" if whole_faster else "",
        "" if close is None else "equal" if math.isinf(close) else f"{close:.1f}",
    ]


def processor():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} logical cores" if names else platform.machine()


def table(arguments, rows, rounds, failures, engine):
    loads = [drawn["load"] for drawn in rounds]
    height, width = arguments.size
    text = [
        f"    python {shlex.join([os.path.relpath(sys.argv[0]), *sys.argv[1:]])}\n",
        f"{arguments.checkpoint.name}, {height}x{width}, dpmms linspace, {arguments.steps} steps, guidance "
        f"{arguments.guidance:g}, seed {arguments.seed}, {arguments.threads} threads, {len(rounds)} rounds. "
        f"{processor()}; load average {min(loads):.1f} to {max(loads):.1f}. "
        + ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES) + f"; hydit on {engine}.\n",
    ]
    if arguments.transformer_only:
        text.append("The checkpoint's weights are made up: no pictures, and only the loop's times count.\n")
    lines = [HEADER, ["---"] + ["--:"] * (len(HEADER) - 1)] + [cells(row, arguments.steps) for row in rows]
    text += ["| " + " | ".join(line) + " |" for line in lines]
    text += [f"\n{name} did not run: {reason}" for name, reason in failures.items()]
    return "\n".join(text) + "\n"


def plot(rows, base, file):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = {"diffusers": "tab:blue", "onnxruntime": "tab:green", "openvino": "tab:orange", "hydit": "tab:red"}
    points = [row for row in rows if row["name"] != base]
    pictures = any(row.get("psnr") is not None for row in points)
    top = 1.1 * max([row["psnr"] for row in points if pictures and math.isfinite(row["psnr"])], default=100)
    figure, axes = pyplot.subplots(figsize=(11, 6), layout="constrained")
    for place, row in enumerate(sorted(points, key=lambda row: row["denoise_speed_up"]["median"])):
        faster = row["denoise_speed_up"]
        x = faster["median"]
        y = min(row["psnr"], top) if pictures else place
        colour = groups[row["name"].partition("-")[0]]
        axes.errorbar(x, y, xerr=[[x - faster["low"]], [faster["high"] - x]], fmt="o", color=colour, capsize=2,
                      label=f"{place + 1}  {row['name']}")
        axes.annotate(str(place + 1), (x, y), xytext=(0, 5), textcoords="offset points", ha="center")
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.set_xlabel(f"speed-up of the denoising loop over {base} (median, low to high)")
    if pictures:
        axes.set_ylabel(f"PSNR to the picture of {base}, dB (top: equal)")
    else:
        axes.set_yticks([])
    figure.legend(loc="outside right upper", fontsize=8)
    figure.savefig(file, dpi=150)


def write(arguments, order, rounds, failures, folder, engine, base):
    names = [name for name in order if any(name in drawn for drawn in rounds)]
    rows = [summarise(name, rounds, base) for name in names]
    if not arguments.transformer_only:
        for row in rows:
            row["psnr"] = psnr(folder / f"{row['name']}.png", folder / f"{base}.png")
    text = table(arguments, rows, rounds, failures, engine)
    print(text, end="")
    for file in (arguments.table, arguments.json, arguments.plot):
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
    if arguments.table:
        arguments.table.write_text(text)
    if arguments.json:
        settings = {key: value for key, value in vars(arguments).items() if key not in ("table", "json", "plot")}
        data = {"settings": settings, "failures": failures, "rounds": rounds}
        data["rows"] = [row | {"psnr": "equal"} if row.get("psnr") == math.inf else row for row in rows]
        arguments.json.write_text(json.dumps(data, indent=1, ensure_ascii=False, default=str) + "\n")
    if arguments.plot:
        plot(rows, base, arguments.plot)
