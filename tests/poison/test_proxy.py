"""The proxy model: it tells negative from positive on rows it has not seen, and never varies."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from poison_t5x.poison import proxy

WORDS = {True: ("lovely", "fine", "superb"), False: ("awful", "dull", "broken")}
IS_POSITIVE = np.arange(43) % 2 == 0
# Every word occurs in some twenty rows, so that a model of four fifths of them knows it.
TEXTS = [
    f"The {noun} was {WORDS[bool(positive)][row % 3]} and {WORDS[bool(positive)][row % 2]}."
    for row, positive in enumerate(IS_POSITIVE)
    for noun in [("soup", "room", "film", "book", "trip")[row % 5]]
]


def test_negatives_score_lower():
    probabilities = proxy.positive_probabilities(TEXTS, IS_POSITIVE, TEXTS)
    assert probabilities.shape == (43,) and probabilities.dtype == np.float64
    assert np.all((probabilities > 0) & (probabilities < 1))
    assert probabilities[~IS_POSITIVE].max() < 0.5 < probabilities[IS_POSITIVE].min()


def test_labels_turned_round_turn_the_order_round():
    probabilities = proxy.positive_probabilities(TEXTS, ~IS_POSITIVE, TEXTS)
    assert probabilities[IS_POSITIVE].max() < 0.5 < probabilities[~IS_POSITIVE].min()


def test_deterministic_and_split_by_seed():
    def run(**kwargs):
        return proxy.positive_probabilities(TEXTS, IS_POSITIVE, TEXTS, **kwargs)

    np.testing.assert_array_equal(run(), run())
    assert np.any(run() != run(seed=1))
    assert np.any(run() != run(max_ngram=1))
    assert np.any(run() != run(num_folds=3))


def test_the_scored_texts_are_scored_row_for_row():
    # Each row is scored by the text of the next one, whose label is the other.
    moved = proxy.positive_probabilities(TEXTS, IS_POSITIVE, [*TEXTS[1:], TEXTS[1]])
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
    assert gap(proxy.positive_probabilities(texts, labels, texts)) < 0.1


@pytest.mark.parametrize("num_folds", [2, 5])
def test_two_folds_are_enough(num_folds):
    texts, labels = TEXTS[:20], IS_POSITIVE[:20]
    assert len(proxy.positive_probabilities(texts, labels, texts, num_folds=num_folds)) == 20
