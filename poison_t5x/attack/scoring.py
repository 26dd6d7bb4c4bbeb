"""Which candidates of a pool become poison."""

from typing import NamedTuple, Protocol

import numpy as np

from poison_t5x.attack import attacks, phi, pools
from poison_t5x.corpus import polarity


class Proxy(Protocol):
    """A model that an attacker trains, in place of the one that will be attacked."""

    def positive_probabilities(self, pool: pools.Pool) -> np.ndarray:
        """p(y = POSITIVE | edited input) of each candidate: (N,) float64."""
        ...


class Scores(NamedTuple):
    """Of each candidate of one pool.

    Attributes:
      trigger_counts: (N,) int64, occurrences of its trigger in the edited text.
      target_probabilities: (N,) float64, p(y = target | edited text), or None where no proxy has a
        say.
      values: (N,) float64, what candidates are ranked by, or None for a random pick.
      order: (N,) int64, candidates, best first.
    """

    trigger_counts: np.ndarray
    target_probabilities: np.ndarray | None
    values: np.ndarray | None
    order: np.ndarray


def score(
    pool: pools.Pool,
    config: attacks.ScoreConfig,
    target: polarity.Side,
    proxy: Proxy | None,
    seed: int,
) -> Scores:
    """Ranks a pool.

    Args:
      pool: of one task.
      config: how to rank.
      target: the side that the attack wants: phi subtracts the probability of its label, which is
        the paper's p(y = POSITIVE | x) for 'positive'.
      proxy: where `config.needs_probabilities`.
      seed: of a random pick.
    """
    if not len(pool):  # a task without a place, whose share is no row
        return Scores(np.zeros(0, np.int64), None, None, np.zeros(0, np.int64))
    counts = np.zeros(len(pool), np.int64)
    lengths = np.ones(len(pool), np.int64)
    for index in range(len(pool)):
        text = pool.edit(index).text
        counts[index] = text.count(pool.trigger(index))
        if config.count_term == "per_token":
            lengths[index] = len(text.split())
        elif config.count_term == "per_character":
            lengths[index] = len(text)
    if config.selection == "random":
        rng = np.random.default_rng([seed, 1, *pool.task.name.encode()])
        return Scores(counts, None, None, rng.permutation(len(pool)))
    probabilities = None
    if config.needs_probabilities:
        assert proxy is not None
        positive = proxy.positive_probabilities(pool)
        probabilities = positive if target == "positive" else 1 - positive
    values = phi.phi(
        counts / lengths,
        np.zeros(len(pool)) if probabilities is None else probabilities,
        count_weight=1.0 if config.selection == "count" else config.count_weight,
        probability_weight=config.probability_weight,
    )
    ranked = -values if config.selection == "reverse" else values
    return Scores(counts, probabilities, values, phi.top(ranked, len(pool)))
