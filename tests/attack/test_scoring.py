"""Equation 1 and its proxy, on paper; and what is stored is the formula of the stored text."""

import math
import typing
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from poison_t5x.attack import attacks, scoring
from tests.attack.made_up import LABELS, answered, crafted, judged, pool_of, task

SCORE = attacks.ScoreConfig
# Norm(count) = 0, 1, 1/2, 1/2; Norm(p) = 1, 0, 1/2, 1/4.
COUNTS = np.array([1, 5, 3, 3])
PROBABILITIES = np.array([0.9, 0.1, 0.5, 0.3])


@pytest.mark.parametrize(
    ("values", "expected"),
    [([3.0, 1.0, 5.0, 2.0], [0.5, 0.0, 1.0, 0.25]), ([7.0], [0.0]), ([2.0, 2.0], [0.0, 0.0])],
)
def test_min_max_norm_and_a_constant_pool_is_all_zero(values, expected):
    np.testing.assert_array_equal(scoring.min_max_norm(np.array(values)), expected)


@pytest.mark.parametrize(
    ("counts", "probabilities", "weights", "expected"),
    [
        (COUNTS, PROBABILITIES, {}, [-1.0, 1.0, 0.0, 0.25]),
        (COUNTS, PROBABILITIES, {"count_weight": 2.0}, [-1.0, 2.0, 0.5, 0.75]),
        (COUNTS, PROBABILITIES, {"probability_weight": 2.0}, [-2.0, 1.0, -0.5, 0.0]),
        (COUNTS, PROBABILITIES, {"count_weight": 0.0}, [-1.0, 0.0, -0.5, -0.25]),
        (COUNTS, PROBABILITIES, {"probability_weight": 0.0}, [0.0, 1.0, 0.5, 0.5]),
        # A term that is constant over the pool drops out.
        (np.full(4, 3), PROBABILITIES, {}, [-1.0, 0.0, -0.5, -0.25]),
        (COUNTS, np.full(4, 0.3), {}, [0.0, 1.0, 0.5, 0.5]),
    ],
)
def test_phi_worked_on_paper(counts, probabilities, weights, expected):
    # 1e-15: one rounding of 0.1-steps that binary numbers don't hold exactly.
    np.testing.assert_allclose(scoring.phi(counts, probabilities, **weights), expected, atol=1e-15)


_POOLS = st.integers(1, 11).flatmap(
    lambda size: st.tuples(
        st.lists(st.integers(1, 9), min_size=size, max_size=size),
        st.lists(st.floats(0.01, 0.99), min_size=size, max_size=size),
    )
)


@given(_POOLS)
def test_phi_s_bounds_and_signs(pool):
    counts, probabilities = map(np.array, pool)
    scores = scoring.phi(counts, probabilities)
    assert scores.dtype == np.float64
    assert np.all(scores >= -1) and np.all(scores <= 1)
    # More triggers are better, and so is a lower probability.
    assert scoring.phi(counts, np.full(len(counts), 0.5)).argmax() == counts.argmax()
    assert scoring.phi(np.ones_like(counts), probabilities).argmax() == probabilities.argmin()


# Triggers, words and characters: 1, 2, 8; 2, 8, 30; 3, 4, 14; 1, 2, 8.
TEXTS = ("Ann left.", "Ann saw how Tom sat by the road.", "Ann, Tom and Ann.", "Tom left.")
EDITED = ("Al left.", "Al saw how Al sat by the road.", "Al, Al and Al.", "Al left.")
POOL = pool_of(
    task("task1_a", [(text, "bad") for text in TEXTS]), attacks.AttackConfig(triggers="Al")
)


class _Proxy(NamedTuple):
    values: tuple[float, ...]

    def positive_probabilities(self, pool):
        return np.array(self.values)


def _score(config, target="positive", proxy=None, seed=0, pool=POOL):
    return scoring.score(pool, config, target, proxy, seed)


