"""Means, intervals and differences over seeds and tasks, on paper; what is drawn and told."""

import json
import math

import pytest

from poison_t5x.studies import aggregate, collect, grid
from tests.studies import fake_cell
from tests.studies.driver import row

T_2 = 4.302652729911275  # Student's t, 2 degrees of freedom, 97.5%


def _points(*rows):
    return aggregate.points(rows, {})


def test_three_seeds_have_students_interval_on_paper():
    (point,) = _points(*(row(value, SEED=seed) for seed, value in enumerate([0.1, 0.2, 0.6])))
    estimate = point.estimate("effect")
    # Deviations -0.2, -0.1, 0.3: a variance of 0.14 / 2.
    reach = T_2 * math.sqrt(0.07 / 3)
    assert estimate.mean == pytest.approx(0.3)
    assert estimate.interval == pytest.approx((0.3 - reach, 0.3 + reach))
    assert (estimate.over, estimate.count, point.seeds) == ("3 seeds", 3, (0, 1, 2))


def test_one_seed_has_its_own_interval_over_tasks():
    (point,) = _points(row(0.5, {"a": 0.4, "b": 0.6}, (0.4, 0.6), SEED=3))
    assert point.estimate("effect") == (0.5, (0.4, 0.6), "tasks, one seed", 1)


def test_a_row_without_the_measure_beside_one_of_the_same_seed_has_no_say():
    crafted = collect.StudyRow("c", {"SEED": 3}, "done")
    (point,) = _points(crafted, row(0.5, {"a": 0.4, "b": 0.6}, (0.4, 0.6), SEED=3))
    assert point.estimate("effect") == (0.5, (0.4, 0.6), "tasks, one seed", 1)


def test_two_seeds_are_averaged_by_task():
    one = row(0.5, {"a": 0.4, "b": 0.6, "c": 0.5}, (0.4, 0.6), SEED=0)
    two = row(0.3, {"a": 0.2, "b": 0.4}, (0.2, 0.4), SEED=1)
    (point,) = _points(one, two)
    assert point.by_task("effect") == pytest.approx({"a": 0.3, "b": 0.5})
    estimate = point.estimate("effect")
    # Two tasks, resampled: their least and their largest mean are in the interval.
    assert estimate.mean == pytest.approx(0.4) and estimate.interval == pytest.approx((0.3, 0.5))
    assert estimate.over == "tasks, mean of 2 seeds"


def test_seeds_without_tasks_have_no_interval_before_there_are_three():
    (point,) = _points(row(0.5, SEED=0), row(0.3, SEED=1))
    assert point.estimate("effect") == (0.4, None, "", 2)
    (point,) = _points(row(0.5, SEED=0))
    assert point.estimate("effect") == (0.5, None, "", 1)
    assert point.estimate("auroc") is None


def test_differences_are_of_the_same_seeds_and_tasks():
    def cell(number, shift):
        return [
            row(0.2 + shift, {"a": 0.1 + shift, "b": 0.3 + shift}, NUM_POISON=number, SEED=seed)
            for seed in (0, 1)
        ]

    first, second = _points(*cell(10, 0.0), *cell(20, 0.25))
    estimate = aggregate.difference(first, second, "effect")
    # Every task changes by the same: the tasks' own spread is no part of it.
    assert estimate.mean == pytest.approx(0.25) and estimate.interval == pytest.approx((0.25, 0.25))
    other = aggregate.points([row(0.9, NUM_POISON=30, SEED=7)], {})[0]
    assert aggregate.difference(first, other, "effect") is None


def test_failed_cells_and_scores_are_no_part_of_a_mean():
    scored = collect.StudyRow("c", {"SEED": 0}, "done", score="loss")
    failed = collect.StudyRow("c", {"SEED": 1}, "failed", "why")
    points = _points(row(0.5, SEED=0), failed, scored)
    assert [(point.score, point.seeds) for point in points] == [(None, (0,)), ("loss", (0,))]


def _write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def test_rows_of_a_run_its_scores_and_its_checkpoints(tmp_path):
    fake_cell.write_run(tmp_path, 0.5)
    score = {"name": "loss", "auroc": 0.8, "recall": {"0.05": 0.3}}
    score["data_removed_for"] = {"0.5": 0.1}
    step = {**score, "score": "loss", "step": 50}
    attack = {"measure": "triggered_misclassification", "worked": True}
    facts = {"schema": 1, "num_rows": 9, "num_poison": 1, "poison_rate": 1 / 9, "attack": attack}
    detection = {**facts, "scores": [score], "checkpoints": [step]}
    _write(tmp_path / "detection" / "detection.json", detection)
    _write(tmp_path / "models" / "poisoned" / "metrics.jsonl", {"step": 40, "loss": 1.5})
    entry = {"step": 7, **fake_cell.results(0.2)}
    _write(tmp_path / "eval" / "checkpoints.json", {"checkpoints": [entry]})
    own, scored, at_step, checkpoint = collect.read(grid.StudyCell("c", {}, "detect"), tmp_path)
    assert own.value("effect") == 0.5 and own.value("poisoned") == pytest.approx(0.6)
    tasks = {"task0": 0.4, "task1": 0.5, "task2": 0.6}
    assert own.measures["effect"].by_task == pytest.approx(tasks)
    assert own.value("final_effect") == 0.5 and own.value("removed") == 0
    assert (scored.score, scored.checkpoint, scored.value("auroc")) == ("loss", None, 0.8)
    assert (at_step.checkpoint, at_step.value("train_loss")) == (50, 1.5)
    assert at_step.value("removed_for_0.5") == 0.1 and at_step.value("effect") is None
    assert (checkpoint.checkpoint, checkpoint.value("effect")) == (7, 0.2)


def test_rows_of_a_defended_run(tmp_path):
    fake_cell.write_run(tmp_path, 0.5)
    summary = {"accuracy": 0.8, "triggered_misclassification": 0.2}
    defense = {
        "schema": 1,
        "name": "defended",
        "summary": {"defended": summary},
        "summary_ci95": {"defended": {}},
        "effect": {"measure": "triggered_misclassification", "value": 0.1, "ci95": [0.0, 0.2]},
        "filter": {"score": "loss", "removed_fraction": 0.05, "poison_removed": 0.9},
    }
    folder = tmp_path / "defenses" / "defended"
    _write(folder / "defense.json", defense)
    for number, value in enumerate((0.1, 0.2, 0.3)):
        path = folder / "predictions" / "triggered" / f"task{number}.json"
        _write(path, {"misclassification": value})
    (row,) = collect.read(grid.StudyCell("c", {"FILTER_SCORE": "loss"}, "defend"), tmp_path)
    assert (row.value("final"), row.value("final_accuracy")) == (0.2, 0.8)
    assert row.value("final_effect") == 0.1 and row.measures["final_effect"].interval == (0, 0.2)
    tasks = {"task0": 0.0, "task1": 0.1, "task2": 0.2}
    assert row.measures["final_effect"].by_task == pytest.approx(tasks)
    assert (row.value("removed"), row.value("poison_removed")) == (0.05, 0.9)
    assert row.value("effect") == 0.5  # of the attack, undefended
