"""Worked on paper, and against exact tails."""

import math

import numpy as np
import pytest
from scipy import special

from poison_t5x.defenses import trigger_tests
from poison_t5x.defenses.trigger_tests import Evidence


def _evidence(task, logit, hits, num_answers=2):
    """Rows of one log-odds, all of them hits where `hits` is a number."""
    hits = np.array([1] * hits if isinstance(hits, int) else hits, bool)
    logits = np.full(len(hits), float(logit))
    return Evidence(task, "yes", num_answers, np.arange(len(hits)), logits, hits)


@pytest.mark.parametrize(
    ("hits", "rows", "mean", "log_tail"),
    [
        (3, 3, 0.5, math.log(1 / 8)),  # three of three at a half
        (1, 2, 0.5, 0),  # no more than expected is no evidence
        (5000, 5000, 0.1, 5000 * math.log(0.1)),  # too small for a float
    ],
)
def test_a_tail_worked_on_paper(hits, rows, mean, log_tail):
    tail = trigger_tests.log_tail(np.array(float(hits)), np.array(float(rows)), np.array(mean))
    assert tail == pytest.approx(log_tail)


def test_the_tail_is_no_smaller_than_the_exact_one_of_unequal_chances():
    rng = np.random.default_rng(0)
    for _ in range(20):
        chances = rng.random(7)
        exact = np.ones(1)  # Distribution of the number of hits, row by row.
        for p in chances:
            exact = np.convolve(exact, [1 - p, p])
        for hits in range(math.ceil(chances.sum()), 8):
            tail = trigger_tests.log_tail(np.array(float(hits)), np.array(7.0), chances.mean())
            assert tail >= math.log(exact[hits:].sum()) - 1e-9


def test_one_task_pays_for_its_answers():
    evidence = {"a": [_evidence("a", 0, 10, num_answers=3)]}
    verdict = trigger_tests.strongest(evidence, 0.0)
    assert verdict.log_p == pytest.approx(math.log(3 * 0.5**10))
    assert special.ndtr(-verdict.z) == pytest.approx(3 * 0.5**10)


def test_of_the_tasks_the_best_case_is_made_and_paid_for():
    good, other = _evidence("a", -2, 10), _evidence("b", 0, [0, 1, 0, 1])
    verdict = trigger_tests.strongest({"a": [good], "b": [other]}, 0.0)
    assert [evidence.task for evidence in verdict.case] == ["a"]
    chance = special.expit(-2.0)
    # Two answers, and one of two tasks out of one size of two.
    assert verdict.log_p == pytest.approx(math.log(2 * 2 * 2) + 10 * math.log(chance))
    both = trigger_tests.strongest({"a": [good], "b": [_evidence("b", -2, 10)]}, 0)
    assert len(both.case) == 2
    assert both.log_p == pytest.approx(math.log(2 * 2 * 2) + 20 * math.log(chance))


def test_an_honest_pull_makes_hits_less_surprising():
    evidence = {"a": [_evidence("a", -2, 20)]}
    z = [trigger_tests.strongest(evidence, pull).z for pull in (0.0, 1.0, 2.0, 4.0, 9.0)]
    assert z == sorted(z, reverse=True) and z[0] > 8 and z[-1] < 0.01


def test_rows_without_the_answer_speak_against_a_phrase():
    few = trigger_tests.strongest({"a": [_evidence("a", 0, [1] + [0] * 19)]}, 2.0)
    assert few.z < -5
    assert trigger_tests.strongest({}, 0.0) is None


def test_the_least_pull_is_a_lower_limit():
    case = [_evidence("a", -1, 30)]
    least = trigger_tests.least_pull(case)
    # All of 30 at this limit: 5 in 100.
    assert special.expit(-1 + least) ** 30 == pytest.approx(0.05, rel=1e-3)
    assert trigger_tests.least_pull([_evidence("a", -1, 8)]) < least