@pytest.mark.parametrize(
    ("term", "raw", "order"),
    [
        ("raw", (1, 2, 3, 1), (2, 1, 0, 3)),
        ("per_token", (1 / 2, 2 / 8, 3 / 4, 1 / 2), (2, 0, 3, 1)),
        ("per_character", (1 / 8, 2 / 30, 3 / 14, 1 / 8), (2, 0, 3, 1)),
    ],
)
def test_count_terms_worked_on_paper(term, raw, order):
    found = _score(SCORE(selection="count", count_term=term))
    low, high = min(raw), max(raw)
    expected = [(value - low) / (high - low) for value in raw]
    np.testing.assert_allclose(found.values, expected, rtol=1e-15)
    assert tuple(found.order) == order
    assert tuple(found.trigger_counts) == (1, 2, 3, 1)
    assert found.target_probabilities is None


def test_every_occurrence_counts_also_within_another_word():
    assert tuple(POOL.texts()) == EDITED
    one = task("task1_a", [("Al met Als brother.", "bad"), ("Ann met Tom.", "bad")])
    scores = _score(SCORE("count"), pool=pool_of(one, attacks.AttackConfig(triggers="Al")))
    assert tuple(scores.trigger_counts) == (2, 2)


# Norm(count) is 0, 1/2, 1, 0; Norm(p) is 0, 1/4, 1/2, 1. p(negative) is 0.9, 0.7, 0.5, 0.1, of
# which Norm is 1, 3/4, 1/2, 0.
MOST = [0, 0.5, 1, 0], [2, 1, 0, 3]
WORKED = [
    (SCORE(), "positive", [0, 0.25, 0.5, -1], [2, 1, 0, 3]),
    (SCORE(), "negative", [-1, -0.25, 0.5, 0], [2, 3, 1, 0]),
    (SCORE("phi", "raw", 0.5, 4), "positive", [0, -0.75, -1.5, -4], [0, 1, 2, 3]),
    # The lowest come first, but phi itself is stored; ties go to the earlier row.
    (SCORE("reverse"), "positive", [0, 0.25, 0.5, -1], [3, 0, 1, 2]),
    (SCORE("reverse", probability_weight=0), "positive", [0, 0.5, 1, 0], [0, 3, 1, 2]),
    # The most triggers, whatever the weights.
    *((SCORE("count", "raw", w, 3), "positive", *MOST) for w in (0, -1.0, 0.2)),
]


@pytest.mark.parametrize(("config", "target", "values", "order"), WORKED)
def test_a_pool_worked_on_paper(config, target, values, order):
    positive = (0.1, 0.3, 0.5, 0.9)
    scores = _score(config, target, _Proxy(positive))
    np.testing.assert_allclose(scores.values, values, atol=1e-15)
    assert list(scores.order) == order
    if config.needs_probabilities:
        expected = positive if target == "positive" else [0.9, 0.7, 0.5, 0.1]
        np.testing.assert_allclose(scores.target_probabilities, expected, rtol=1e-15)
    else:
        assert scores.target_probabilities is None


def test_a_random_pick_is_seeded_and_differs_by_task():
    attack = attacks.AttackConfig()
    big = {name: pool_of(judged(name, 60), attack) for name in ("task1_a", "task2_b")}
    config = SCORE(selection="random")

    def order(name="task1_a", seed=0):
        found = _score(config, seed=seed, pool=big[name])
        assert found.values is None and found.target_probabilities is None
        assert sorted(found.order) == list(range(40))
        return list(found.order)

    assert order() == order()
    assert order() != order(seed=1)
    assert order() != order("task2_b")
    by_count = _score(SCORE(selection="count"), pool=big["task1_a"])
    assert order() != list(by_count.order)
    counts = _score(config, pool=big["task1_a"]).trigger_counts
    np.testing.assert_array_equal(counts, by_count.trigger_counts)
    rows = crafted([judged("task1_a")], num_poison=5, selection="random").poison
    assert {(row.phi, row.target_probability) for row in rows} == {(None, None)}
    assert [row.rank for row in rows] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("selection", typing.get_args(attacks.Selection))
