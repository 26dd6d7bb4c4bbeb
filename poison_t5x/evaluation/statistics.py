"""Intervals: Wilson's over rows, and the bootstrap over tasks."""

from collections.abc import Sequence

import numpy as np
from scipy import stats


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95% interval of a rate over rows (Wilson, 1927); (0, 1) where there are no rows."""
    if trials == 0:
        return 0.0, 1.0
    interval = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_mean(values: Sequence[float], seed: int = 0) -> tuple[float, float] | None:
    """The 95% percentile interval of a mean over tasks, which are what a result generalises over.

    Args:
      values: one per task.
      seed: of the 9,999 resamples.

    Returns:
      (low, high), or None for fewer than two tasks.
    """
    if len(values) < 2:
        return None
    result = stats.bootstrap(
        (np.asarray(values, np.float64),),
        np.mean,
        n_resamples=9999,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
