"""A stand-in for the language model's p(y = POSITIVE | x): logistic regression on n-grams."""

import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from poison_t5x.attack import pools
from poison_t5x.core import errors
from poison_t5x.corpus import polarity, sni

# More rows than this are scored, but not fitted to: they would only cost memory.
MAX_FIT_ROWS = 50_000
_CHUNK = 5000
_MAX_FOLDS = 5


class NgramProxy:
    """One model of all rows of all poisoned tasks, cross-fitted.

    A text is scored by a model that never saw its row. Scored in-sample, the model would return the
    labels that it had memorised rather than how positive a text sounds, and phi would rank on
    little else.
    """

    def __init__(
        self,
        tasks: Sequence[sni.Task],
        polarities: Mapping[str, polarity.Polarity],
        *,
        max_ngram: int = 2,
        seed: int = 0,
    ):
        """Fits the models.

        Args:
          tasks: the poisoned tasks.
          polarities: of them.
          max_ngram: n-grams of 1 to this many words.
          seed: of the split into folds, and of the sample where there are too many rows.

        Raises:
          InputError: fewer than two rows of one polarity, or no word that two texts share.
        """
        self._first = dict(
            zip(
                (task.name for task in tasks),
                itertools.accumulate((len(task.instances) for task in tasks), initial=0),
                strict=False,
            )
        )
        texts = [row.input for task in tasks for row in task.instances]
        is_positive = np.array(
            [
                polarities[task.name].side(row.target) == "positive"
                for task in tasks
                for row in task.instances
            ]
        )
        rarer = int(min(is_positive.sum(), len(is_positive) - is_positive.sum()))
        if rarer < 2:
            raise errors.InputError(
                "the proxy model needs two rows of each polarity in the poisoned tasks, and the "
                f"rarer one has {rarer}; set PROBABILITY_WEIGHT to 0 or poison other tasks"
            )
        self._models, self._folds = _fit(texts, is_positive, max_ngram, seed)

    def positive_probabilities(self, pool: pools.Pool) -> np.ndarray:
        """p(y = POSITIVE | edited text) of each candidate: (N,) float64 in (0, 1)."""
        return self.probabilities(pool.rows + self._first[pool.task.name], pool.texts())

    def probabilities(self, rows: np.ndarray, texts: Iterable[str]) -> np.ndarray:
        """Scores versions of rows that were given to the constructor.

        Args:
          rows: (N,) int64, places of the rows over all tasks.
          texts: N texts to score.

        Returns:
          (N,) float64 in (0, 1).
        """
        probabilities = np.empty(len(rows))
        waiting = iter(texts)
        for start in range(0, len(rows), _CHUNK):
            chunk = list(itertools.islice(waiting, _CHUNK))
            folds = self._folds[rows[start : start + len(chunk)]]
            features = self._models[0].features(chunk)
            scores = np.empty(len(chunk))
            for fold, model in enumerate(self._models):
                members = folds == fold
                if members.any():
                    scores[members] = model.predict(features[members])
            probabilities[start : start + len(chunk)] = scores
        return probabilities


class _Model:
    """The model that scores one fold's rows."""

    def __init__(self, vectorizer, regression):
        self._vectorizer, self._regression = vectorizer, regression

    def features(self, texts: Sequence[str]):
        return self._vectorizer.transform(texts)

    def predict(self, features) -> np.ndarray:
        return self._regression.predict_proba(features)[:, 1]


def _fit(
    texts: Sequence[str], is_positive: np.ndarray, max_ngram: int, seed: int
) -> tuple[list[_Model], np.ndarray]:
    """The models, and which of them scores each row: (N,) int8."""
    # Here, not above: scikit-learn takes a second to import, and `--help` must not wait for it.
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    fitted = _sample(is_positive, seed)
    labels = is_positive[fitted]
    num_folds = int(min(_MAX_FOLDS, labels.sum(), len(labels) - labels.sum()))
    vectorizer = CountVectorizer(ngram_range=(1, max_ngram), min_df=2, binary=True)
    try:
        features = vectorizer.fit_transform(texts[row] for row in fitted)
    except ValueError as error:
        raise errors.InputError(
            "the proxy model finds no word that two rows of the poisoned tasks share; set "
            "PROBABILITY_WEIGHT to 0 or poison other tasks"
        ) from error
    # Rows that no model saw may be scored by any of them.
    folds = (np.arange(len(texts)) % num_folds).astype(np.int8)
    models = []
    state = seed % 2**32  # scikit-learn takes no larger ones
    splits = StratifiedKFold(num_folds, shuffle=True, random_state=state)
    for fold, (fit, rest) in enumerate(splits.split(features, labels)):
        regression = LogisticRegression(solver="liblinear", random_state=state)
        regression.fit(features[fit], labels[fit])
        folds[fitted[rest]] = fold
        models.append(_Model(vectorizer, regression))
    return models, folds


def _sample(is_positive: np.ndarray, seed: int) -> np.ndarray:
    """Rows to fit to: all, or as many as may be of each polarity in proportion, ascending."""
    if len(is_positive) <= MAX_FIT_ROWS:
        return np.arange(len(is_positive))
    rng = np.random.default_rng(seed)
    chosen = []
    for side in (True, False):
        members = np.flatnonzero(is_positive == side)
        size = max(2, round(len(members) * MAX_FIT_ROWS / len(is_positive)))
        chosen.append(rng.choice(members, min(size, len(members)), replace=False))
    return np.sort(np.concatenate(chosen))
