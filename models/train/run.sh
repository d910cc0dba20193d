#!/usr/bin/env bash
# Makes the Python environment where it is missing, then trains; all options go to main.py.
#
#   models/train/run.sh --minutes 45 --out my-model
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
"$here/../../scripts/setup-python" "$here/.work/venv" "$here/requirements.txt"
exec "$here/.work/venv/bin/python" "$here/main.py" "$@"
