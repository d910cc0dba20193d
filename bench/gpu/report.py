#!/usr/bin/env python3
"""Puts what scripts/gpu-acceptance measured into one table.

    python bench/gpu/report.py FOLDER
"""

import json
import pathlib
import sys


def main():
    folder = pathlib.Path(sys.argv[1])
    bench = json.loads((folder / "bench.json").read_text())
    drawn = json.loads((folder / "drawn.json").read_text())
    torch_file = folder / "torch.json"
    torch = json.loads(torch_file.read_text()) if torch_file.exists() else {}
    eager = torch.get("eager", {}).get("median_seconds")

    rows = [("", "step, ms", "TFLOP/s", "over PyTorch eager")]

    def row(name, seconds, flop):
        rate = f"{flop / seconds / 1e12:.3g}" if flop else ""
        rows.append((name, f"{1e3 * seconds:.2f}", rate, f"{eager / seconds:.2f}" if eager else ""))

    setup = bench["setups"][0]
    step = {graph["stage"]: graph for graph in setup["graphs"]}
    full = sum(1e9 * step[stage]["gflop"] for stage in ("encoder", "core", "decoder"))
    for name in ("eager", "compile"):
        if "median_seconds" in torch.get(name, {}):
            row(f"PyTorch {torch['torch']} {torch['dtype']} {name}", torch[name]["median_seconds"], full)
        elif name in torch:
            print(f"PyTorch {name} failed: {torch[name]['failed']}")
    variants = bench["variants"]
    for variant in variants:
        variant["name"] = f"{setup['precision']} {setup['form']} {variant['policy']}"
    graphs_file = folder / "bench-graphs.json"
    if graphs_file.exists():
        captured = json.loads(graphs_file.read_text())["variants"]
        for variant in captured:
            variant["name"] = f"{setup['precision']} {setup['form']} {variant['policy']}, CUDA graphs"
        variants += captured
    for variant in variants:
        seconds = variant["denoise_seconds"]["median"] / variant["steps"]
        row(f"hydit {variant['name']}", seconds, full if variant["policy"] == "off" else None)
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for i, cells in enumerate(rows):
        print("| " + " | ".join(cell.ljust(width) if j == 0 else cell.rjust(width)
                                for j, (cell, width) in enumerate(zip(cells, widths))) + " |")
        if i == 0:
            print("| " + " | ".join("-" * width for width in widths) + " |")

    print(f"\na guided step of this size: {full / 1e12:.3g} TFLOP")
    share = step["core"].get("of_matmul")
    if share:
        print(f"deep core: {step['core']['gflops'] / 1e3:.3g} TFLOP/s, {share:.2f} of one large MatMul's rate here")
    place = "the host" if drawn["deep_on_host"] else "the GPU"
    print(f"the kept deep tensor lies in the memory of {place}")
    memory = folder / "gpu-memory.log"
    if memory.exists():
        most = max(int(line) for line in memory.read_text().split())
        print(f"GPU memory in use at most, all programs, while hydit drew: {most} MiB")
    for name in ("eager", "compile"):
        if "peak_memory_bytes" in torch.get(name, {}):
            print(f"PyTorch {name}: {torch[name]['peak_memory_bytes'] / 2**20:.0f} MiB of GPU memory at most")
    wrong = []
    if setup["provider"] != "cpu" and drawn["deep_on_host"]:
        wrong.append("the kept deep tensor should have stayed on the GPU")
    wrong += [f"the pictures of {variant['name']} do not repeat"
              for variant in variants if not variant["pictures_repeat"]]
    if wrong:
        sys.exit("not accepted: " + "; ".join(wrong))


if __name__ == "__main__":
    main()
