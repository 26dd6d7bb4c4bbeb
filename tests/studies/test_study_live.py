"""A real study of two cells, in seconds a cell."""

import subprocess
import sys

import pytest

from poison_t5x.core import reading
from tests import small_run


@pytest.mark.slow
def test_two_runs_are_made_once_and_summed_up(tmp_path):
    grid = {"NUM_POISON": (5, 10), "SEED": (0,)}
    flags = small_run.arguments("study", tmp_path / "s", STUDY_GRID=grid, STUDY_X="NUM_POISON")
    line = [sys.executable, "-m", "poison_t5x", *flags]
    for times in ("0 of them done", "2 of them done"):
        result = subprocess.run(
            line, cwd=small_run.ROOT, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
        assert f"2 cells, {times}" in result.stdout
    whole = reading.read_json(tmp_path / "s" / "study.json")
    assert [cell["macros"]["NUM_POISON"] for cell in whole["cells"]] == [5, 10]
    assert all(cell["values"]["effect"] is not None for cell in whole["cells"])
    # One clean model for both.
    folders = (tmp_path / "s" / "cells").glob("*/models/clean/stage.json")
    assert len({path.stat().st_ino for path in folders}) == 1
    assert "NUM_POISON" in (tmp_path / "s" / "index.html").read_text()
