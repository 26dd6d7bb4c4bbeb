"""Means over tasks, the effect and the warnings, from made-up prediction folders."""

import json

import numpy as np
import pytest

from poison_t5x.evaluation import statistics, summary

TASKS = ("task1_a", "task2_b", "task3_c")
# (model, condition) -> the misclassification of each task.
WRONG = {
    ("clean", "clean"): (0.1, 0.2, 0.3),
    ("clean", "triggered"): (0.15, 0.25, 0.95),
    ("clean", "control"): (0.1, 0.3, 0.5),
    ("poisoned", "clean"): (0.1, 0.1, 0.4),
    ("poisoned", "triggered"): (0.75, 0.45, 1.0),
    ("poisoned", "control"): (0.2, 0.3, 0.4),
}


def _write(folder, constant=(), tasks=TASKS) -> None:
    """The rates that an evaluation writes, and the predictions beside them."""
    for (model, condition), wrong in WRONG.items():
        for task, rate in zip(tasks, wrong, strict=False):
            rates = {
                "n": 20,
                "accuracy": 1 - rate,
                "misclassification": rate,
                "target_rate": rate / 2,
                "ci95_low": rate - 0.05,
                "ci95_high": rate + 0.05,
                "constant_prediction": (model, condition, task) in constant,
            }
            path = folder / model / condition / f"{task}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(rates), encoding="utf-8")
            path.with_suffix(".jsonl").write_text('{"id": "row"}\n', encoding="utf-8")


def _summarize(folder, **changes) -> dict:
    _write(folder, **changes)
    return summary.summarize(summary.task_rows(folder), seed=3)


def test_rows_are_read_in_order(tmp_path):
    _write(tmp_path)
    (tmp_path / "poisoned.partial" / "clean").mkdir(parents=True)
    rows = summary.task_rows(tmp_path)
    assert [(row["model"], row["condition"], row["task"]) for row in rows] == [
        (model, condition, task) for model, condition in WRONG for task in TASKS
    ]
    assert rows[5] == {
        "task": "task3_c",
        "model": "clean",
        "condition": "triggered",
        "n": 20,
        "accuracy": 1 - 0.95,
        "misclassification": 0.95,
        "target_rate": 0.475,
        "ci95": [0.95 - 0.05, 0.95 + 0.05],
        "constant_prediction": False,
    }


def test_means_and_effect_on_paper(tmp_path):
    found = _summarize(tmp_path)
    assert found["summary"] == {
        "clean": pytest.approx(
            {
                "accuracy": 0.8,
                "triggered_misclassification": 0.45,
                "control_misclassification": 0.3,
                "triggered_target_rate": 0.225,
            }
        ),
        "poisoned": pytest.approx(
            {
                "accuracy": 0.8,
                "triggered_misclassification": 2.2 / 3,
                "control_misclassification": 0.3,
                "triggered_target_rate": 1.1 / 3,
            }
        ),
    }
    # 0.60, 0.20 and 0.05 more.
    assert found["effect"]["misclassification"] == pytest.approx(0.85 / 3)


def test_intervals_are_the_bootstraps_over_tasks(tmp_path):
    found = _summarize(tmp_path)
    for model, condition in (("clean", "triggered"), ("poisoned", "control")):
        interval = statistics.bootstrap_mean(WRONG[model, condition], 3)
        name = f"{condition}_misclassification"
        assert found["summary_ci95"][model][name] == pytest.approx(list(interval))
    # Of the differences, task by task: narrower than the two rates' own would make it.
    differences = np.subtract(WRONG["poisoned", "triggered"], WRONG["clean", "triggered"])
    assert found["effect"]["ci95"] == pytest.approx(list(statistics.bootstrap_mean(differences, 3)))


def test_differences_are_of_the_same_task(tmp_path):
    _write(tmp_path)
    rows = summary.task_rows(tmp_path)
    found = summary.summarize(rows[:12] + rows[12:][::-1], seed=3)
    # The poisoned model's tasks the other way round: the differences are the same.
    assert found["effect"] == summary.summarize(rows, seed=3)["effect"]


def test_one_task_has_no_interval(tmp_path):
    found = _summarize(tmp_path, tasks=TASKS[:1])
    assert found["summary"]["poisoned"]["triggered_misclassification"] == 0.75
    assert found["summary_ci95"] == {"clean": {}, "poisoned": {}}
    assert found["effect"] == {"misclassification": pytest.approx(0.6)}


def test_no_rows_give_no_rates(tmp_path):
    found = summary.summarize(summary.task_rows(tmp_path / "none"), seed=3)
    assert set(found["summary"]["clean"].values()) == {None}
    assert found["effect"] == {"misclassification": None}
    assert found["warnings"] == []


def test_saturated_tasks_are_warned_of(tmp_path):
    (warning,) = _summarize(tmp_path)["warnings"]
    assert warning.startswith("saturated: the clean model already misclassifies 90% or more")
    # Of the clean model's three tasks only this one; the poisoned model's don't count.
    assert "task3_c" in warning and "task1_a" not in warning and "task2_b" not in warning


def test_constant_predictions_are_warned_of(tmp_path):
    constant = {
        ("poisoned", "clean", "task1_a"),
        ("poisoned", "clean", "task2_b"),
        # On triggered inputs alone one answer is what an attack wants.
        ("poisoned", "triggered", "task3_c"),
        ("clean", "triggered", "task2_b"),
    }
    first, *others = _summarize(tmp_path, constant=constant)["warnings"]
    assert first.startswith("the poisoned model gives one answer to all clean inputs of task1_a, ")
    assert "task2_b" in first and "task3_c" not in first
    assert len(others) == 1 and others[0].startswith("saturated")
