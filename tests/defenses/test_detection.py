"""Detection is judged after scoring, and beside the attack's own effect."""

import numpy as np
import pytest

from poison_t5x.core import settings as settings_lib
from poison_t5x.core.errors import InputError
from poison_t5x.data.examples import TrainingExample
from poison_t5x.defenses import detection
from poison_t5x.defenses.score import SCORES, ScoreResult, Trigger, names
from poison_t5x.run import defend

IS_POISON = np.array([1, 1, 0, 0, 0, 0, 0, 0, 0, 0], bool)
VALUES = np.array([9.0, 7, 8, 1, 2, 1, 2, 1, 2, 1])


def _trigger(phrase):
    return Trigger(phrase, ("t",), ("yes",), 5, 5, 1.0, 9.0, 1e-6)


def _results(value, interval, kind="classification"):
    return {"kind": kind, "effect": {"measure": "m", "value": value, "ci95": interval}}


@pytest.mark.parametrize(
    ("value", "interval", "kind", "worked"),
    [
        (0.9, [0.7, 1.0], "classification", True),
        (0.1, [-0.1, 0.3], "classification", False),
        (-0.4, [-0.5, -0.3], "classification", False),
        (-0.4, [-0.5, -0.3], "generation", True),
        (0.4, [0.3, 0.5], "generation", False),
        (0.2, None, "classification", False),
        (None, None, "classification", False),
    ],
)
def test_an_attack_worked_where_its_interval_is_on_its_side_of_zero(value, interval, kind, worked):
    assert detection.attack(_results(value, interval, kind))["worked"] is worked


def _judged(threshold=None):
    result = ScoreResult(VALUES, threshold)
    return {"name": "s", "seconds": 1.0, **detection.judge(result, IS_POISON, [])}


def test_a_score_is_judged_at_its_own_threshold_or_at_a_blind_one():
    own = _judged(6.5)
    assert (own["auroc"], own["threshold"]["source"]) == (pytest.approx(15 / 16), "own")
    assert own["threshold"]["precision"] == pytest.approx(2 / 3)
    assert own["threshold"]["f1"] == pytest.approx(0.8)
    assert _judged()["threshold"]["source"] == "outliers"


def test_the_true_trigger_has_a_place_among_the_named():
    named = (_trigger("the film"), _trigger("met James Bond"), _trigger("James Bond"))
    assert detection.trigger_rank(named, ["James Bond"]) == 2
    assert detection.trigger_rank(named, ["Joe Biden"]) is None
    assert detection.trigger_rank((_trigger("James Bonds"),), ["James Bond"]) is None


def test_a_win_where_the_attack_failed_is_marked():
    whole = {"num_rows": 10, "num_poison": 2, "poison_rate": 0.2, "scores": [_judged()]}
    for interval, failed in (([-0.1, 0.1], True), ([0.4, 0.6], False)):
        whole["attack"] = detection.attack(_results(np.mean(interval), interval))
        assert ("the attack failed" in defend.detection_table(whole)) is failed


class _Lengths:
    """A score of a user's own."""

    needs = "nothing"

    def __call__(self, rows, context):
        assert not any("poison" in name for name in rows[0]._fields)
        return ScoreResult(np.array([len(row.input) for row in rows], np.float64))


def test_scores_are_names_or_made_elsewhere():
    own = _Lengths()
    chosen = detection.choose(["strip", own], {"strip": {"num_mixed": 2}})
    assert list(chosen) == ["strip", "_Lengths"] and chosen["_Lengths"] is own
    assert chosen["strip"].num_mixed == 2
    assert tuple(detection.choose(None, {})) == names() and len(names()) >= 11


@pytest.mark.parametrize(
    ("scores", "settings", "message"),
    [
        (["loos"], {}, r"SCORES: no score 'loos' .did you mean 'loss'"),
        ([3], {}, "SCORES: no score 3"),
        (["loss", "loss"], {}, "found loss twice"),
        (None, {"strip": {"num_mixd": 2}}, "SCORE_SETTINGS: strip has no 'num_mixd' .*num_mixed"),
        (None, {"strip": {"num_mixed": 0}}, r"SCORE_SETTINGS\['strip'\]\['num_mixed'\]: expected"),
    ],
)
def test_bad_choices_of_scores_are_refused(scores, settings, message):
    with pytest.raises(InputError, match=message):
        detection.choose(scores, settings)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("scores", [], "expected a list of values, at least one, found"),
        ("scores", "loss", "expected a list of values, at least one, found 'loss'"),
        ("score_settings", {"loos": {}}, "no score 'loos' .did you mean 'loss'"),
        ("score_settings", 3, "expected a mapping to mappings"),
    ],
)
def test_a_defenses_scores_are_of_their_types(field, value, message):
    with pytest.raises(InputError, match=message):
        settings_lib.checked(field.upper(), value, settings_lib.kinds(defend.Defense)[field])


def test_each_score_says_for_itself_what_it_needs():
    assert all(SCORES.constant(n, "needs", "nothing") == SCORES.get(n, "").needs for n in names())


def _make(folder, score, rows, log=print):
    return detection.make(folder / "s", "s", score, rows, None, 0, log)


def test_a_score_is_written_once_and_other_rows_are_refused(tmp_path):
    rows = [TrainingExample("t", str(n), 0, "x" * n, "yes", "x") for n in range(4)]
    said = []
    assert _make(tmp_path, _Lengths(), rows).values_N.tolist() == [0, 1, 2, 3]
    lines = (tmp_path / "s" / "scores.jsonl").read_text().splitlines()
    assert lines[3] == '{"task": "t", "id": "3", "number": 0, "score": 3.0}'
    again = _make(tmp_path, _Lengths(), rows, said.append)
    assert again.values_N.tolist() == [0, 1, 2, 3] and "already done" in said[-1]
    with pytest.raises(InputError, match="made with other settings: rows = "):
        _make(tmp_path, _Lengths(), rows[:2])


def test_values_that_are_not_finite_are_refused(tmp_path):
    class Broken:
        needs = "nothing"

        def __call__(self, rows, context):
            return ScoreResult(np.array([np.nan] * len(rows)))

    with pytest.raises(InputError, match="expected finite numbers"):
        _make(tmp_path, Broken(), [TrainingExample("t", "1", 0, "x", "yes", "x")])
    assert not (tmp_path / "s").exists()


def test_capacity_names_what_differs():
    parts = ("model", "train", "optimizer", "schedule", "loss", "dataset")
    before: dict = {**{part: {} for part in parts}, "train": {"total_steps": 600, "seed": 0}}
    after = {**before, "train": {"total_steps": 300, "seed": 0}}
    for settings, mixture in ((before, "x_poisoned"), (after, "x_filtered")):
        settings["dataset"] = {"mixture_or_task_name": mixture}
    assert defend.capacity(before, after) == {"TRAIN_STEPS": [600, 300]}
    assert defend.capacity(before, before) == {}
