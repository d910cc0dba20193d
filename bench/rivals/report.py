"""What run.py measured: rivals.md, rivals.csv and rivals.png."""

import csv
import importlib.metadata
import os
import shlex
import sys

from case import BUDGETS
from records import named

#: The x axes, as `Figures.speed_ups` has them.
AXES = ("speed-up by this model's FLOPs", "speed-up computed for Hunyuan-DiT's 40 blocks at 1024x1024")
PACKAGES = ("torch", "diffusers", "numpy")


def write(arguments, chosen, cases):
    arguments.out.mkdir(parents=True, exist_ok=True)
    base = arguments.out / "rivals"
    text = markdown(arguments, chosen, cases)
    base.with_suffix(".md").write_text(text, encoding="utf-8")
    table(base.with_suffix(".csv"), chosen, cases)
    plot(base.with_suffix(".png"), chosen, cases)
    print(text, end="")


def markdown(arguments, chosen, cases):
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    text = [f"    python {shlex.join([os.path.relpath(sys.argv[0]), *sys.argv[1:]])}\n", f"With {versions}.\n"]
    for case in cases:
        uncached = case.costs.own.uncached(case.arguments.steps)
        text += [
            f"## {case.model}, {case.sampler}, {case.arguments.steps} steps\n",
            f"{case.painter.transformer.depth} blocks; {len(case.pictures['judge'])} held-out pictures; an uncached "
            f"picture takes {uncached / 1e9:.1f} GFLOP. A cell has the PSNR to the uncached picture in dB, mean / what "
            "nine in ten reach, the mean SSIM, and the speed-up; it is empty where no setting was fast enough.\n",
        ]
        if case.agreement:
            found = "; ".join(f"{policy}: {value:.1f} dB" for policy, value in case.agreement.items())
            text.append(f"hydit-serve's picture beside the one drawn here, with the same refreshes: {found}.\n")
        for axis, title in enumerate(AXES):
            rows = [[f"{title}, at least", *(f"{budget:g}x" for budget in BUDGETS)]]
            rows.append(["---"] + ["--:"] * len(BUDGETS))
            rows += [[method.name, *(cell(case.results[method].best(axis, budget), axis) for budget in BUDGETS)]
                     for method in chosen]
            text += ["| " + " | ".join(row) + " |" for row in rows] + [""]
        budgets = ", ".join(f"{budget:g}x" for budget in BUDGETS)
        text += [f"| method | settings tried | setting for {budgets} by this model's FLOPs |", "| --- | --: | --- |"]
        for method in chosen:
            best = [case.results[method].best(0, budget) for budget in BUDGETS]
            settings = " · ".join(named(one.setting) if one else "none" for one in best)
            text.append(f"| {method.name} ({method.source}) | {case.results[method].tried} | {settings} |")
        text.append("")
    return "\n".join(text)


def cell(one, axis):
    return one and f"{one.psnr:.1f} / {one.p10:.1f}, {one.ssim:.3f}, {one.speed_ups[axis]:.2f}x" or ""


def table(path, chosen, cases):
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["model", "sampler", "steps", "method", "setting", "pictures", "full_steps", "speed_up",
                      "speed_up_hunyuan_dit", "psnr", "psnr_p10", "ssim", "latent_error"])
        for case in cases:
            for method in chosen:
                for one in sorted(case.results[method].judged, key=lambda one: one.speed_ups[0]):
                    out.writerow([
                        case.model, case.sampler, case.arguments.steps, method.name, named(one.setting), one.count,
                        f"{one.full:.2f}", *(f"{value:.3f}" for value in one.speed_ups), f"{one.psnr:.2f}",
                        f"{one.p10:.2f}", f"{one.ssim:.4f}", f"{one.latent_error:.5f}"])


def plot(path, chosen, cases):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, grid = pyplot.subplots(
        len(cases), len(AXES), figsize=(13, 5 * len(cases)), layout="constrained", squeeze=False, sharey="row")
    colours = pyplot.get_cmap("tab20").colors
    for case, row in zip(cases, grid):
        for axis, axes in enumerate(row):
            for number, method in enumerate(chosen):
                best = [case.results[method].best(axis, budget) for budget in BUDGETS]
                points = sorted({(one.speed_ups[axis], one.psnr) for one in best if one})
                heavy = {"linewidth": 2.5, "zorder": 3} if number == 0 else {"linewidth": 1.2}
                axes.plot(*zip(*points or [((), ())]), marker="o", markersize=4, label=method.name,
                          color=colours[number % len(colours)], **heavy)
            axes.set_title(f"{case.model}, {case.sampler}, {case.arguments.steps} steps", fontsize=10)
            axes.set_xlabel(AXES[axis], fontsize=9)
            axes.grid(alpha=0.3)
        row[0].set_ylabel("mean PSNR to the uncached picture, dB", fontsize=9)
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=110)
