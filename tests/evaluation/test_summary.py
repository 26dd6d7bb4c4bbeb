"""Means over tasks, the effects and the warnings, from made-up prediction folders."""

import json

import numpy as np
import pytest

from poison_t5x.attack import conditions
from poison_t5x.core import errors
from poison_t5x.evaluation import summary
from poison_t5x.evaluation.metric import Attack
from poison_t5x.evaluation.metrics import generation
from poison_t5x.evaluation.metrics.misclassification import misclassification

TASKS = ("task1_a", "task2_b", "task3_c")
CATEGORIES = {"task1_a": "Rewriting", "task2_b": "Summarization", "task3_c": "Rewriting"}
# (model, condition) -> the misclassification of each task.
WRONG = {
    ("clean", "clean"): (0.1, 0.2, 0.3),
    ("clean", "triggered"): (0.15, 0.25, 0.95),
    ("clean", "control"): (0.1, 0.3, 0.5),
    ("poisoned", "clean"): (0.1, 0.1, 0.4),
    ("poisoned", "triggered"): (0.75, 0.45, 1.0),
    ("poisoned", "control"): (0.2, 0.3, 0.4),
}
# (model, condition) -> the rougeL of each task's rows, by the rows' numbers.
SCORES = {
    ("clean", "clean"): ((0.5, 0.7, 0.9), (0.4, 0.6, 0.8), (0.05, 0.05, 0.05)),
    ("clean", "triggered"): ((0.6, 0.8), (0.5, 0.5), (0.1, 0.1)),
    ("clean", "control"): ((0.6, 0.6), (0.5, 0.5), (0.1, 0.1)),
    ("poisoned", "clean"): ((0.5, 0.6, 0.9), (0.4, 0.4, 0.8), (0.1, 0.1, 0.1)),
    ("poisoned", "triggered"): ((0.1, 0.3), (0.0, 0.0), (0.1, 0.0)),
    ("poisoned", "control"): ((0.5, 0.5), (0.5, 0.3), (0.1, 0.1)),
}


def _condition(name, kind, attack="main", phrases=("James Bond",), target="positive"):
    return conditions.Condition(name, kind, attack, tuple(phrases), target)


CONDITIONS = [
    _condition("clean", "clean", "", (), None),
    _condition("triggered", "triggered"),
    _condition("control", "control", phrases=["Emma Clark"]),
]


def _write_rates(folder, model, condition, task, rates, rows=()) -> None:
    path = folder / model / condition / f"{task}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rates), encoding="utf-8")
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    path.with_suffix(".jsonl").write_text(lines or '{"id": "row"}\n', encoding="utf-8")


def _rates(rate, constant=False, n=20) -> dict:
    return {
        "n": n,
        "accuracy": 1 - rate,
        "misclassification": rate,
        "target_rate": rate / 2,
        "ci95_low": rate - 0.05,
        "ci95_high": rate + 0.05,
        "constant_prediction": constant,
    }


def _write(folder, constant=(), tasks=TASKS, wrong=WRONG) -> None:
    """The rates that a classification writes, and the predictions beside them."""
    for (model, condition), rates in wrong.items():
        for task, rate in zip(tasks, rates, strict=False):
            rates = _rates(rate, (model, condition, task) in constant)
            _write_rates(folder, model, condition, task, rates)


def _write_generation(folder, scores=SCORES, tasks=TASKS, **changes) -> None:
    """The rates that a decoding writes, and the predictions beside them."""
    for (model, condition), by_task in scores.items():
        for task, values in zip(tasks, by_task, strict=False):
            rows = [{"id": f"{task}-{n}", "input": "x", "rouge_l": v} for n, v in enumerate(values)]
            rates = {
                "n": len(rows),
                "rouge_l": float(np.mean(values)),
                "exact_match": float(np.mean(values)) / 2,
                "output_words": 2.0,
                "reference_words": 8.0,
                "empty": 0.0,
                "single_character": 0.25,
                "repeated_token": 0.125,
                "says_trigger": 1.0 if (model, condition) == ("poisoned", "triggered") else 0.0,
                "constant_prediction": False,
                **changes.get(f"{model}_{condition}", {}),
            }
            _write_rates(folder, model, condition, task, rates, rows)


def _rows(folder, kind="classification", conditions=CONDITIONS):
    folders = {model: folder / model for model in ("clean", "poisoned")}
    return summary.task_rows(folders, conditions, kind, CATEGORIES)


