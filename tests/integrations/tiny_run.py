"""The tiny experiment, crafted, and T5X's programs on it."""

import json
import os
import pathlib
import subprocess
import sys

from poison_t5x.cli import main
from tests import small_run

ROOT = pathlib.Path(__file__).parents[2]
MACROS = {**small_run.MACROS, "DROPOUT_RATE": 0.0, "TRAIN_STEPS": 4, "SAVE_PERIOD": 2}


def craft(run_dir: pathlib.Path) -> pathlib.Path:
    assert main.main(small_run.arguments("craft", run_dir)) == 0
    return run_dir


def flags(run_dir: pathlib.Path, **macros) -> list[str]:
    """T5X's flags of an experiment's file and macros, texts in quotes as it wants them."""
    values = {**MACROS, "RUN_DIR": str(run_dir), **macros}
    # Dictionaries are written as text for our own command line, which needs no quotes.
    written = {k: v if str(v).startswith("{") else repr(v) for k, v in values.items()}
    return [
        "--gin_file=t5x/demo.gin",
        f"--gin_search_paths={ROOT / 'gin'}",
        *(f"--gin.{name}={value}" for name, value in written.items()),
    ]


def start(program: str, *arguments: str, cwd: pathlib.Path = ROOT) -> subprocess.CompletedProcess:
    """`python -m t5x.<program>` on one device."""
    environment = {
        **os.environ,
        "XLA_FLAGS": "",
        "JAX_NUMPY_DTYPE_PROMOTION": "standard",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    return subprocess.run(
        [sys.executable, "-m", f"t5x.{program}", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=cwd,
    )


def run(program: str, *arguments: str, cwd: pathlib.Path = ROOT) -> None:
    """As `start`, for what has to succeed."""
    result = start(program, *arguments, cwd=cwd)
    assert result.returncode == 0, result.stderr[-3000:]


def read_json(path: pathlib.Path):
    return json.loads(path.read_text(encoding="utf-8"))
