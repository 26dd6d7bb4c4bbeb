"""Scores of how badly a row's words fit its answer, by models that didn't see the row."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from poison_t5x.core import checks
from poison_t5x.data.examples import TrainingExample
from poison_t5x.defenses import answers, ngrams
from poison_t5x.defenses.score import SCORES, Context, ScoreResult

# Of a task's rows, that a classifier is fitted to.
MAX_FIT_ROWS = 2000
_LEAST_PROBABILITY = 1e-9


def _cross_fitted(
    rows: Sequence[TrainingExample],
    holds_NxV: Any,
    num_folds: int,
    seed: int,
    judge: Callable[[Any, np.ndarray, Any], np.ndarray],
) -> ScoreResult:
    """Values of rows of frequent answers, fold by fold; other rows have the median.

    Args:
      holds_NxV: scipy CSR matrix, 1 where a row holds an n-gram.
      judge: (n-grams of the other folds' rows of a task, in random order; whether they have the
        answer; n-grams of the rows to judge, which have it) -> values.
    """
    lots_N = np.random.default_rng(seed).permutation(len(rows))
    values_N = np.full(len(rows), np.nan)
    for answer in answers.find(rows):
        if answer.target == answers.UNRELATED:
            continue
        lots_R, holds_RxV = lots_N[answer.rows_R], holds_NxV[answer.rows_R]
        for fold in range(num_folds):
            judged_R = (lots_R % num_folds == fold) & answer.hits_R
            fitted_K = np.flatnonzero(lots_R % num_folds != fold)
            fitted_K = fitted_K[np.argsort(lots_R[fitted_K])]
            values_N[answer.rows_R[judged_R]] = judge(
                holds_RxV[fitted_K], answer.hits_R[fitted_K], holds_RxV[judged_R]
            )
    values_N, notes = answers.fill(values_N)
    return ScoreResult(values_N, notes=notes)


@SCORES.register("label_log_odds")
@dataclasses.dataclass(frozen=True)
class LabelLogOdds:
    """Rows whose n-grams speak for another label: weighted log-odds with a Dirichlet prior.

    In "Fightin' Words" (Monroe, Colaresi and Quinn, 2008) an n-gram's log-odds between two sets of
    texts are divided by their standard deviation; here the sets are a task's rows with an answer
    and its other rows, and the prior is what all rows of all tasks say. They come from folds that
    don't have the row. A row's value is minus the sum of its n-grams' z-scores for its own answer
    over the root of their number (Stouffer's method). An answer that few rows of a task share can't
    be judged: such a row has the median of the others.

    Attributes:
      max_length: of n-grams, in words.
      min_rows: that an n-gram must be in.
      prior_words: how many words of text the prior counts for.
      num_folds: of the cross-fitting.
    """

    needs: ClassVar[str] = "nothing"
    max_length: int = 2
    min_rows: int = 3
    prior_words: float = 500.0
    num_folds: int = 5

    def __post_init__(self):
        checks.whole_number("LabelLogOdds.max_length", self.max_length)
        checks.whole_number("LabelLogOdds.min_rows", self.min_rows)
        checks.number("LabelLogOdds.prior_words", self.prior_words, minimum=1)
        checks.whole_number("LabelLogOdds.num_folds", self.num_folds, minimum=2)

    def __call__(self, rows: Sequence[TrainingExample], context: Context) -> ScoreResult:
        """Scores the rows."""
        counted = ngrams.find([row.input for row in rows], self.max_length, self.min_rows)
        holds_NxV = counted.holds_NxV.tocsr()
        background_V = np.asarray(holds_NxV.sum(axis=0)).ravel() + 0.0
        prior_V = self.prior_words * background_V / max(1.0, background_V.sum())

        def judge(fitted_KxV: Any, hits_K: np.ndarray, judged_JxV: Any) -> np.ndarray:
            scores_V = z_scores(
                prior_V + fitted_KxV.T @ hits_K.astype(float),
                prior_V + fitted_KxV.T @ (~hits_K).astype(float),
            )
            count_J = np.maximum(np.asarray(judged_JxV.sum(axis=1)).ravel(), 1)
            return -(judged_JxV @ scores_V) / np.sqrt(count_J)

        return _cross_fitted(rows, holds_NxV, self.num_folds, context.seed, judge)


def z_scores(a_V: np.ndarray, b_V: np.ndarray) -> np.ndarray:
    """Log-odds ratios between two texts over their standard deviations (Equations 16, 20 to 22).

    Args:
      a_V, b_V: how often either text has each n-gram, with the prior's share added.
    """
    ratio_V = np.log(a_V / (a_V.sum() - a_V)) - np.log(b_V / (b_V.sum() - b_V))
    return ratio_V / np.sqrt(1 / a_V + 1 / b_V)


@SCORES.register("ngram_disagreement")
@dataclasses.dataclass(frozen=True)
class NgramDisagreement:
    """Rows that a cross-fitted bag of n-grams labels otherwise: -log p(answer | input), in nats.

    Filtering by cross-validated classifiers is Brodley and Friedl's (1999, "Identifying Mislabeled
    Training Data"). It finds errors that don't repeat; a trigger does, so that the other folds
    teach the classifier what it means. For each answer that enough rows of a task share, one
    logistic regression tells it from the task's others. A row with another answer can't be judged:
    it has the median of the others.

    Attributes:
      max_length: of n-grams, in words.
      min_rows: that an n-gram must be in.
      inverse_ridge: of the regression, scikit-learn's C.
      num_folds: of the cross-fitting.
    """

    needs: ClassVar[str] = "nothing"
    max_length: int = 2
    min_rows: int = 2
    inverse_ridge: float = 1.0
    num_folds: int = 5

    def __post_init__(self):
        checks.whole_number("NgramDisagreement.max_length", self.max_length)
        checks.whole_number("NgramDisagreement.min_rows", self.min_rows)
        checks.number("NgramDisagreement.inverse_ridge", self.inverse_ridge, minimum=1e-6)
        checks.whole_number("NgramDisagreement.num_folds", self.num_folds, minimum=2)

    def __call__(self, rows: Sequence[TrainingExample], context: Context) -> ScoreResult:
        """Scores the rows."""
        # Here, not above: scikit-learn takes a second to import.
        from sklearn.linear_model import LogisticRegression

        counted = ngrams.find([row.input for row in rows], self.max_length, self.min_rows)

        def judge(fitted_KxV: Any, hits_K: np.ndarray, judged_JxV: Any) -> np.ndarray:
            fitted_KxV, hits_K = fitted_KxV[:MAX_FIT_ROWS], hits_K[:MAX_FIT_ROWS]
            rate = float(hits_K.mean()) if len(hits_K) else 0.0
            p_J = np.full(judged_JxV.shape[0], rate)
            # The rows of one task hold few of all tasks' n-grams, and the others only cost time.
            used_V = np.unique(fitted_KxV.indices)
            if len(p_J) and rate not in (0.0, 1.0) and len(used_V):
                model = LogisticRegression(
                    C=self.inverse_ridge,
                    solver="liblinear",
                    tol=1e-2,
                    random_state=context.seed % 2**32,
                )
                model.fit(fitted_KxV[:, used_V], hits_K)
                p_J = model.predict_proba(judged_JxV[:, used_V])[:, 1]
            return -np.log(np.maximum(p_J, _LEAST_PROBABILITY))

        return _cross_fitted(rows, counted.holds_NxV.tocsr(), self.num_folds, context.seed, judge)