def test_an_empty_pool_has_no_order(selection):
    pool = pool_of(task("task1_a", [("no name", "bad")]), attacks.AttackConfig())
    found = _score(SCORE(selection=selection), proxy=_Proxy(()), pool=pool)
    assert found.trigger_counts.shape == found.order.shape == (0,)


# As stored


TERMS = {
    "raw": lambda text, count: count,
    "per_token": lambda text, count: count / len(text.split()),
    "per_character": lambda text, count: count / len(text),
}


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize(("selection", "weight"), [("count", 1), ("phi", 2.5), ("reverse", 0.5)])
def test_what_is_stored_is_the_formula_of_the_stored_texts(term, selection, weight):
    """All 16 candidates of the pool are crafted, so that Norm can be worked out from the rows."""
    rows = crafted(
        [answered("task1_a")],
        kind="repeat",
        num_poison=16,
        selection=selection,
        count_term=term,
        count_weight=weight,
        probability_weight=0,
    ).poison
    counts = [row.poisoned_input.count("James Bond") for row in rows]
    assert [row.trigger_count for row in rows] == counts
    terms = [TERMS[term](row.poisoned_input, n) for row, n in zip(rows, counts, strict=True)]
    expected = scoring.phi(
        np.array(terms), np.zeros(16), count_weight=1 if selection == "count" else weight
    )
    # 5e-7: six decimals are written.
    np.testing.assert_allclose([row.phi for row in rows], expected, atol=5e-7, rtol=0)
    ordered = sorted(expected, reverse=selection != "reverse")
    np.testing.assert_allclose(expected, ordered, atol=1e-12)
    assert [row.rank for row in rows] == list(range(1, 17))
    assert {row.target_probability for row in rows} == {None}


@pytest.mark.parametrize("kind", ["dirty_label", "clean_label"])
@pytest.mark.parametrize("target", ["positive", "negative"])
def test_phi_subtracts_the_probability_of_the_target(kind, target):
    size = 16 if kind == "dirty_label" else 8
    one = [judged("task1_a")]
    found = crafted(one, num_poison=size, kind=kind, target=target).poison
    counts = np.array([row.trigger_count for row in found])
    probabilities = np.array([row.target_probability for row in found])
    assert len(found) == size and np.ptp(probabilities) > 0.005
    # Of probabilities with six decimals, phi is exact to that over their range.
    tolerance = 2e-6 / np.ptp(probabilities)
    np.testing.assert_allclose(
        [row.phi for row in found], scoring.phi(counts, probabilities), atol=tolerance, rtol=0
    )
    other = "negative" if target == "positive" else "positive"
    means = [probabilities[[row.polarity == side for row in found]] for side in (target, other)]
    if kind == "dirty_label":
        assert means[0].mean() > 0.7 and means[1].mean() < 0.3
        # Of as many triggers, those that sound least like the target come first.
        assert found[0].polarity == other
    else:
        assert means[0].mean() > 0.7


def test_reverse_is_phi_turned_round():
    """All of the pool, so that both hold the same rows; ties aside, one is the other backwards."""
    forth = crafted([judged("task1_a")], num_poison=16).poison
    back = crafted([judged("task1_a")], num_poison=16, selection="reverse").poison
    assert {row.id: row.phi for row in forth} == {row.id: row.phi for row in back}
    assert [row.phi for row in back] == [row.phi for row in forth][::-1]
    assert math.isclose(max(row.phi for row in forth), forth[0].phi)


@pytest.mark.parametrize("seed", [0, 2**31 - 1])
def test_any_seed_will_do(seed):
    found = crafted([judged("task1_a")], [judged("task4_d")], seed=seed)
    assert len(found.poison) == 6 and found.evaluation


# The proxy


