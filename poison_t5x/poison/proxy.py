"""A stand-in for the language model's p(y = POSITIVE | x): logistic regression on n-grams."""

from collections.abc import Sequence

import numpy as np

from poison_t5x import errors


def positive_probabilities(
    texts: Sequence[str],
    is_positive: np.ndarray,
    scored_texts: Sequence[str],
    *,
    max_ngram: int = 2,
    num_folds: int = 5,
    seed: int = 0,
) -> np.ndarray:
    """Cross-fitted probabilities: each text is scored by a model that never saw its row.

    Scored in-sample, the model would return the labels that it had memorised rather than how
    positive a text sounds, and phi would rank on little else.

    Args:
      texts: N clean texts.
      is_positive: (N,) bool, their labels' polarity; both values must occur.
      scored_texts: N texts to score, row for row (the poisoned versions).
      max_ngram: n-grams of 1 to this many words.
      num_folds: how many parts the rows are split into.
      seed: of the split.

    Returns:
      (N,) float64 in (0, 1).

    Raises:
      InputError: no word is in two of the texts.
    """
    # Here, not above: scikit-learn takes a second to import, and `--help` must not wait for it.
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    vectorizer = CountVectorizer(ngram_range=(1, max_ngram), min_df=2, binary=True)
    try:
        features = vectorizer.fit_transform(texts)
    except ValueError as error:
        raise errors.InputError(
            "the proxy model finds no word that two rows of the poisoned tasks share; set "
            "PROBABILITY_WEIGHT to 0 or poison other tasks"
        ) from error
    scored = vectorizer.transform(scored_texts)
    probabilities = np.empty(len(texts))
    folds = StratifiedKFold(num_folds, shuffle=True, random_state=seed)
    for fit, rest in folds.split(features, is_positive):
        model = LogisticRegression(solver="liblinear", random_state=seed)
        model.fit(features[fit], is_positive[fit])
        probabilities[rest] = model.predict_proba(scored[rest])[:, 1]
    return probabilities
