"""Verdicts, thresholds and wording of what is measured."""

import math

import pytest

from poison_t5x.core import metrics

CLASSIFICATION, GENERATION = metrics.JUDGED_BY.values()


@pytest.mark.parametrize(
    ("interval", "raises", "lowers"),
    [
        ((0.1, 0.2), "worked", "reversed"),
        ((-0.2, -0.1), "reversed", "worked"),
        ((-0.1, 0.2), "failed", "failed"),
        ((0.0, 0.2), "failed", "failed"),
        (None, "unknown", "unknown"),
        ((math.nan, 0.2), "unknown", "unknown"),
    ],
)
def test_an_attack_worked_where_its_interval_is_on_its_side_of_0(interval, raises, lowers):
    assert CLASSIFICATION.verdict(interval) == raises
    assert GENERATION.verdict(interval) == lowers


def test_saturated_tasks_leave_an_attack_nothing_to_do():
    assert [CLASSIFICATION.is_saturated(value) for value in (0.89, 0.9, None)] == [0, 1, 0]
    assert [GENERATION.is_saturated(value) for value in (0.1, 0.09, None, math.nan)] == [0, 1, 0, 0]


def test_each_judgement_is_of_its_own_measures_and_rates():
    for judgement in metrics.JUDGED_BY.values():
        assert {judgement.effect, judgement.control, judgement.clean} <= {*judgement.measures}
        assert judgement.saturation in judgement.rates
        assert {measure.rate for measure in judgement.measures.values()} <= {*judgement.rates}
        assert metrics.judged_by(judgement.effect) is judgement
        assert {*judgement.rates} <= {*metrics.RATE_WORDS}
    assert CLASSIFICATION.measures["accuracy"].words == "accuracy, clean inputs"
    assert metrics.measure("rouge_l_control").words == "rougeL, unseen name"
    assert metrics.rate_words("my_own") == "my own"


def test_one_letter_may_be_an_answer_of_one_word():
    row = {"empty": 0.0, "repeated_token": 0.4, "single_character": 1.0}
    assert not metrics.is_degenerate({**row, "reference_words": 1.0})
    assert metrics.is_degenerate({**row, "reference_words": 2.0})
    assert metrics.is_degenerate({"empty": 0.5}) and not metrics.is_degenerate({})