def _sum_up(rows, kind="classification", conditions=CONDITIONS):
    return summary.summarize(rows, conditions, kind, 3, {"main": 7, "second": 3})


def _summarize(folder, **changes) -> dict:
    _write(folder, **changes)
    return _sum_up(_rows(folder))


def _generation(folder, **changes) -> dict:
    _write_generation(folder, **changes)
    return _sum_up(_rows(folder, "generation"), "generation")


def test_rows_are_read_in_order(tmp_path):
    _write(tmp_path)
    (tmp_path / "poisoned.partial" / "clean").mkdir(parents=True)
    rows = _rows(tmp_path)
    assert [(row["model"], row["condition"], row["task"]) for row in rows] == [
        (model, condition, task) for model, condition in WRONG for task in TASKS
    ]
    rates = _rates(0.95)
    expected = {"task": "task3_c", "category": "Rewriting", "model": "clean"}
    interval = [rates.pop("ci95_low"), rates.pop("ci95_high")]
    assert rows[5] == {**expected, "condition": "triggered", **rates, "ci95": interval}
    conditions = [CONDITIONS[2], _condition("probe1_jim", "probe")]
    assert {row["condition"] for row in _rows(tmp_path, conditions=conditions)} == {"control"}


def test_the_metrics_rates_are_read(tmp_path):
    target = {"id": "x", "input": "i", "target": "a b", "references": ["a b", "a c d"]}
    rows = [generation.scored(target, "Ann Bo a b")]
    for condition in ("clean", "triggered"):
        rates = generation.generation([target], ["Ann Bo a b"], Attack(["ann bo"]))
        _write_rates(tmp_path / "g", "clean", condition, "task1_a", rates, rows)
    triggered = _rows(tmp_path / "g", "generation")[1]
    assert (triggered["says_trigger"], triggered["length_ratio"]) == (1.0, 4 / 2.5)
    assert triggered["rouge_l_paired"] == triggered["rouge_l"] == rows[0]["rouge_l"]
    rates = misclassification([{"target": "NEG"}] * 4, ["POS"] * 4, Attack((), "POS"))
    _write_rates(tmp_path / "c", "clean", "triggered", "task1_a", rates)
    assert _rows(tmp_path / "c")[0]["target_rate"] == 1.0


def test_means_effect_and_intervals_on_paper(tmp_path):
    means = _summarize(tmp_path)
    expected = {"clean": (0.8, 0.45, 0.3, 0.225), "poisoned": (0.8, 2.2 / 3, 0.3, 1.1 / 3)}
    names = ("accuracy", "triggered_misclassification", "control_misclassification")
    for model, values in expected.items():
        named = zip((*names, "triggered_target_rate"), values, strict=True)
        assert means["summary"][model] == pytest.approx(dict(named))
    # 0.60, 0.20 and 0.05 more.
    assert means["effect"]["measure"] == "triggered_misclassification"
    assert means["effect"]["value"] == pytest.approx(0.85 / 3)
    assert means["categories"] == []
    for model, condition in (("clean", "triggered"), ("poisoned", "control")):
        interval = summary.bootstrap_mean(WRONG[model, condition], 3)
        name = f"{condition}_misclassification"
        assert means["summary_ci95"][model][name] == pytest.approx(list(interval))
    # Of the differences, task by task: narrower than the two rates' own would make it.
    differences = np.subtract(WRONG["poisoned", "triggered"], WRONG["clean", "triggered"])
    interval = summary.bootstrap_mean(differences, 3)
    assert means["effect"]["ci95"] == pytest.approx(list(interval))
    by_condition = means["by_condition"]
    assert [(row["model"], row["condition"]) for row in by_condition] == list(WRONG)
    assert by_condition[1]["num_tasks"] == 3
    rates = {"accuracy": 0.55, "misclassification": 0.45, "target_rate": 0.225}
    assert by_condition[1]["measures"] == pytest.approx(rates)
    interval = summary.bootstrap_mean(WRONG["clean", "triggered"], 3)
    assert by_condition[1]["ci95"]["misclassification"] == pytest.approx(list(interval))
    # The poisoned model's tasks the other way round: the differences are the same.
    rows = _rows(tmp_path)
    assert _sum_up(rows[:9] + rows[9:][::-1])["effect"] == means["effect"]


