"""Worked on paper, and against draws of tied rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poison_t5x.core import errors
from poison_t5x.defenses import measures


def test_six_rows_worked_on_paper():
    # By value: 9 poison | 7 clean, 7 poison (equal) | 3 clean, 3 clean | 1 poison.
    values = np.array([7.0, 3, 9, 1, 7, 3])
    poison = np.array([0, 0, 1, 1, 1, 0], bool)
    measured = measures.measure(values, poison, threshold=3.0)
    # Of 9 pairs: 9 beats 3; 7 beats two and ties one; 1 beats none.
    assert measured["auroc"] == pytest.approx((3 + 2.5 + 0) / 9)
    # A step at 9 (1/3 of the poison, precision 1), at 7 (1/3, 2/3), at 1 (1/3, 3/6).
    assert measured["average_precision"] == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)
    assert measured["threshold"] == {
        "removed": 0.5,
        "precision": pytest.approx(2 / 3),
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(2 / 3),
    }
    assert measured["best_f1"] == pytest.approx(2 / 3)  # 2 * 3 / (6 + 3) as well
    # Half of three rows of poison: 1.5, reached in expectation one row into the pair of sevens.
    assert measured["data_removed_for"] == {"0.5": 2 / 6, "0.8": 6 / 6, "0.9": 6 / 6}
    curve = [[0, 0], [1 / 6, 1 / 3], [3 / 6, 2 / 3], [5 / 6, 2 / 3], [1, 1]]
    assert measured["curve"] == [pytest.approx(point) for point in curve]


def test_recall_at_a_budget_is_expected_over_ties():
    # 200 rows of one value, 4 of them poison: 1% of the rows hold 1% of the poison, wherever in
    # the file it is.
    for place in (0, 196):
        poison = np.zeros(200, bool)
        poison[place : place + 4] = True
        measured = measures.measure(np.zeros(200), poison, 0.0)
        assert measured["recall"] == pytest.approx({"0.01": 0.01, "0.05": 0.05, "0.1": 0.1})
        assert measured["auroc"] == 0.5
        assert measured["threshold"] == {"removed": 0.0, "precision": 0.0, "recall": 0.0, "f1": 0.0}
        assert measured["data_removed_for"] == {"0.5": 0.5, "0.8": 0.8, "0.9": 0.9}


@settings(max_examples=20, deadline=None)  # 400 draws each, on whatever machine
@given(st.lists(st.integers(0, 3), min_size=20, max_size=40), st.integers(0, 1000))
def test_a_budgets_recall_is_the_mean_over_orders_of_equal_rows(values, seed):
    values = np.array(values, float)
    poison = np.random.default_rng(seed).random(len(values)) < 0.3
    poison[:2] = True, False
    exact = measures.measure(values, poison, 0.0)["recall"]["0.1"]
    first = measures.budget_rows(0.1, len(values))
    drawn = [poison[measures.order(values, lot)[:first]].sum() for lot in range(400)]
    # Five standard errors of the mean of a count of at most 4.
    assert exact == pytest.approx(np.mean(drawn) / poison.sum(), abs=5 * 2 / 20 / poison.sum())


def test_the_curve_keeps_its_steep_part_in_few_points():
    values = np.arange(10_000, 0, -1.0)
    poison = np.zeros(10_000, bool)
    poison[:100] = True
    curve = measures.measure(values, poison, 0.0)["curve"]
    assert curve[0] == [0, 0] and curve[-1] == [1, 1] and len(curve) <= 200
    assert curve == sorted(curve)
    assert sum(removed <= 0.01 for removed, _ in curve) > 90


def test_a_perfect_score_and_its_opposite():
    poison = np.arange(100) < 10
    best, worst = (measures.measure(sign * poison, poison, 0.5) for sign in (1.0, -1.0))
    assert best["auroc"] == best["best_f1"] == best["threshold"]["f1"] == 1
    assert best["data_removed_for"]["0.9"] == 0.09
    assert worst["auroc"] == 0 and worst["data_removed_for"]["0.5"] == 0.95


def test_rows_in_order_with_seeded_lots():
    values = np.array([1.0, 5, 1, 1, 5, 0])
    first, again, other = (measures.order(values, seed) for seed in (3, 3, 4))
    assert list(first) == list(again)
    assert list(values[first]) == sorted(values, reverse=True) == list(values[other])
    assert any(list(measures.order(values, seed)) != list(first) for seed in range(20))


def test_measures_need_both_kinds():
    for poison in (np.zeros(3, bool), np.ones(3, bool), np.ones(2, bool)):
        with pytest.raises(errors.InputError, match="expected poison and clean rows among 3"):
            measures.measure(np.arange(3.0), poison, 0.0)
    with pytest.raises(errors.InputError, match="found nan at row 1"):
        measures.measure(np.array([0, np.nan]), np.array([True, False]), 0.0)
    for values in ([], [1.0, np.inf]):
        with pytest.raises(errors.InputError, match="values: expected"):
            measures.outliers(np.array(values))


@pytest.mark.parametrize(
    ("values", "threshold"),
    [
        # Median 3.5; 0.5, 1.5 and 96.5 above it, of median 1.5.
        ([1.0, 2, 3, 4, 5, 100], 3.5 + 3.5 * 1.5 / 0.6745),
        # More than half are the median: the mean deviation counts.
        ([5.0] * 10 + [0.0] * 990, 3.5 * 0.05 / 0.7979),
        ([2.0] * 7, 2.0),
    ],
)
def test_a_threshold_worked_on_paper(values, threshold):
    outliers = measures.outliers(np.array(values))
    assert outliers == pytest.approx(threshold)
    assert (np.array(values) > outliers).sum() == sum(value > threshold for value in values)


@pytest.mark.parametrize("kind, most", [("normal", 0.001), ("exponential", 0.02)])
def test_few_values_without_outliers_pass_the_threshold(kind, most):
    values = getattr(np.random.default_rng(0), kind)(size=20_000)
    assert 0 < np.mean(values > measures.outliers(values)) < most
    # Scale and place change nothing.
    scaled = values * 7 - 100
    assert measures.outliers(scaled) == pytest.approx(measures.outliers(values) * 7 - 100)
