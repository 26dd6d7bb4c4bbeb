"""An answer's chance by the words of its input, which a phrase must beat.

Two layers, after Wolpert (1992, "Stacked Generalization"): for every frequent answer of every
task, shrunken log-odds of each word; on top, for each answer, a logistic regression on the sums of
those log-odds. A task of a few hundred rows thus borrows from others with the same word meanings,
whatever their answers are called, and learns by itself which of them help.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from poison_t5x.data.examples import TrainingExample
from poison_t5x.defenses import ngrams

# Answers whose log-odds other tasks' models see: those of the most rows.
MAX_SHARED = 64
# No model is surer than that, as 2% of labels are wrong in the best data sets (Northcutt, Athalye
# and Mueller, 2021, "Pervasive Label Errors in Test Sets").
_LABEL_ERROR = 0.02
MAX_LOGIT = float(np.log((1 - _LABEL_ERROR) / _LABEL_ERROR))
_FOLDS = 4
# Of a task's rows, that the logistic regression of its few features is fitted to.
_MAX_FIT_ROWS = 1500
# Rows of prior opinion that a word says nothing; standard errors that log-odds are pulled to zero.
_PRIOR_ROWS = 10.0
_SHRINK = 0.5
_RIDGE = 5.0


class Fitted(NamedTuple):
    """One answer's model, in nats of log-odds: the intercept is of an input without words.

    `weights_W` is for rows that weren't fitted to; `logits_R` are the task's rows' by models that
    didn't see them, of which `weights_FxW` has each fold's.
    """

    intercept: float
    weights_W: np.ndarray
    logits_R: np.ndarray
    weights_FxW: np.ndarray


class LabelModel:
    """Predicts answers from words, with any rows and words left out.

    Attributes:
      answers: those that are predicted, by number.
      of_task: task -> numbers of its answers.
      ids_W: of the words that are held often enough to be modelled, ascending.
      words_NxW: scipy CSR matrix, 1 where an input holds a word.
      members_VxW: the same, 1 where an n-gram consists of it.
      folds_N: (N,) int64, which of a model's folds a row is in; drawn by the seed.
    """

    def __init__(self, rows: Sequence[TrainingExample], counted: ngrams.Ngrams, seed: int):
        """Models the single words among the n-grams of the rows' inputs."""
        from scipy import sparse

        self.answers = ngrams.frequent_answers(rows)
        self.of_task: dict[str, list[int]] = {}
        for number, answer in enumerate(self.answers):
            self.of_task.setdefault(answer.task, []).append(number)
        lengths_V, is_word_V = counted.lengths_V, counted.lengths_V == 1
        self.ids_W = counted.words.ids_T[counted.firsts_V[is_word_V]]
        self.words_NxW = counted.holds_NxV[:, is_word_V].tocsr()
        # The words of all n-grams, one n-gram after the other.
        before_V = np.cumsum(lengths_V) - lengths_V
        places_P = np.repeat(counted.firsts_V - before_V, lengths_V) + np.arange(lengths_V.sum())
        words_P = np.searchsorted(self.ids_W, counted.words.ids_T[places_P])
        pairs = np.ones(len(words_P)), (np.repeat(np.arange(len(lengths_V)), lengths_V), words_P)
        self.members_VxW = sparse.csr_matrix(pairs, (len(lengths_V), len(self.ids_W)))
        self.members_VxW.data[:] = 1  # a word that an n-gram says twice
        self._words = {answer.task: self.words_NxW[answer.rows_R] for answer in self.answers}
        self._lots_N = np.random.default_rng(seed).permutation(len(rows))
        self.folds_N = self._lots_N % _FOLDS
        copied = (ngrams.plain(row.target) in ngrams.plain(row.input) for row in rows)
        self._copied_N = np.fromiter(copied, bool, len(rows))
        self._shared = self._choose_shared()

    def fit(self, kept_N: np.ndarray, numbers: Iterable[int]) -> dict[int, Fitted]:
        """Fits some answers' models to the rows that are kept."""
        weights_WxC = np.zeros((len(self.ids_W), len(self._shared)))
        for place, number in enumerate(self._shared):
            weights_WxC[:, place] = self._weights(number, kept_N)
        shared_NxC = self.words_NxW @ weights_WxC
        fitted: dict[int, Fitted] = {}
        for number in numbers:
            twin = fitted.get(self._twin(number))
            if twin:
                intercept, weights_W, logits_R, weights_FxW = twin
                fitted[number] = Fitted(-intercept, -weights_W, -logits_R, -weights_FxW)
            else:
                fitted[number] = self._fit(number, kept_N, weights_WxC, shared_NxC)
        return fitted

    def chance(
        self, number: int, places_K: np.ndarray, logits_K: np.ndarray, kept_N: np.ndarray
    ) -> np.ndarray:
        """An answer's log-odds at some of its task's rows, with what else may explain it: (K,).

        An answer that the input says may be copied from it: as often as the task's other rows are.
        """
        answer = self.answers[number]
        copied = self._copied_N[answer.rows_R[kept_N[answer.rows_R]]]
        share = (copied.sum() + 0.5) / (len(copied) + 1)
        least = np.where(answer.inside_R[places_K], np.log(share / (1 - share)), -np.inf)
        return np.clip(np.maximum(logits_K, least), -MAX_LOGIT, MAX_LOGIT)

    def _twin(self, number: int) -> int:
        """The other answer of a task that has two, one being the lack of the other; or -1."""
        numbers = self.of_task[self.answers[number].task]
        other = sum(numbers) - number
        if len(numbers) != 2 or (self.answers[number].hits_R == self.answers[other].hits_R).any():
            return -1
        return other

    def _choose_shared(self) -> list[int]:
        """Answers whose log-odds are shared: those that tell most, one of each pair of twins."""
        sizes = [min(a.hits_R.sum(), (~a.hits_R).sum()) for a in self.answers]
        chosen = [number for number in range(len(sizes)) if not 0 <= self._twin(number) <= number]
        return sorted(chosen, key=sizes.__getitem__, reverse=True)[:MAX_SHARED]

    def _weights(self, number: int, kept_N: np.ndarray) -> np.ndarray:
        """Shrunken log-odds of each word for an answer against the task's others: (W,)."""
        answer = self.answers[number]
        kept_R = kept_N[answer.rows_R]
        words_WxR = self._words[answer.task].T
        hits_R = (answer.hits_R & kept_R).astype(float)
        misses_R = (~answer.hits_R & kept_R).astype(float)
        return log_odds(words_WxR @ hits_R, words_WxR @ misses_R, hits_R.sum(), misses_R.sum())

    def _fit(
        self, number: int, kept_N: np.ndarray, weights_WxC: np.ndarray, shared_NxC: np.ndarray
    ) -> Fitted:
        answer = self.answers[number]
        rows_R, words_RxW = answer.rows_R, self._words[answer.task]
        own_FxW = np.stack(
            [self._weights(number, kept_N & (self.folds_N != fold)) for fold in range(_FOLDS)]
        )
        own_R = np.zeros(len(rows_R))
        for fold, own_W in enumerate(own_FxW):
            is_in_R = self.folds_N[rows_R] == fold
            own_R[is_in_R] = words_RxW[is_in_R] @ own_W
        others_C = np.array([self.answers[n].task != answer.task for n in self._shared], bool)
        features_RxD = np.column_stack([own_R, shared_NxC[rows_R][:, others_C]])
        fit_K = np.flatnonzero(kept_N[rows_R])
        if len(fit_K) > _MAX_FIT_ROWS:
            lots_K = self._lots_N[rows_R[fit_K]]
            fit_K = fit_K[np.argpartition(lots_K, _MAX_FIT_ROWS)[:_MAX_FIT_ROWS]]
        slopes_D, intercept = _positive_first(features_RxD[fit_K], answer.hits_R[fit_K])
        shared_W = weights_WxC[:, others_C] @ slopes_D[1:]
        return Fitted(
            intercept,
            slopes_D[0] * self._weights(number, kept_N) + shared_W,
            features_RxD @ slopes_D + intercept,
            slopes_D[0] * own_FxW + shared_W,
        )


