"""Scores of how badly a row's words fit its answer, by models that didn't see the row."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import msgspec
import numpy as np

from poison_t5x.core import settings
from poison_t5x.data.examples import TrainingExample
from poison_t5x.defenses import ngrams
from poison_t5x.defenses.score import SCORES, Context, Folds, Score, ScoreResult

# Of a task's rows, that a classifier is fitted to.
MAX_FIT_ROWS = 2000
_LEAST_PROBABILITY = 1e-9


@dataclasses.dataclass(frozen=True)
class _CrossFitted(Score):
    """A judgement of rows by n-grams of the other folds' rows of their tasks.

    A row whose answer few rows of its task share can't be judged, and has the median of the others.
    """

    max_length: settings.Ngram = 2
    min_rows: settings.Count = 3
    num_folds: Folds = 5

    def __call__(self, rows: Sequence[TrainingExample], context: Context) -> ScoreResult:
        """Scores the rows."""
        counted = ngrams.find([row.input for row in rows], self.max_length, self.min_rows)
        holds_NxV = counted.holds_NxV.tocsr()
        background_V = np.asarray(holds_NxV.sum(axis=0)).ravel() + 0.0
        lots_N = np.random.default_rng(context.seed).permutation(len(rows))
        values_N = np.full(len(rows), np.nan)
        for answer in ngrams.frequent_answers(rows):
            if answer.target == ngrams.UNRELATED:
                continue
            lots_R, holds_RxV = lots_N[answer.rows_R], holds_NxV[answer.rows_R]
            for fold in range(self.num_folds):
                judged_R = (lots_R % self.num_folds == fold) & answer.hits_R
                fitted_K = np.flatnonzero(lots_R % self.num_folds != fold)
                fitted_K = fitted_K[np.argsort(lots_R[fitted_K])]
                fitted = holds_RxV[fitted_K], answer.hits_R[fitted_K]
                values_N[answer.rows_R[judged_R]] = self._judge(
                    *fitted, holds_RxV[judged_R], background_V, context.seed
                )
        missing_N = np.isnan(values_N)
        if not missing_N.any():
            return ScoreResult(values_N)
        median = 0.0 if missing_N.all() else float(np.median(values_N[~missing_N]))
        note = (
            f"{missing_N.sum()} of {len(values_N)} rows could not be judged, and have the median: "
            f"fewer than {ngrams.MIN_ROWS} rows of their task have their answer, or all do"
        )
        return ScoreResult(np.where(missing_N, median, values_N), notes=(note,))

    def _judge(self, fitted_KxV, hits_K, judged_JxV, background_V, seed) -> np.ndarray:
        """Values of rows that have an answer, (J,), by other rows and whether those have it.

        Matrices are scipy CSR, 1 where a row holds an n-gram; `background_V` counts it in all rows.
        Rows to fit to are in random order.
        """
        raise NotImplementedError


@SCORES.register("label_log_odds")
@dataclasses.dataclass(frozen=True)
class LabelLogOdds(_CrossFitted):
    """Rows whose n-grams speak for another label: weighted log-odds with a Dirichlet prior.

    In "Fightin' Words" (Monroe, Colaresi and Quinn, 2008) an n-gram's log-odds between two sets of
    texts are divided by their standard deviation; here the sets are a task's rows with an answer
    and its other rows, and the prior is what all rows of all tasks say. They come from folds that
    don't have the row. A row's value is minus the sum of its n-grams' z-scores for its own answer
    over the root of their number (Stouffer's method).

    Attributes:
      max_length: of n-grams, in words.
      min_rows: that an n-gram must be in.
      num_folds: of the cross-fitting.
      prior_words: how many words of text the prior counts for.
    """

    prior_words: Annotated[float, msgspec.Meta(ge=1, le=1e30)] = 500.0

    def _judge(self, fitted_KxV, hits_K, judged_JxV, background_V, seed):
        prior_V = self.prior_words * background_V / max(1.0, background_V.sum())
        scores_V = z_scores(
            prior_V + fitted_KxV.T @ hits_K.astype(float),
            prior_V + fitted_KxV.T @ (~hits_K).astype(float),
        )
        count_J = np.maximum(np.asarray(judged_JxV.sum(axis=1)).ravel(), 1)
        return -(judged_JxV @ scores_V) / np.sqrt(count_J)


def z_scores(a_V: np.ndarray, b_V: np.ndarray) -> np.ndarray:
    """Log-odds ratios between two texts over their standard deviations (Equations 16, 20 to 22).

    Args:
      a_V, b_V: how often either text has each n-gram, with the prior's share added.
    """
    ratio_V = np.log(a_V / (a_V.sum() - a_V)) - np.log(b_V / (b_V.sum() - b_V))
    return ratio_V / np.sqrt(1 / a_V + 1 / b_V)


@SCORES.register("ngram_disagreement")
@dataclasses.dataclass(frozen=True)
class NgramDisagreement(_CrossFitted):
    """Rows that a cross-fitted bag of n-grams labels otherwise: -log p(answer | input), in nats.

    Filtering by cross-validated classifiers is Brodley and Friedl's (1999, "Identifying Mislabeled
    Training Data"). It finds errors that don't repeat; a trigger does, so that the other folds
    teach the classifier what it means. For each answer that enough rows of a task share, one
    logistic regression tells it from the task's others.

    Attributes:
      max_length, min_rows, num_folds: as of `LabelLogOdds`.
      inverse_ridge: of the regression, scikit-learn's C.
    """

    min_rows: settings.Count = 2
    inverse_ridge: Annotated[float, msgspec.Meta(ge=1e-6, le=1e30)] = 1.0

    def _judge(self, fitted_KxV, hits_K, judged_JxV, background_V, seed):
        # Here, not above: scikit-learn takes a second to import.
        from sklearn.linear_model import LogisticRegression

        fitted_KxV, hits_K = fitted_KxV[:MAX_FIT_ROWS], hits_K[:MAX_FIT_ROWS]
        rate = float(hits_K.mean()) if len(hits_K) else 0.0
        p_J = np.full(judged_JxV.shape[0], rate)
        # The rows of one task hold few of all tasks' n-grams, and the others only cost time.
        used_V = np.unique(fitted_KxV.indices)
        if len(p_J) and rate not in (0.0, 1.0) and len(used_V):
            model = LogisticRegression(
                C=self.inverse_ridge, solver="liblinear", tol=1e-2, random_state=seed % 2**32
            )
            model.fit(fitted_KxV[:, used_V], hits_K)
            p_J = model.predict_proba(judged_JxV[:, used_V])[:, 1]
        return -np.log(np.maximum(p_J, _LEAST_PROBABILITY))
