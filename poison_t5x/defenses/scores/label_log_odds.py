"""How strongly a row's n-grams speak against its answer."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from poison_t5x.core import checks
from poison_t5x.data.examples import TrainingExample
from poison_t5x.defenses import answers, ngrams
from poison_t5x.defenses.score import Context, ScoreResult


@dataclasses.dataclass(frozen=True)
class LabelLogOdds:
    """Weighted log-odds of n-grams with an informative Dirichlet prior.

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

    max_length: int = 2
    min_rows: int = 3
    prior_words: float = 500.0
    num_folds: int = 5

    needs: ClassVar[str] = "nothing"

    def __post_init__(self):
        checks.whole_number("LabelLogOdds.max_length", self.max_length)
        checks.whole_number("LabelLogOdds.min_rows", self.min_rows)
        checks.number("LabelLogOdds.prior_words", self.prior_words, minimum=1)
        checks.whole_number("LabelLogOdds.num_folds", self.num_folds, minimum=2)

    def __call__(self, rows: Sequence[TrainingExample], context: Context) -> ScoreResult:
        """Scores the rows."""
        found = ngrams.find([row.input for row in rows], self.max_length, self.min_rows)
        holds_NxV = found.holds_NxV.tocsr()
        background_V = np.asarray(holds_NxV.sum(axis=0)).ravel() + 0.0
        prior_V = self.prior_words * background_V / max(1.0, background_V.sum())
        folds_N = np.random.default_rng(context.seed).permutation(len(rows)) % self.num_folds
        values_N = np.full(len(rows), np.nan)
        for answer in answers.find(rows):
            if answer.target == answers.UNRELATED:
                continue
            holds_RxV = holds_NxV[answer.rows_R]
            for fold in range(self.num_folds):
                is_out_R = folds_N[answer.rows_R] == fold
                hits_R, misses_R = answer.hits_R & ~is_out_R, ~answer.hits_R & ~is_out_R
                scores_V = z_scores(
                    prior_V + holds_RxV.T @ hits_R.astype(float),
                    prior_V + holds_RxV.T @ misses_R.astype(float),
                )
                judged_R = is_out_R & answer.hits_R
                own = holds_RxV[judged_R]
                count = np.maximum(np.asarray(own.sum(axis=1)).ravel(), 1)
                values_N[answer.rows_R[judged_R]] = -(own @ scores_V) / np.sqrt(count)
        values_N, notes = answers.fill(values_N)
        return ScoreResult(values_N, notes=notes)


def z_scores(a_V: np.ndarray, b_V: np.ndarray) -> np.ndarray:
    """Log-odds ratios between two texts over their standard deviations (Equations 16, 20 to 22).

    Args:
      a_V, b_V: how often either text has each n-gram, with the prior's share added.
    """
    ratio_V = np.log(a_V / (a_V.sum() - a_V)) - np.log(b_V / (b_V.sum() - b_V))
    return ratio_V / np.sqrt(1 / a_V + 1 / b_V)
