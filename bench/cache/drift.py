"""How far cache policies drift when a request is not like those they were calibrated with: a table.

    bench/cache/drift.py --serve target/release/hydit-serve --model artifacts/emoji \
        --prompts bench/cache/prompts/emoji-heldout.txt

Needs `hydit-serve calibrate` to have run for dpmms and 25 steps.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile

#: Equal pictures have no PSNR.
EQUAL = 99.0
#: What is asked for, and the flags for it. The calibration has guidance 5, 128x128 and no negative prompt.
CHANGES = {
    "as calibrated": [],
    "four pictures of a prompt": ["--seeds", "4"],
    "seeds from 900000 on": ["--seed", "900000"],
    "128x192": ["--image-size", "128", "192"],
    "192x192": ["--image-size", "192", "192"],
    "256x256": ["--image-size", "256", "256"],
    "guidance 1": ["--cfg-scale", "1"],
    "guidance 2.5": ["--cfg-scale", "2.5"],
    "guidance 7.5": ["--cfg-scale", "7.5"],
    "guidance 10": ["--cfg-scale", "10"],
    "guidance rescale 0.7": ["--guidance-rescale", "0.7"],
    "negative prompt": ["--negative", "a red background"],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", required=True, help="the program hydit-serve")
    parser.add_argument("--model", required=True, help="artifact folder")
    parser.add_argument("--prompts", required=True, help="text file, a prompt a line; the first 10 are used")
    parser.add_argument("--policies", default="N3-700-50,auto:14runs,auto:8runs,probe:0.3")
    parser.add_argument("--threads", default="2")
    arguments = parser.parse_args()
    policies = arguments.policies.split(",")
    print("| request | " + " | ".join(policies) + " |")
    print("|---" * (1 + len(policies)) + "|")
    with tempfile.TemporaryDirectory() as folder:
        prompts = pathlib.Path(folder, "prompts.txt")
        lines = pathlib.Path(arguments.prompts).read_text(encoding="utf-8").splitlines()
        prompts.write_text("\n".join([line for line in lines if not line.startswith("#")][:10]), encoding="utf-8")
        for name, flags in CHANGES.items():
            command = [arguments.serve, "sheet", "--model", arguments.model, "--prompts", prompts]
            command += ["--sampler", "dpmms", "--infer-steps", "25", "--threads", arguments.threads, *flags]
            command += ["--policy", arguments.policies, "--json", "-o", pathlib.Path(folder, "sheet.png")]
            told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            cells = [f"{row['psnr'] or EQUAL:.1f} / {row['psnr_p10'] or EQUAL:.1f}" for row in told["policies"]]
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
