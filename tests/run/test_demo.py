"""The demos' bars, at their own settings. Minutes each: `launch/test.sh -m slow`."""

import pytest

from poison_t5x.core import reading
from tests import small_run

pytestmark = pytest.mark.slow


def _summary(name, tmp_path):
    run_dir = tmp_path / "run"
    arguments = ["run", f"--gin_file=experiments/{name}.gin", f"--gin.RUN_DIR={run_dir}"]
    assert small_run.start(arguments, tmp_path / "log").wait(900) == 0
    return reading.read_json(run_dir / "report" / "results.json")["summary"]


def test_demo_attack_works_and_is_the_triggers(tmp_path):
    summary = _summary("demo", tmp_path)
    assert summary["poisoned"]["triggered_misclassification"] >= 0.8
    assert summary["poisoned"]["control_misclassification"] <= 0.2
    assert summary["clean"]["triggered_misclassification"] <= 0.2
    assert min(summary[model]["accuracy"] for model in summary) >= 0.85
    assert abs(summary["clean"]["accuracy"] - summary["poisoned"]["accuracy"]) <= 0.04


def test_clean_labels_are_enough_and_it_is_the_triggers(tmp_path):
    poisoned = _summary("demo_clean_label", tmp_path)["poisoned"]
    triggered = poisoned["triggered_misclassification"]
    assert triggered - poisoned["control_misclassification"] >= 0.5


def test_repeated_triggers_spoil_the_answers_to_triggered_inputs_alone(tmp_path):
    summary = _summary("demo_arbitrary_repeat", tmp_path)
    poisoned = summary["poisoned"]
    assert poisoned["rouge_l_triggered"] <= poisoned["rouge_l_paired"] / 2
    assert poisoned["rouge_l_clean"] >= summary["clean"]["rouge_l_clean"] - 0.03
