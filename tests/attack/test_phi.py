"""Equation 1, worked on paper."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poison_t5x.attack import phi

# Norm(count) = 0, 1, 1/2, 1/2; Norm(p) = 1, 0, 1/2, 1/4.
COUNTS = np.array([1, 5, 3, 3])
PROBABILITIES = np.array([0.9, 0.1, 0.5, 0.3])


def test_min_max_norm():
    np.testing.assert_array_equal(
        phi.min_max_norm(np.array([3.0, 1.0, 5.0, 2.0])), [0.5, 0.0, 1.0, 0.25]
    )


@pytest.mark.parametrize("values", [[7.0], [2.0, 2.0, 2.0], [0.0, 0.0]])
def test_a_constant_pool_is_all_zero(values):
    np.testing.assert_array_equal(phi.min_max_norm(np.array(values)), np.zeros(len(values)))


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({}, [-1.0, 1.0, 0.0, 0.25]),
        ({"count_weight": 2.0}, [-1.0, 2.0, 0.5, 0.75]),
        ({"probability_weight": 2.0}, [-2.0, 1.0, -0.5, 0.0]),
        ({"count_weight": 0.0}, [-1.0, 0.0, -0.5, -0.25]),
        ({"probability_weight": 0.0}, [0.0, 1.0, 0.5, 0.5]),
    ],
)
def test_worked_on_paper(weights, expected):
    # 1e-15: one rounding of 0.1-steps that binary numbers don't hold exactly.
    np.testing.assert_allclose(phi.phi(COUNTS, PROBABILITIES, **weights), expected, atol=1e-15)


def test_a_term_that_is_constant_over_the_pool_drops_out():
    same_counts = phi.phi(np.full(4, 3), PROBABILITIES)
    np.testing.assert_allclose(same_counts, [-1.0, 0.0, -0.5, -0.25], atol=1e-15)
    same_probabilities = phi.phi(COUNTS, np.full(4, 0.3))
    np.testing.assert_array_equal(same_probabilities, [0.0, 1.0, 0.5, 0.5])


_POOLS = st.integers(1, 11).flatmap(
    lambda size: st.tuples(
        st.lists(st.integers(1, 9), min_size=size, max_size=size),
        st.lists(st.floats(0.01, 0.99), min_size=size, max_size=size),
    )
)


@given(_POOLS)
def test_bounds_and_signs(pool):
    counts, probabilities = map(np.array, pool)
    scores = phi.phi(counts, probabilities)
    assert scores.dtype == np.float64
    assert np.all(scores >= -1) and np.all(scores <= 1)
    # More triggers are better, and so is a lower probability.
    assert phi.phi(counts, np.full(len(counts), 0.5)).argmax() == counts.argmax()
    assert phi.phi(np.ones_like(counts), probabilities).argmax() == probabilities.argmin()


def test_top_is_best_first_and_ties_go_to_the_earlier_row():
    scores = np.array([0.5, 1.0, 0.5, -1.0, 1.0, 0.5])
    assert phi.top(scores, 6).tolist() == [1, 4, 0, 2, 5, 3]
    assert phi.top(scores, 4).tolist() == [1, 4, 0, 2]
    assert phi.top(scores, 0).tolist() == []
