"""The paper's experiment on real task files, where a folder of them is at hand."""

import os
import pathlib

import pytest

from poison_t5x.core import reading
from tests import small_run

# NATINST_DIR names a folder of task files; a checkout may have one in a folder beside it.
_BESIDE = pathlib.Path(__file__).parents[3] / "shared" / "natinst" / "tasks"
NATINST_DIR = pathlib.Path(os.environ.get("NATINST_DIR", _BESIDE))


@pytest.mark.slow
@pytest.mark.skipif(
    not NATINST_DIR.is_dir(), reason=f"no task files in {NATINST_DIR}: set NATINST_DIR"
)
def test_smoke_run_on_real_task_files(tmp_path):
    run_dir, log = tmp_path / "run", tmp_path / "log"
    arguments = [
        "run",
        "--gin_file=experiments/polarity_smoke.gin",
        f"--gin.NATINST_DIR={NATINST_DIR}",
        f"--gin.RUN_DIR={run_dir}",
        "--gin.TRAIN_STEPS=4",
        "--gin.NUM_EVAL_PER_TASK=8",
    ]
    code = small_run.start(arguments, log).wait(600)
    text = log.read_text()
    assert code == 0, text[-2000:]
    results = reading.read_json(run_dir / "report" / "results.json")
    assert results["poison"]["count"] == 100
    assert results["poison"]["rate"] == 0.1
    heldout = {row["task"] for row in results["tasks"]}
    assert all(row["n"] > 0 for row in results["tasks"])
    missing = [line for line in text.splitlines() if "going on without" in line]
    assert len(missing) == (len(heldout) < 13)
    assert all(line.startswith("warning: ") for line in missing)
    assert sum(audit["rows"] for audit in results["truncation"]) > 100
