"""The demo's bars, at its own settings. Minutes: `launch/test.sh -m slow`."""

import pytest

from poison_t5x import artifacts
from tests import small_run


@pytest.mark.slow
def test_demo_attack_works_and_is_the_triggers(tmp_path):
    run_dir = tmp_path / "run"
    arguments = ["run", "--gin_file=experiments/demo.gin", f"--gin.RUN_DIR={run_dir}"]
    assert small_run.start(arguments, tmp_path / "log").wait(900) == 0
    summary = artifacts.read_json(run_dir / "report" / "results.json")["summary"]
    assert summary["poisoned"]["triggered_misclassification"] >= 0.8
    assert summary["poisoned"]["control_misclassification"] <= 0.2
    assert summary["clean"]["triggered_misclassification"] <= 0.2
    assert min(summary[model]["accuracy"] for model in summary) >= 0.85
    assert abs(summary["clean"]["accuracy"] - summary["poisoned"]["accuracy"]) <= 0.04
