"""A threshold from a score's values alone, for scores that have no level of their own."""

import numpy as np

from poison_t5x.core import errors
from poison_t5x.defenses.score import ScoreResult

# Of modified z-scores, as Iglewicz and Hoaglin (1993) advise.
CUTOFF = 3.5
# Median and mean absolute deviation of a normal distribution, in standard deviations.
_MEDIAN_DEVIATION = 0.6745
_MEAN_DEVIATION = 0.7979


def check(values_N: np.ndarray) -> np.ndarray:
    """The values as (N,) float64. Raises InputError: none, or some that aren't finite."""
    values_N = np.asarray(values_N, np.float64)
    if values_N.ndim != 1 or not len(values_N):
        raise errors.InputError(f"values: expected one for each row, found shape {values_N.shape}")
    bad = np.flatnonzero(~np.isfinite(values_N))
    if len(bad):
        raise errors.InputError(
            f"values: expected finite numbers, found {values_N[bad[0]]} at row {bad[0]}"
        )
    return values_N


def of_score(scored: ScoreResult) -> tuple[float, str]:
    """The value above which a score suspects rows, and its source: 'own' or 'outliers'."""
    if scored.threshold is not None:
        return scored.threshold, "own"
    return outliers(scored.values_N), "outliers"


def outliers(values_N: np.ndarray) -> float:
    """The value above which rows are outliers: a modified z-score of more than 3.5.

    The modified z-score (Iglewicz and Hoaglin, "How to Detect and Handle Outliers", 1993) is
    0.6745 (x - median) / MAD. Losses and the like have a long right tail, so deviations are taken
    from the values above the median alone: with both sides, 4% of an exponential distribution
    would be outliers, so it is 1.4%, and 0.02% of a normal one either way. Where more than half of
    these values are the median itself, the MAD is 0 and the mean absolute deviation takes its
    place, as in the same source.

    Args:
      values_N: (N,) finite.

    Returns:
      The threshold, in units of the values. No row is above it where all that are above the median
      equal it.

    Raises:
      InputError: no values, or some that aren't finite.
    """
    values_N = check(values_N)
    median = float(np.median(values_N))
    deviations = values_N[values_N >= median] - median
    spread = float(np.median(deviations)) / _MEDIAN_DEVIATION
    if spread == 0:
        spread = float(np.mean(deviations)) / _MEAN_DEVIATION
    return median + CUTOFF * spread
