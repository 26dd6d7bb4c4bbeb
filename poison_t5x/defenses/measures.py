"""How well a score's values tell poison from clean rows, and a threshold from the values alone.

Rows of equal value have no order of their own. What a defender would get who removes rows in order
of suspicion is therefore an expected value over all orders of equal rows, never that of their order
in a file.
"""

import math
from typing import Any

import numpy as np

from poison_t5x.core import errors
from poison_t5x.defenses.score import ScoreResult

# Of modified z-scores, as Iglewicz and Hoaglin (1993) advise.
CUTOFF = 3.5
# Median and mean absolute deviation of a normal distribution, in standard deviations.
_MEDIAN_DEVIATION = 0.6745
_MEAN_DEVIATION = 0.7979
BUDGETS = (0.01, 0.05, 0.1)
SHARES = (0.5, 0.8, 0.9)
MAX_POINTS = 200
# Fractions such as 0.29 * 100 fall short of the whole number that they mean.
_ROUNDING = 1e-9


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


def threshold(result: ScoreResult) -> tuple[float, str]:
    """The value above which a score suspects rows, and its source: 'own' or 'outliers'."""
    if result.threshold is not None:
        return result.threshold, "own"
    return outliers(result.values_N), "outliers"


def outliers(values_N: np.ndarray) -> float:
    """The value above which rows are outliers, in its units: a modified z-score of more than 3.5.

    The modified z-score (Iglewicz and Hoaglin, "How to Detect and Handle Outliers", 1993) is
    0.6745 (x - median) / MAD. Losses and the like have a long right tail, so deviations are taken
    from the values above the median alone: with both sides, 4% of an exponential distribution
    would be outliers, so it is 1.4%, and 0.02% of a normal one either way. Where more than half of
    these values are the median itself, the MAD is 0 and the mean absolute deviation takes its
    place, as in the same source. No row is above it where all that are above the median equal it.
    """
    values_N = check(values_N)
    median = float(np.median(values_N))
    deviations = values_N[values_N >= median] - median
    spread = float(np.median(deviations)) / _MEDIAN_DEVIATION
    if spread == 0:
        spread = float(np.mean(deviations)) / _MEAN_DEVIATION
    return median + CUTOFF * spread


def budget_rows(budget: float, num_rows: int) -> int:
    """How many of `num_rows` rows a budget, in [0, 1], lets remove: rounded down.

    >>> budget_rows(0.05, 5010)
    250
    """
    return math.floor(budget * num_rows + _ROUNDING)


def order(values_N: np.ndarray, seed: int = 0) -> np.ndarray:
    """Rows by suspicion: (N,) int64, the highest value first, equal ones in a seeded order."""
    values_N = check(values_N)
    lots_N = np.random.default_rng(seed).permutation(len(values_N))
    return np.lexsort((lots_N, -values_N))


def measure(values_N: np.ndarray, is_poison_N: np.ndarray, threshold: float) -> dict[str, Any]:
    """All that is reported of a score; rows whose value is above the threshold are removed.

    Returns:
      JSON values: `auroc`; `average_precision` (rows of equal value count as one step); `recall`,
      the share of the poison among the first rows of each budget of BUDGETS; `threshold` with
      `removed` (share of all rows), `precision` (0 where nothing is removed), `recall` and `f1` at
      the given one; `best_f1` over all thresholds; `data_removed_for`, the share of all rows that
      must go to lose each share of the poison of SHARES; `curve`, at most 200 points
      (share of all rows removed, share of the poison removed), from [0, 0] to [1, 1].

    Raises:
      InputError: values that aren't finite, lengths that differ, no poison or nothing else.
    """
    values_N, is_poison_N = check(values_N), np.asarray(is_poison_N, bool)
    num_rows, num_poison = len(values_N), int(is_poison_N.sum())
    if is_poison_N.shape != values_N.shape or not 0 < num_poison < num_rows:
        raise errors.InputError(
            f"expected poison and clean rows among {num_rows}, found {num_poison} poisoned "
            f"of {len(is_poison_N)}"
        )
    # Here, not above: scikit-learn takes a second to import.
    from sklearn import metrics

    # Rows and poison removed after each group of equal values, from 0.
    ranked_N = np.argsort(-values_N, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(values_N[ranked_N])), num_rows - 1)
    removed_G = np.append(0, ends + 1)
    poison_G = np.append(0, np.cumsum(is_poison_N[ranked_N])[ends])
    return {
        "auroc": float(metrics.roc_auc_score(is_poison_N, values_N)),
        "average_precision": float(metrics.average_precision_score(is_poison_N, values_N)),
        # Poison among the first rows: within a group, it grows with each row alike.
        "recall": {
            f"{budget:g}": float(np.interp(budget_rows(budget, num_rows), removed_G, poison_G))
            / num_poison
            for budget in BUDGETS
        },
        "threshold": _at(values_N > threshold, is_poison_N),
        "best_f1": float(np.max(2 * poison_G / (removed_G + num_poison))),
        "data_removed_for": {
            f"{share:g}": _needed(removed_G, poison_G, share) / num_rows for share in SHARES
        },
        "curve": _curve(removed_G / num_rows, poison_G / num_poison),
    }


def _needed(removed_G: np.ndarray, poison_G: np.ndarray, share: float) -> int:
    """The fewest rows whose removal is expected to lose a share of the poison."""
    wanted = share * poison_G[-1]
    group = int(np.searchsorted(poison_G, wanted - _ROUNDING))
    low, high = poison_G[group - 1], poison_G[group]
    part = (wanted - low) / (high - low) * (removed_G[group] - removed_G[group - 1])
    return int(removed_G[group - 1]) + math.ceil(part - _ROUNDING)


def _at(is_removed_N: np.ndarray, is_poison_N: np.ndarray) -> dict[str, float]:
    hits, removed = int((is_removed_N & is_poison_N).sum()), int(is_removed_N.sum())
    return {
        "removed": removed / len(is_poison_N),
        "precision": hits / removed if removed else 0.0,
        "recall": hits / int(is_poison_N.sum()),
        "f1": 2 * hits / (removed + int(is_poison_N.sum())),
    }


def _curve(removed_G: np.ndarray, poison_G: np.ndarray) -> list[list[float]]:
    """Points evenly spread along the curve: evenly over rows, few would show its steep part."""
    walked_G = removed_G + poison_G
    stops = np.linspace(0, walked_G[-1], MAX_POINTS)
    places = np.unique(np.minimum(np.searchsorted(walked_G, stops - _ROUNDING), len(walked_G) - 1))
    return np.stack([removed_G[places], poison_G[places]], axis=1).tolist()
