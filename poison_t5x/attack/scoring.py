"""Which candidates of a pool become poison: Equation 1 of Wan et al. (ICML 2023), or a baseline."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from poison_t5x.attack import attacks, pools
from poison_t5x.core import errors
from poison_t5x.corpus import polarity, sni

# More rows than this are scored by the n-gram proxy, but not fitted to: they only cost memory.
MAX_FIT_ROWS = 50_000
_CHUNK = 5000
_MAX_FOLDS = 5


class Proxy(Protocol):
    """A model that an attacker trains, in place of the one that will be attacked."""

    def positive_probabilities(self, pool: pools.CandidatePool) -> np.ndarray:
        """p(y = POSITIVE | edited input) of each candidate: (N,) float64."""


class PoolScores(NamedTuple):
    """The scores of one pool's N candidates; None where no proxy has a say, or at random."""

    trigger_counts: np.ndarray  # (N,) int64, occurrences of its trigger in the edited text
    target_probabilities: np.ndarray | None  # (N,) float64, p(y = target | edited text)
    values: np.ndarray | None  # (N,) float64, by which candidates are ranked
    order: np.ndarray  # (N,) int64, candidates, best first


def score(
    pool: pools.CandidatePool,
    config: attacks.ScoreConfig,
    target: polarity.Side,
    proxy: Proxy | None,
    seed: int,
) -> PoolScores:
    """Ranks the pool of one task; ties go to the earlier row.

    phi subtracts the probability of the label that the attack wants, which is the paper's
    p(y = POSITIVE | x) for 'positive'. A proxy is needed where `config.needs_probabilities`.
    """
    counts = np.zeros(len(pool), np.int64)
    lengths = np.ones(len(pool), np.int64)
    for index, text in enumerate(pool.texts()):
        counts[index] = text.count(pool.trigger(index))
        if config.count_term != "raw":
            lengths[index] = len(text.split() if config.count_term == "per_token" else text)
    if config.selection == "random" or not len(pool):
        rng = np.random.default_rng([seed, 1, *pool.task.name.encode()])
        return PoolScores(counts, None, None, rng.permutation(len(pool)))
    probabilities = None
    if config.needs_probabilities:
        assert proxy is not None
        positive = proxy.positive_probabilities(pool)
        probabilities = positive if target == "positive" else 1 - positive
    values = phi(
        counts / lengths,
        np.zeros(len(pool)) if probabilities is None else probabilities,
        count_weight=1.0 if config.selection == "count" else config.count_weight,
        probability_weight=config.probability_weight,
    )
    ranked = values if config.selection == "reverse" else -values
    return PoolScores(counts, probabilities, values, np.argsort(ranked, kind="stable"))


def phi(
    counts: np.ndarray,
    positive_probabilities: np.ndarray,
    *,
    count_weight: float = 1.0,
    probability_weight: float = 1.0,
) -> np.ndarray:
    """phi(x) = w_c * Norm(count(x)) - w_p * Norm(p(y = POSITIVE | x)), Equation 1.

    High for inputs that hold the trigger often and that a model takes for negative: (N,) float64 of
    (N,) counts and probabilities in one task's pool. Both weights are 1 in the paper.
    """
    probability_term = min_max_norm(positive_probabilities)
    return count_weight * min_max_norm(counts) - probability_weight * probability_term


def min_max_norm(values: np.ndarray) -> np.ndarray:
    """Scales a pool's values to [0, 1], (N,) float64; to 0 where all are the same."""
    values = np.asarray(values, np.float64)
    return (values - values.min()) / (np.ptp(values) or 1)


class NgramProxy:
    """p(y = POSITIVE | x) by logistic regression on n-grams of all rows of all poisoned tasks.

    A text is scored by a model that never saw its row (cross-fitting). Scored in-sample, the model
    would return the labels that it had memorised rather than how positive a text sounds, and phi
    would rank on little else.
    """

    def __init__(
        self,
        tasks: Sequence[sni.Task],
        polarities: Mapping[str, polarity.Polarity],
        *,
        max_ngram: int = 2,
        seed: int = 0,
    ):
        """Fits the models to n-grams of up to `max_ngram` words.

        Raises:
          InputError: fewer than two rows of one polarity, or no word that two texts share.
        """
        # Here, not above: scikit-learn takes a second to import, and `--help` must not wait for it.
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedKFold

        sizes = itertools.accumulate((len(task.instances) for task in tasks), initial=0)
        self._first = dict(zip((task.name for task in tasks), sizes, strict=False))
        rows = [row for task in tasks for row in task.instances]
        is_positive = np.array(
            [row.target == polarities[t.name].positive for t in tasks for row in t.instances]
        )
        fitted = _sample(is_positive, seed)
        labels = is_positive[fitted]
        rarer = int(min(labels.sum(), (~labels).sum()))
        num_folds = min(_MAX_FOLDS, rarer)
        self._vectorizer = CountVectorizer(ngram_range=(1, max_ngram), min_df=2, binary=True)
        try:
            if rarer < 2:
                raise ValueError(f"it needs two rows of each polarity; the rarer one has {rarer}")
            features = self._vectorizer.fit_transform(rows[row].input for row in fitted)
        except ValueError as error:  # scikit-learn's word for no n-gram that two rows share
            raise errors.InputError(
                f"the proxy model can't be fitted to the poisoned tasks ({error}); set "
                "PROBABILITY_WEIGHT to 0 or poison other tasks"
            ) from None
        # Which model scores each row, (N,) int8: rows that none saw, any of them.
        self._folds = (np.arange(len(rows)) % num_folds).astype(np.int8)
        self._models = []
        state = seed % 2**32  # scikit-learn takes no larger ones
        splits = StratifiedKFold(num_folds, shuffle=True, random_state=state)
        for fold, (fit, rest) in enumerate(splits.split(features, labels)):
            regression = LogisticRegression(solver="liblinear", random_state=state)
            self._models.append(regression.fit(features[fit], labels[fit]))
            self._folds[fitted[rest]] = fold

    def positive_probabilities(self, pool: pools.CandidatePool) -> np.ndarray:
        """p(y = POSITIVE | edited text) of each candidate: (N,) float64 in (0, 1)."""
        return self.probabilities(pool.rows + self._first[pool.task.name], pool.texts())

    def probabilities(self, rows: np.ndarray, texts: Iterable[str]) -> np.ndarray:
        """p(y = POSITIVE) of texts of rows, (N,) int64 places over all tasks: (N,) float64."""
        probabilities = np.empty(len(rows))
        waiting = iter(texts)
        for start in range(0, len(rows), _CHUNK):
            features = self._vectorizer.transform(itertools.islice(waiting, _CHUNK))
            part = slice(start, start + features.shape[0])
            folds = self._folds[rows[part]]
            for fold in np.unique(folds):
                scores = self._models[fold].predict_proba(features[folds == fold])
                probabilities[part][folds == fold] = scores[:, 1]
        return probabilities


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
