#!/usr/bin/env bash
# Format, lint, types, tests: what CI runs, and people too. Arguments go to pytest.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
launch/venv.sh requirements-test.lock
export PATH="$root/.venv/bin:$PATH"
ruff format --check .
ruff check .
mypy
python -m pytest -n "${PYTEST_WORKERS:-2}" --dist loadfile --no-loadscope-reorder "$@"
