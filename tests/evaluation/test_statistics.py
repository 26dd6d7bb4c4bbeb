"""Intervals against figures known by hand."""

import math

import numpy as np
import pytest

from poison_t5x.evaluation import statistics

Z = 1.959964


@pytest.mark.parametrize(
    ("successes", "trials", "expected"),
    [
        # With no success the interval is [0, z^2 / (n + z^2)]; the reverse with no failure.
        (0, 10, (0.0, Z**2 / (10 + Z**2))),
        (10, 10, (10 / (10 + Z**2), 1.0)),
        (0, 1, (0.0, Z**2 / (1 + Z**2))),
        # The formula at a half: 1/2 -+ z / (2 sqrt(n + z^2)).
        (50, 100, (0.5 - Z / 2 / math.sqrt(100 + Z**2), 0.5 + Z / 2 / math.sqrt(100 + Z**2))),
        # Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20 and 1 of 29.
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
        (0, 0, (0.0, 1.0)),
    ],
)
def test_wilson(successes, trials, expected):
    found = statistics.wilson(successes, trials)
    assert [type(bound) for bound in found] == [float, float]
    # The table's four decimals.
    assert found == pytest.approx(expected, abs=5e-5)


def test_bootstrap_follows_from_values_and_seed():
    values = [0.1, 0.4, 0.5, 0.9, 0.3]
    first = statistics.bootstrap_mean(values, 3)
    assert statistics.bootstrap_mean(values, 3) == first
    assert statistics.bootstrap_mean(np.array(values), 3) == first
    assert statistics.bootstrap_mean(values, 4) != first
    low, high = first
    assert [type(low), type(high)] == [float, float]
    assert 0.1 < low < np.mean(values) < high < 0.9


def test_bootstrap_is_a_percentile_interval_of_the_mean():
    values = np.random.default_rng(0).normal(5.0, 2.0, 400)
    low, high = statistics.bootstrap_mean(values.tolist())
    # By the central limit: 1.96 standard errors of 0.1 on each side.
    error = values.std() / 20
    assert (low, high) == pytest.approx(
        (values.mean() - Z * error, values.mean() + Z * error), abs=0.01
    )


@pytest.mark.parametrize("values", [[], [0.7]])
def test_bootstrap_needs_two_tasks(values):
    assert statistics.bootstrap_mean(values) is None


def test_bootstrap_of_equal_values_is_that_value():
    assert statistics.bootstrap_mean([0.25, 0.25, 0.25]) == (0.25, 0.25)