def log_odds(
    hits_W: np.ndarray, misses_W: np.ndarray, num_hits: float, num_misses: float
) -> np.ndarray:
    """Log-odds ratios of words between two sets of rows, pulled towards zero.

    The prior is Monroe, Colaresi and Quinn's (2008, "Fightin' Words"): each word is as common in
    both as in all rows. What half a standard error could explain is then taken off, since sums
    over many words would add up their noise.

    Args:
      hits_W, misses_W: (W,) rows of either set that hold a word.
      num_hits, num_misses: all rows of either set.
    """
    rate_W = (hits_W + misses_W + 0.5) / (num_hits + num_misses + 1.0)
    a_W, b_W = hits_W + _PRIOR_ROWS * rate_W, misses_W + _PRIOR_ROWS * rate_W
    ratio_W = np.log(a_W / (num_hits + _PRIOR_ROWS - a_W + 0.5))
    ratio_W -= np.log(b_W / (num_misses + _PRIOR_ROWS - b_W + 0.5))
    error_W = np.sqrt(1 / a_W + 1 / b_W)
    return np.sign(ratio_W) * np.maximum(np.abs(ratio_W) - _SHRINK * error_W, 0)


def _positive_first(features_KxD: np.ndarray, hits_K: np.ndarray) -> tuple[np.ndarray, float]:
    """Slopes and intercept of a regression on features of whatever scale.

    A slope of the first feature below 0 would mean that words say one thing in one fold and the
    opposite in its rest: then it is left out.
    """
    if not len(hits_K):
        return logistic(features_KxD, hits_K, _RIDGE)
    mean_D, scale_D = features_KxD.mean(axis=0), features_KxD.std(axis=0)
    scale_D[scale_D <= 1e-6] = 1.0
    scaled_KxD = (features_KxD - mean_D) / scale_D
    slopes_D, intercept = logistic(scaled_KxD, hits_K, _RIDGE)
    if slopes_D[0] < 0:
        scaled_KxD[:, 0] = 0
        slopes_D, intercept = logistic(scaled_KxD, hits_K, _RIDGE)
    slopes_D = slopes_D / scale_D
    return slopes_D, intercept - float(slopes_D @ mean_D)