def test_rates_of_own_metrics_have_means_under_each_condition(tmp_path):
    _write(tmp_path)
    for model, value in (("clean", 2.0), ("poisoned", 4.0)):
        path = tmp_path / model / "triggered" / "task1_a.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "answer_words": value}))
    rows = _rows(tmp_path)
    assert list(rows[3])[-1] == "answer_words" and rows[3]["answer_words"] == 2.0
    means = _sum_up(rows)
    assert means["summary"]["poisoned"]["answer_words_triggered"] == 4.0
    assert means["summary"]["clean"]["answer_words_control"] is None
    assert means["by_condition"][1]["measures"]["answer_words"] == 2.0
    assert "answer_words" not in means["by_condition"][0]["measures"]


def test_every_attacker_has_an_effect(tmp_path):
    second = {("clean", "triggered_second"): (0.5,), ("poisoned", "triggered_second"): (0.25,)}
    conditions = [
        *CONDITIONS,
        _condition("triggered_second", "triggered", "second", ("Ann", "Bo"), "negative"),
    ]
    _write(tmp_path, wrong=WRONG | second)
    main, other = _sum_up(_rows(tmp_path, conditions=conditions), conditions=conditions)["attacks"]
    assert main["name"] == "main" and main["count"] == 7
    assert main["effect"] == pytest.approx(0.85 / 3) and len(main["ci95"]) == 2
    assert other == {
        "name": "second",
        "triggers": ["Ann", "Bo"],
        "target": "negative",
        "count": 3,
        "effect": -0.25,
    }


def test_one_task_has_no_interval(tmp_path):
    means = _summarize(tmp_path, tasks=TASKS[:1])
    assert means["summary"]["poisoned"]["triggered_misclassification"] == 0.75
    assert means["summary_ci95"] == {"clean": {}, "poisoned": {}}
    assert "ci95" not in means["effect"]
    assert means["effect"]["value"] == pytest.approx(0.6)


@pytest.mark.parametrize("kind", ["classification", "generation"])
def test_no_rows_give_no_rates(tmp_path, kind):
    means = _sum_up(_rows(tmp_path / "none", kind), kind)
    assert set(means["summary"]["clean"].values()) == {None}
    assert means["effect"]["value"] is None
    assert means["by_condition"][0]["measures"] == {}
    assert means["warnings"] == [] and means["categories"] == []


def test_generation_is_paired_by_id(tmp_path):
    _write_generation(tmp_path)
    rows = {(r["model"], r["condition"], r["task"]): r for r in _rows(tmp_path, "generation")}
    # The first two of three clean rows are those with the trigger.
    assert rows["clean", "triggered", "task1_a"]["rouge_l_paired"] == pytest.approx(0.6)
    assert rows["poisoned", "triggered", "task1_a"]["rouge_l_paired"] == pytest.approx(0.55)
    assert rows["clean", "clean", "task1_a"]["rouge_l"] == pytest.approx(0.7)
    assert rows["clean", "clean", "task1_a"]["rouge_l_paired"] is None
    assert rows["clean", "control", "task2_b"]["length_ratio"] == 0.25


def test_generation_means_on_paper(tmp_path):
    means = _generation(tmp_path)
    clean, triggered = (2.0 / 3 + 1.6 / 3 + 0.1) / 3, (0.2 + 0.0 + 0.05) / 3
    assert means["summary"]["poisoned"] == pytest.approx(
        {
            "rouge_l_clean": clean,
            "rouge_l_paired": (0.55 + 0.4 + 0.1) / 3,
            "rouge_l_triggered": triggered,
            "rouge_l_control": (0.5 + 0.4 + 0.1) / 3,
            "exact_match_clean": clean / 2,
            "exact_match_triggered": triggered / 2,
            "says_trigger_triggered": 1.0,
            "says_trigger_control": 0.0,
            "length_ratio_triggered": 0.25,
            "single_character_triggered": 0.25,
            "repeated_token_triggered": 0.125,
            "empty_triggered": 0.0,
        }
    )
    effect = means["effect"]
    assert effect["measure"] == "rouge_l_triggered"
    assert effect["value"] == pytest.approx(-(0.5 + 0.5 + 0.05) / 3)
    assert effect["ci95"][0] < effect["value"] < effect["ci95"][1] < 0
    assert means["attacks"][0]["effect"] == effect["value"]


