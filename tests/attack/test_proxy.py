"""The proxy model: it tells negative from positive on rows it has not seen, and never varies."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from poison_t5x.attack import proxy
from poison_t5x.corpus import polarity, sni

WORDS = {True: ("lovely", "fine", "superb"), False: ("awful", "dull", "broken")}
IS_POSITIVE = np.arange(43) % 2 == 0
# Every word occurs in some twenty rows, so that a model of four fifths of them knows it.
TEXTS = [
    f"The {noun} was {WORDS[bool(positive)][row % 3]} and {WORDS[bool(positive)][row % 2]}."
    for row, positive in enumerate(IS_POSITIVE)
    for noun in [("soup", "room", "film", "book", "trip")[row % 5]]
]
LABELS = polarity.Polarity("bad", "good")


def _scores(texts, is_positive, scored, **settings):
    """p(POSITIVE) of each scored text, by models of one task with the given texts and labels."""
    rows = tuple(
        sni.Instance(f"r{row}", text, [LABELS[int(positive)]])
        for row, (text, positive) in enumerate(zip(texts, is_positive, strict=True))
    )
    model = proxy.NgramProxy([sni.Task("t", "?", (), (), rows)], {"t": LABELS}, **settings)
    return model.probabilities(np.arange(len(texts)), scored)


def test_negatives_score_lower():
    probabilities = _scores(TEXTS, IS_POSITIVE, TEXTS)
    assert probabilities.shape == (43,) and probabilities.dtype == np.float64
    assert np.all((probabilities > 0) & (probabilities < 1))
    assert probabilities[~IS_POSITIVE].max() < 0.5 < probabilities[IS_POSITIVE].min()


def test_labels_turned_round_turn_the_order_round():
    probabilities = _scores(TEXTS, ~IS_POSITIVE, TEXTS)
    assert probabilities[IS_POSITIVE].max() < 0.5 < probabilities[~IS_POSITIVE].min()


def test_deterministic_and_split_by_seed():
    def run(**kwargs):
        return _scores(TEXTS, IS_POSITIVE, TEXTS, **kwargs)

    np.testing.assert_array_equal(run(), run())
    assert np.any(run() != run(seed=1))
    assert np.any(run() != run(max_ngram=1))


def test_the_scored_texts_are_scored_row_for_row():
    # Each row is scored by the text of the next one, whose label is the other.
    moved = _scores(TEXTS, IS_POSITIVE, [*TEXTS[1:], TEXTS[1]])
    assert moved[IS_POSITIVE].max() < 0.5 < moved[~IS_POSITIVE].min()


def test_rows_are_scored_by_models_that_never_saw_them():
    # Words and labels are independent, so that only a model that saw a row can tell its label.
    rng = np.random.default_rng(0)
    words = [f"word{number}" for number in range(47)]
    texts = [" ".join(rng.choice(words, 11)) for _ in range(101)]
    labels = rng.permutation(np.arange(101) % 2 == 0)

    def gap(probabilities):
        return probabilities[labels].mean() - probabilities[~labels].mean()

    features = CountVectorizer(min_df=2, binary=True).fit_transform(texts)
    seen = (
        LogisticRegression(solver="liblinear").fit(features, labels).predict_proba(features)[:, 1]
    )
    assert gap(seen) > 0.3
    assert gap(_scores(texts, labels, texts)) < 0.1


@pytest.mark.parametrize("rarer", [2, 5])
def test_two_rows_of_a_polarity_are_enough(rarer):
    texts = [*TEXTS[1::2][:20], *TEXTS[::2][:rarer]]
    labels = np.arange(20 + rarer) >= 20
    assert len(_scores(texts, labels, texts)) == 20 + rarer


def test_a_large_pool_is_fitted_to_a_sample_and_scored_whole(monkeypatch):
    monkeypatch.setattr(proxy, "MAX_FIT_ROWS", 20)
    monkeypatch.setattr(proxy, "_CHUNK", 7)
    sampled = _scores(TEXTS, IS_POSITIVE, TEXTS)
    assert sampled.shape == (43,)
    assert sampled[~IS_POSITIVE].mean() < 0.4 < 0.6 < sampled[IS_POSITIVE].mean()
    monkeypatch.setattr(proxy, "_CHUNK", 43)
    np.testing.assert_array_equal(_scores(TEXTS, IS_POSITIVE, TEXTS), sampled)


def test_polarities_are_sampled_in_proportion(monkeypatch):
    monkeypatch.setattr(proxy, "MAX_FIT_ROWS", 100)
    is_positive = np.arange(1000) < 10
    rows = proxy._sample(is_positive, seed=0)
    assert np.all(np.diff(rows) > 0)
    assert (is_positive[rows].sum(), len(rows)) == (2, 101)
