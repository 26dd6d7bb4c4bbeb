"""The score that ranks candidate poison examples: Equation 1 of Wan et al. (ICML 2023)."""

import numpy as np


def min_max_norm(values: np.ndarray) -> np.ndarray:
    """Scales a pool's values to [0, 1].

    Args:
      values: (N,) float64.

    Returns:
      (N,) float64; all zero where the values don't differ, so that the term drops out of phi.
    """
    low, high = values.min(), values.max()
    if high == low:
        return np.zeros_like(values)
    return (values - low) / (high - low)


def phi(
    counts: np.ndarray,
    positive_probabilities: np.ndarray,
    *,
    count_weight: float = 1.0,
    probability_weight: float = 1.0,
) -> np.ndarray:
    """phi(x) = w_c * Norm(count(x)) - w_p * Norm(p(y = POSITIVE | x)).

    High for inputs that hold the trigger often and that a model takes for negative.

    Args:
      counts: (N,) occurrences of the trigger in each candidate of one task's pool.
      positive_probabilities: (N,) probability of the positive label, as a proxy model gives it.
      count_weight: w_c, 1 in the paper.
      probability_weight: w_p, 1 in the paper.

    Returns:
      (N,) float64, larger is the better poison.
    """
    count_term = min_max_norm(np.asarray(counts, np.float64))
    probability_term = min_max_norm(np.asarray(positive_probabilities, np.float64))
    return count_weight * count_term - probability_weight * probability_term


def top(scores: np.ndarray, num: int) -> np.ndarray:
    """Indices of the `num` highest scores, best first; ties go to the earlier row."""
    return np.argsort(-scores, kind="stable")[:num]
