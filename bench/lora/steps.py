"""What slots for LoRAs cost a step: graphs of a plain export and of one with slots, in turns.

    python bench/lora/steps.py PLAIN SLOTS [--tokens SIDE] [--rounds N] [--ranks 0 4 16 64]

Needs onnxruntime and numpy. It is the processor's time of one thread that counts, so that others on the machine matter
little.
"""

import argparse
import time

import numpy as np
import onnxruntime

GRAPHS = ["shallow-encoder", "deep-core", "shallow-decoder"]


def load(folder: str) -> dict[str, onnxruntime.InferenceSession]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    providers = ["CPUExecutionProvider"]
    return {graph: onnxruntime.InferenceSession(f"{folder}/{graph}.onnx", options, providers=providers) for graph in GRAPHS}


def feed(session: onnxruntime.InferenceSession, side: int, rank: int) -> dict[str, np.ndarray]:
    sizes = dict(batch=2, grid_height=side, grid_width=side, rank=rank)
    random = np.random.default_rng(0)

    def size(axis) -> int:
        return axis if isinstance(axis, int) else eval(axis, {}, sizes)  # such as 2*grid_height

    def values(name: str, shape: list[int]) -> np.ndarray:
        scale = 0.02 if name.startswith("lora_") else 1.0
        return (scale * random.standard_normal(shape)).astype(np.float32)

    return {one.name: values(one.name, [size(axis) for axis in one.shape]) for one in session.get_inputs()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("plain")
    parser.add_argument("slots")
    parser.add_argument("--tokens", type=int, default=8, help="of a side")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--ranks", type=int, nargs="+", default=[0, 4, 16, 64])
    flags = parser.parse_args()
    plain, slots = load(flags.plain), load(flags.slots)
    variants = {"plain": (plain, 0), **{f"rank {rank}": (slots, rank) for rank in flags.ranks}}
    feeds = {name: {graph: feed(graphs[graph], flags.tokens, rank) for graph in GRAPHS} for name, (graphs, rank) in variants.items()}
    seconds = {name: [] for name in variants}
    names = list(variants)
    for turn in range(flags.rounds + 1):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            start = time.process_time()
            for graph in GRAPHS:
                variants[name][0][graph].run(None, feeds[name][graph])
            if turn > 0:  # the first one warms up
                seconds[name].append(time.process_time() - start)
    least = min(seconds["plain"])
    for name, samples in seconds.items():
        print(f"{name:8} {1e3 * min(samples):8.1f} ms  {100 * (min(samples) / least - 1):+6.1f} %  median {1e3 * np.median(samples):8.1f} ms")


if __name__ == "__main__":
    main()
