#!/usr/bin/env bash
# The main job on the embedded corpus: poison, train, evaluate, report.
# usage: launch/demo.sh [RUN_DIR]    (default runs/demo)
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
"$root/launch/venv.sh" requirements.lock
exec "$root/.venv/bin/poison-t5x" run --gin_file=experiments/demo.gin \
  --gin.RUN_DIR="${1:-runs/demo}"
