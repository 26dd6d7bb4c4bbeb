#!/usr/bin/env bash
# For maintainers: writes the lock files anew from setup.py (names, versions, hashes; no hosts).
set -euo pipefail
cd "$(dirname "$0")/.."
command -v uv >/dev/null || { echo "lock.sh: needs uv (pip install uv)" >&2; exit 2; }
options=(--universal --python-version 3.11 --generate-hashes --no-annotate --no-header
  --no-emit-index-url --no-emit-find-links --quiet)
uv pip compile setup.py launch/build-requirements.in "${options[@]}" -o launch/requirements.lock
uv pip compile setup.py launch/build-requirements.in --extra test --extra ner \
  --constraint launch/requirements.lock "${options[@]}" -o launch/requirements-test.lock
uv pip compile setup.py launch/build-requirements.in --extra t5x --extra test \
  --constraint launch/requirements-test.lock "${options[@]}" -o launch/requirements-t5x.lock
for extra in tpu gpu; do
  uv pip compile setup.py launch/build-requirements.in --extra "$extra" \
    --constraint launch/requirements.lock "${options[@]}" -o "launch/requirements-$extra.lock"
done