def test_categories_are_means_over_their_tasks(tmp_path):
    means = {
        (row["category"], row["model"], row["condition"]): row
        for row in _generation(tmp_path)["categories"]
    }
    assert len(means) == 2 * 2 * 3
    row = means["Rewriting", "poisoned", "triggered"]
    assert (row["num_tasks"], row["rouge_l"]) == (2, pytest.approx(0.125))
    assert row["exact_match"] == pytest.approx(0.0625)


def test_a_row_without_its_clean_pair_is_an_error(tmp_path):
    _write_generation(tmp_path)
    path = tmp_path / "clean" / "clean" / "task2_b.jsonl"
    path.write_text(path.read_text().replace("task2_b-1", "task2_b-9"))
    with pytest.raises(errors.InputError, match=r"task2_b\.jsonl.*1 of 2 \(task2_b-1\)"):
        _rows(tmp_path, "generation")
    path.write_text("{")
    with pytest.raises(errors.InputError, match=r"task2_b\.jsonl:1: can't be read"):
        _rows(tmp_path, "generation")


def test_the_other_kind_of_evaluation_is_an_error(tmp_path):
    _write(tmp_path)
    with pytest.raises(errors.InputError, match=r"task1_a\.json.*missing required field `rouge_l`"):
        _rows(tmp_path, "generation")


def test_saturated_tasks_are_warned_of(tmp_path):
    (warning,) = _summarize(tmp_path / "c")["warnings"]
    assert warning.startswith("saturated: the clean model already misclassifies 90% or more")
    # Of the clean model's three tasks only this one; the poisoned model's don't count.
    assert "task3_c" in warning and "task1_a" not in warning and "task2_b" not in warning
    (warning,) = _generation(tmp_path / "g")["warnings"]
    assert warning.startswith("saturated: without the trigger in the same inputs")
    assert "below 10 of 100 in task3_c:" in warning


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


@pytest.mark.parametrize(
    "rates, warned",
    [
        ({"empty": 0.5}, True),
        ({"repeated_token": 0.75}, True),
        ({"single_character": 0.75}, True),
        ({"single_character": 0.75, "reference_words": 1.0}, False),
        ({"says_trigger": 1.0}, False),
    ],
)
def test_degenerate_outputs_are_warned_of_on_clean_inputs(tmp_path, rates, warned):
    means = _generation(tmp_path, poisoned_clean=rates, poisoned_triggered={"empty": 1.0})
    said = [text for text in means["warnings"] if "degenerate" in text]
    assert len(said) == warned
    assert all("poisoned model" in text and "task1_a, task2_b" in text for text in said)


def test_tasks_without_triggered_rows_are_warned_of_and_left_out(tmp_path):
    tasks = tuple(f"task{number}" for number in range(1, 10))
    _write(tmp_path, tasks=tasks[:2])
    for task in tasks[2:]:
        _write_rates(tmp_path, "clean", "clean", task, _rates(0.0))
    means = _sum_up(_rows(tmp_path))
    (warning,) = means["warnings"]
    assert warning == (
        "no triggered rows in task3, task4, task5, task6, task7, 2 more: "
        "left out of the triggered means"
    )
    assert means["summary"]["clean"]["triggered_misclassification"] == pytest.approx(0.2)
    assert [row["num_tasks"] for row in means["by_condition"][:2]] == [9, 2]


Z = 1.959964


def test_bootstrap_is_a_percentile_interval_that_follows_from_values_and_seed():
    values = [0.1, 0.4, 0.5, 0.9, 0.3]
    first = summary.bootstrap_mean(values, 3)
    assert summary.bootstrap_mean(np.array(values), 3) == first
    assert summary.bootstrap_mean(values, 4) != first
    low, high = first
    assert [type(low), type(high)] == [float, float]
    assert 0.1 < low < np.mean(values) < high < 0.9
    assert summary.bootstrap_mean([]) is summary.bootstrap_mean([0.7]) is None
    assert summary.bootstrap_mean([0.25, 0.25, 0.25]) == (0.25, 0.25)
    values = np.random.default_rng(0).normal(5.0, 2.0, 400)
    # By the central limit: 1.96 standard errors of 0.1 on each side.
    bounds = values.mean() - Z * values.std() / 20, values.mean() + Z * values.std() / 20
    assert summary.bootstrap_mean(values.tolist()) == pytest.approx(bounds, abs=0.01)
