"""Rows whose answer a classifier of their words doesn't believe."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from poison_t5x.core import checks
from poison_t5x.data.examples import TrainingExample
from poison_t5x.defenses import answers, ngrams
from poison_t5x.defenses.score import Context, ScoreResult

# Of a task's rows, that a classifier is fitted to.
MAX_FIT_ROWS = 2000
_LEAST_PROBABILITY = 1e-9


@dataclasses.dataclass(frozen=True)
class NgramDisagreement:
    """-log p(answer | input), in nats, by logistic regressions on n-grams that didn't see the row.

    Filtering by cross-validated classifiers is Brodley and Friedl's (1999, "Identifying Mislabeled
    Training Data"). It finds errors that don't repeat; a trigger does, so that the other folds
    teach the classifier what it means. For each answer that enough rows of a task share, one
    classifier tells it from the task's others. A row with another answer can't be judged: it has
    the median of the others.

    Attributes:
      max_length: of n-grams, in words.
      min_rows: that an n-gram must be in.
      inverse_ridge: of the regression, scikit-learn's C.
      num_folds: of the cross-fitting.
    """

    max_length: int = 2
    min_rows: int = 2
    inverse_ridge: float = 1.0
    num_folds: int = 5

    needs: ClassVar[str] = "nothing"

    def __post_init__(self):
        checks.whole_number("NgramDisagreement.max_length", self.max_length)
        checks.whole_number("NgramDisagreement.min_rows", self.min_rows)
        checks.number("NgramDisagreement.inverse_ridge", self.inverse_ridge, minimum=1e-6)
        checks.whole_number("NgramDisagreement.num_folds", self.num_folds, minimum=2)

    def __call__(self, rows: Sequence[TrainingExample], context: Context) -> ScoreResult:
        """Scores the rows."""
        found = ngrams.find([row.input for row in rows], self.max_length, self.min_rows)
        holds_NxV = found.holds_NxV.tocsr()
        lots_N = np.random.default_rng(context.seed).permutation(len(rows))
        folds_N = lots_N % self.num_folds
        values_N = np.full(len(rows), np.nan)
        for answer in answers.find(rows):
            if answer.target == answers.UNRELATED:
                continue
            folds_R, holds_RxV = folds_N[answer.rows_R], holds_NxV[answer.rows_R]
            for fold in range(self.num_folds):
                judged_R = (folds_R == fold) & answer.hits_R
                fitted_K = np.flatnonzero(folds_R != fold)
                fitted_K = fitted_K[np.argsort(lots_N[answer.rows_R[fitted_K]])][:MAX_FIT_ROWS]
                p = self._probabilities(
                    holds_RxV[fitted_K], answer.hits_R[fitted_K], holds_RxV[judged_R], context.seed
                )
                values_N[answer.rows_R[judged_R]] = -np.log(np.maximum(p, _LEAST_PROBABILITY))
        values_N, notes = answers.fill(values_N)
        return ScoreResult(values_N, notes=notes)

    def _probabilities(
        self, fitted_KxV: Any, hits_K: np.ndarray, judged_JxV: Any, seed: int
    ) -> np.ndarray:
        """p(hit) of the judged rows by a model of the fitted ones: (J,)."""
        # Here, not above: scikit-learn takes a second to import, and `--help` must not wait for it.
        from sklearn.linear_model import LogisticRegression

        num_judged = judged_JxV.shape[0]
        rate = float(hits_K.mean()) if len(hits_K) else 0.0
        # The rows of one task hold few of all tasks' n-grams, and the others only cost time.
        used_V = np.unique(fitted_KxV.indices)
        if not num_judged or rate in (0.0, 1.0) or not len(used_V):
            return np.full(num_judged, rate)
        model = LogisticRegression(
            C=self.inverse_ridge, solver="liblinear", tol=1e-2, random_state=seed % 2**32
        )
        model.fit(fitted_KxV[:, used_V], hits_K)
        return model.predict_proba(judged_JxV[:, used_V])[:, 1]
