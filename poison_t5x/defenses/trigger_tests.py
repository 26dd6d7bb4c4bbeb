"""Whether a phrase goes with an answer more often than it honestly could.

A phrase's rows are compared with what the rest of their words predicts. An honest phrase adds
something to it ("wonderful" is no accident in a praising review), which is what `pull` stands for:
nats by which a phrase may raise an answer's log-odds without being a trigger. A trigger overrules
whatever the rest says.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# Probability of a pull being smaller than the lower limit that is taken for it.
_LIMIT = 0.05
_MAX_PULL = 25.0


class Evidence(NamedTuple):
    """A phrase's rows in one task, against one answer, picked among `num_answers`.

    Attributes:
      rows_K: (K,) int64, the rows that hold the phrase.
      logits_K: (K,) log-odds of the answer by all that isn't the phrase, in nats.
      hits_K: (K,) bool, whether the row has the answer.
    """

    task: str
    target: str
    num_answers: int
    rows_K: np.ndarray
    logits_K: np.ndarray
    hits_K: np.ndarray

    @property
    def hit_rate(self) -> float:
        return float(self.hits_K.mean())


class Verdict(NamedTuple):
    """The strongest case against a phrase, of one answer for each of its tasks.

    Its hits are `z` standard deviations of a normal distribution beyond chance; `log_p` is the
    natural logarithm of the tail probability, corrected for the choice of tasks and answers, but
    not for the number of phrases, so that it may be above 0.
    """

    z: float
    log_p: float
    case: Sequence[Evidence]


def log_tail(hits: Any, rows: Any, mean: Any) -> np.ndarray:
    """Log of the probability of so many hits or more, in nats.

    Rows have chances of their own, but the binomial tail of their mean is no smaller than the exact
    one where there is at least one hit more than expected (Hoeffding, 1956, "On the Distribution of
    the Number of Successes in Independent Trials"), or where all rows are hits. Elsewhere it is
    taken for 1. Where the tail is too small for a float, Chernoff's bound takes its place.

    Args:
      hits, rows: counts, float64.
      mean: of the rows' chances, in (0, 1).
    """
    from scipy import special, stats

    with np.errstate(divide="ignore"):
        exact = np.asarray(stats.binom.logsf(hits - 1, rows, mean))
    share = hits / np.maximum(rows, 1)
    bound = -rows * (special.rel_entr(share, mean) + special.rel_entr(1 - share, 1 - mean))
    is_bound = (hits >= rows * mean + 1) | ((hits == rows) & (rows > 0))
    return np.where(is_bound, np.where(np.isneginf(exact), bound, exact), 0.0)


def strongest(evidence: Mapping[str, Sequence[Evidence]], pull: float) -> Verdict | None:
    """The case that is least probable for a phrase with an honest pull.

    In each task the answer is the one that is hit most beyond chance, and of the tasks those that
    make the best case together, as a phrase may well be innocent elsewhere; both choices are paid
    for (Bonferroni). None without any hit.

    Args:
      evidence: task -> one for each answer that a row has.
      pull: by which the phrase may raise an answer's log-odds, in nats.
    """
    from scipy import special

    best = [min(each, key=lambda e: _log_p([e], pull)) for each in evidence.values() if each]
    best.sort(key=lambda e: _log_p([e], pull) + np.log(e.num_answers))
    verdicts = []
    for size in range(1, len(best) + 1):
        case = best[:size]
        choices = np.log(len(best)) + np.log(special.binom(len(best), size))
        choices += sum(np.log(e.num_answers) for e in case)
        verdicts.append(_verdict(case, pull, float(choices)))
    return max(verdicts, key=lambda verdict: verdict.z, default=None)


def least_pull(case: Sequence[Evidence]) -> float:
    """The lower limit, at 95%, of the nats by which a phrase raises its answers' log-odds."""
    low, high = -_MAX_PULL, _MAX_PULL
    for _ in range(30):
        middle = (low + high) / 2
        if _log_p(case, middle) < np.log(_LIMIT):
            low = middle
        else:
            high = middle
    return low


def _totals(case: Sequence[Evidence], pull: float) -> tuple[np.ndarray, ...]:
    """Hits, rows, and their mean chance, as `log_tail` takes them."""
    from scipy import special

    chances = np.concatenate([special.expit(e.logits_K + pull) for e in case])
    hits = sum(e.hits_K.sum() for e in case)
    return np.array(float(hits)), np.array(float(len(chances))), chances.mean()


def _log_p(case: Sequence[Evidence], pull: float) -> float:
    return float(log_tail(*_totals(case, pull)))


def _verdict(case: Sequence[Evidence], pull: float, log_choices: float) -> Verdict:
    """The z is that of the corrected tail where that is below a half.

    Elsewhere, where tails tell little, it is the normal approximation's z, less the z of one of so
    many choices; at most 0.
    """
    from scipy import special

    log_p = _log_p(case, pull) + log_choices
    if log_p < np.log(0.5):
        return Verdict(float(-special.ndtri_exp(log_p)), log_p, case)
    hits, rows, mean = _totals(case, pull)
    beyond = (hits - rows * mean) / np.sqrt(rows * mean * (1 - mean))
    return Verdict(min(0.0, float(beyond + special.ndtri_exp(-log_choices))), log_p, case)