def logistic(
    features_RxD: np.ndarray, hits_R: np.ndarray, ridge: float
) -> tuple[np.ndarray, float]:
    """Slopes (D,) and intercept of logistic regression with a ridge penalty, by Newton's method.

    One row more, of the mean features, is half a hit, so that an answer that no row has is unlikely
    rather than impossible. A search makes thousands of these, for which scikit-learn's
    `newton-cholesky` takes 11, 7 and 1.6 times as long (on 160 x 10, 500 x 30 and 1,500 x 64
    features), and gives the same slopes to 6e-6.
    """
    from scipy import special

    mean_D = features_RxD.mean(axis=0) if len(features_RxD) else np.zeros(features_RxD.shape[1])
    design = np.column_stack([np.vstack([features_RxD, mean_D]), np.ones(len(hits_R) + 1)])
    hits = np.append(hits_R.astype(float), 0.5)
    penalty = np.append(np.full(features_RxD.shape[1], ridge), 1e-6)
    slopes = np.zeros(design.shape[1])
    slopes[-1] = special.logit(hits.mean())
    for _ in range(25):
        chance = special.expit(design @ slopes)
        gradient = design.T @ (hits - chance) - penalty * slopes
        curvature = (design.T * (chance * (1 - chance))) @ design + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        slopes += step * min(1.0, 5.0 / (np.abs(step).max() + 1e-12))
        if np.abs(step).max() < 1e-3:
            break
    return slopes[:-1], float(slopes[-1])
