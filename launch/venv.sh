#!/usr/bin/env bash
# Makes .venv from a lock file, or leaves it alone when it is already made from that one.
# usage: launch/venv.sh LOCK_FILE
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
lock="$root/launch/$1"
stamp="$root/.venv/made-from-$(basename "$1")-$(sha256sum "$lock" | cut -c1-16)"
if [ ! -e "$stamp" ]; then
  python=${PYTHON:-python3}
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "launch: Python 3.11 or newer is needed; set PYTHON=/path/to/python" >&2; exit 2; }
  echo "launch: installing into $root/.venv (a few minutes, once)"
  [ -x "$root/.venv/bin/python" ] || "$python" -m venv "$root/.venv"
  "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --require-hashes -r "$lock"
  "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --no-deps --no-build-isolation -e "$root"
  touch "$stamp"
fi