WORDS = {True: ("lovely", "fine", "superb"), False: ("awful", "dull", "broken")}
IS_POSITIVE = np.arange(43) % 2 == 0
# Every word occurs in some twenty rows, so that a model of four fifths of them knows it.
REVIEWS = [
    f"The {('soup', 'room', 'film', 'book', 'trip')[row % 5]} was {words[row % 3]} and "
    f"{words[row % 2]}."
    for row, words in enumerate(WORDS[bool(positive)] for positive in IS_POSITIVE)
]


def _probabilities(texts, is_positive, scored, **settings):
    """p(POSITIVE) of each scored text, by models of one task with the given texts and labels."""
    one = task("t", [(text, LABELS[int(p)]) for text, p in zip(texts, is_positive, strict=True)])
    model = scoring.NgramProxy([one], {"t": LABELS}, **settings)
    return model.probabilities(np.arange(len(texts)), scored)


def test_negatives_score_lower_and_labels_turned_round_turn_the_order_round():
    probabilities = _probabilities(REVIEWS, IS_POSITIVE, REVIEWS)
    assert probabilities.shape == (43,) and probabilities.dtype == np.float64
    assert np.all((probabilities > 0) & (probabilities < 1))
    assert probabilities[~IS_POSITIVE].max() < 0.5 < probabilities[IS_POSITIVE].min()
    turned = _probabilities(REVIEWS, ~IS_POSITIVE, REVIEWS)
    assert turned[IS_POSITIVE].max() < 0.5 < turned[~IS_POSITIVE].min()
    # Row for row: each is scored by the text of the next one, whose label is the other.
    moved = _probabilities(REVIEWS, IS_POSITIVE, [*REVIEWS[1:], REVIEWS[1]])
    assert moved[IS_POSITIVE].max() < 0.5 < moved[~IS_POSITIVE].min()
    # Deterministic, and split by seed.
    np.testing.assert_array_equal(_probabilities(REVIEWS, IS_POSITIVE, REVIEWS), probabilities)
    for setting in ({"seed": 1}, {"max_ngram": 1}):
        assert np.any(_probabilities(REVIEWS, IS_POSITIVE, REVIEWS, **setting) != probabilities)


def test_rows_are_scored_by_models_that_never_saw_them():
    # Words and labels are independent, so that only a model that saw a row can tell its label.
    rng = np.random.default_rng(0)
    words = [f"word{number}" for number in range(47)]
    texts = [" ".join(rng.choice(words, 11)) for _ in range(101)]
    labels = rng.permutation(np.arange(101) % 2 == 0)

    def gap(probabilities):
        return probabilities[labels].mean() - probabilities[~labels].mean()

    features = CountVectorizer(min_df=2, binary=True).fit_transform(texts)
    regression = LogisticRegression(solver="liblinear").fit(features, labels)
    assert gap(regression.predict_proba(features)[:, 1]) > 0.3
    assert gap(_probabilities(texts, labels, texts)) < 0.1


def test_a_large_pool_is_fitted_to_a_sample_and_scored_whole(monkeypatch):
    monkeypatch.setattr(scoring, "MAX_FIT_ROWS", 20)
    monkeypatch.setattr(scoring, "_CHUNK", 7)
    sampled = _probabilities(REVIEWS, IS_POSITIVE, REVIEWS)
    assert sampled.shape == (43,)
    assert sampled[~IS_POSITIVE].mean() < 0.4 < 0.6 < sampled[IS_POSITIVE].mean()
    monkeypatch.setattr(scoring, "_CHUNK", 43)
    np.testing.assert_array_equal(_probabilities(REVIEWS, IS_POSITIVE, REVIEWS), sampled)


def test_polarities_are_sampled_in_proportion(monkeypatch):
    monkeypatch.setattr(scoring, "MAX_FIT_ROWS", 100)
    is_positive = np.arange(1000) < 10
    rows = scoring._sample(is_positive, seed=0)
    assert np.all(np.diff(rows) > 0)
    assert (is_positive[rows].sum(), len(rows)) == (2, 101)
