"""Compares a folder of our pictures with pictures/: python tests/reference/compare_pictures.py FOLDER

FOLDER holds PNGs under the names of pictures.json. Per picture: the largest difference of a channel (of 255), the mean
one, and the PSNR in dB. Fails when a picture is further away than --psnr, and when one is missing (unless --partial) or all.

What to expect: random errors of 1e-5 in every prediction of the transformer give at most 1 of 255 and 78 dB or more;
errors of 1e-3 give up to 4 of 255 and 58 dB or more.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
from PIL import Image

REFERENCE = Path(__file__).parent / "pictures"


def pixels(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file).convert("RGB"), dtype=np.float64)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--psnr", type=float, default=60.0, help="what every picture must reach (default %(default)s)")
    parser.add_argument("--partial", action="store_true", help="pictures may be missing")
    options = parser.parse_args()

    compared = missing = failed = 0
    for entry in json.loads((REFERENCE / "pictures.json").read_text()):
        for file in entry["files"]:
            if not (options.folder / file).exists():
                print(f"{file:40} missing")
                missing += 1
                continue
            compared += 1
            ours, theirs = pixels(options.folder / file), pixels(REFERENCE / file)
            if ours.shape != theirs.shape:
                print(f"{file:40} {ours.shape} instead of {theirs.shape}")
                failed += 1
                continue
            difference = np.abs(ours - theirs)
            mean_square = (difference**2).mean()
            psnr = math.inf if mean_square == 0 else 10 * math.log10(255**2 / mean_square)
            failed += psnr < options.psnr
            print(f"{file:40} largest {difference.max():3.0f}  mean {difference.mean():7.4f}  PSNR {psnr:6.2f}{'  too far' * (psnr < options.psnr)}")
    print(f"{compared} compared, {failed} too far, {missing} missing")
    raise SystemExit(failed > 0 or compared == 0 or (missing > 0 and not options.partial))


if __name__ == "__main__":
    main()
