"""What a ControlNet costs a step: graphs of a plain export and of one with a net, in turns.

    python bench/control/steps.py PLAIN WITH NET [--tokens SIDE] [--rounds N]

WITH is the export with the ControlNet NET. Needs onnxruntime and numpy. It is the processor's time of one thread that counts,
so that others on the machine matter little.
"""

import argparse
import time

import numpy as np
import onnxruntime

REUSED = ["shallow-encoder", "shallow-decoder"]
REFRESH = [*REUSED, "deep-core"]


def load(folder: str, graphs: list[str]) -> dict[str, onnxruntime.InferenceSession]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    providers = ["CPUExecutionProvider"]
    return {graph: onnxruntime.InferenceSession(f"{folder}/{graph}.onnx", options, providers=providers) for graph in graphs}


def feed(session: onnxruntime.InferenceSession, side: int, control_tokens: int) -> dict[str, np.ndarray]:
    sizes = dict(batch=2, grid_height=side, grid_width=side, control_tokens=control_tokens)
    random = np.random.default_rng(0)

    def size(axis) -> int:
        return axis if isinstance(axis, int) else eval(axis, {}, sizes)  # such as 2*grid_height

    return {
        one.name: random.standard_normal([size(axis) for axis in one.shape]).astype(np.float32)
        for one in session.get_inputs()
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("plain")
    parser.add_argument("with_net")
    parser.add_argument("net")
    parser.add_argument("--tokens", type=int, default=8, help="of a side")
    parser.add_argument("--rounds", type=int, default=20)
    flags = parser.parse_args()
    own = [f"control-{flags.net}-encoder", f"control-{flags.net}-core"]
    plain, more = load(flags.plain, REFRESH), load(flags.with_net, [*REFRESH, *own])
    everything = flags.tokens**2
    variants = {
        "refresh": (plain, REFRESH, 1),
        "refresh, no net asked for": (more, REFRESH, 1),
        "refresh with the net": (more, [*REFRESH, *own], everything),
        "reused": (plain, REUSED, 1),
        "reused, no net asked for": (more, REUSED, 1),
        "reused with the net": (more, [*REUSED, own[0]], everything),
    }
    feeds = {
        name: {graph: feed(sessions[graph], flags.tokens, tokens) for graph in graphs}
        for name, (sessions, graphs, tokens) in variants.items()
    }
    seconds = {name: [] for name in variants}
    names = list(variants)
    for turn in range(flags.rounds + 1):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            sessions, graphs, _ = variants[name]
            start = time.process_time()
            for graph in graphs:
                sessions[graph].run(None, feeds[name][graph])
            if turn > 0:  # the first one warms up
                seconds[name].append(time.process_time() - start)
    for name, times in seconds.items():
        least = min(seconds[name.split()[0].rstrip(",")])
        print(f"{name:28} {1000 * min(times):8.2f} ms  {100 * (min(times) / least - 1):+6.1f} %")


if __name__ == "__main__":
    main()
