#!/usr/bin/env python3
"""Skip-Cache and hydit's calibrated schedules beside other caching methods, over diffusers' HunyuanDiT2DModel.

    bench/rivals/run.py --check                       # the comparison itself, in seconds
    bench/rivals/run.py --serve target/release/hydit-serve --artifacts artifacts/rivals --out demo/rivals

For every model and sampler: draws pictures without a cache; tries each method's settings on prompts to calibrate with;
takes, for each speed-up that is asked for, the setting with the best PSNR among those that reach it; and draws the
held-out prompts with these. What is measured already is read from --out.
"""

import argparse
import os
import pathlib
import sys
import warnings

import torch

os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "DIFFUSERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1",
               "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
warnings.filterwarnings("ignore", category=FutureWarning)

ROOT = pathlib.Path(__file__).resolve().parents[2]


def positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number from 1 on")
    return int(text)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="check the comparison itself, and measure nothing")
    parser.add_argument("--serve", type=pathlib.Path, help="the program hydit-serve")
    parser.add_argument("--artifacts", type=pathlib.Path, help="folder with an export of each model, by its name")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "demo/rivals", help="folder for records and reports")
    parser.add_argument("--models", nargs="+", default=["emoji", "badges"], choices=["emoji", "badges"],
                        help="of models/")
    parser.add_argument("--samplers", nargs="+", default=["dpmms"], choices=["dpmms", "ddim", "ddpm"])
    parser.add_argument("--steps", type=positive, default=25)
    parser.add_argument("--trials", type=positive, nargs=2, default=[3, 10], metavar=("ALL", "BEST"),
                        help="calibration's prompts on which all settings are tried, and the best of these again")
    parser.add_argument("--prompts", type=positive, default=50, help="held-out prompts")
    parser.add_argument("--seeds", type=positive, default=1, help="pictures of each held-out prompt")
    parser.add_argument("--methods", nargs="+", help="some of the methods, by the names of their classes")
    parser.add_argument("--threads", type=positive, default=2)
    return parser.parse_args()


def main():
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    if arguments.check:
        import check

        check.run(ROOT / "models/emoji")
        return
    import methods
    import report
    from case import Case

    names = {method.__name__: method for method in methods.ALL}
    if unknown := set(arguments.methods or ()) - names.keys():
        sys.exit(f"--methods: no method {', '.join(sorted(unknown))}: known are {', '.join(names)}")
    chosen = [method for name, method in names.items() if not arguments.methods or name in arguments.methods]
    if methods.Hydit in chosen and not (arguments.serve and arguments.artifacts):
        sys.exit("hydit's schedules come from hydit-serve: name it with --serve, and its exports with --artifacts, or "
                 "leave them out with --methods")
    cases = []
    for sampler in arguments.samplers:
        for model in arguments.models:
            case = Case(arguments, model, sampler)
            cases.append(case)
            try:
                for method in chosen:
                    case.measure(method)
            except KeyboardInterrupt:
                sys.exit(f"\ninterrupted: what was measured is in {case.records.path}, and the same command goes on")
    report.write(arguments, chosen, cases)


if __name__ == "__main__":
    main()
