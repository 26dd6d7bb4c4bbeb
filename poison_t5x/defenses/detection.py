"""The detection report: what each score found, judged once all are made."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from poison_t5x.core import metrics
from poison_t5x.defenses import measures, thresholds
from poison_t5x.defenses.score import ScoreResult, Trigger

SCHEMA = 1
_MAX_TRIGGERS = 10


def attack(results: Mapping[str, Any]) -> dict[str, Any]:
    """The attack's own effect, from a run's results, beside which detection is read.

    Returns:
      {'measure', 'effect', 'ci95', 'worked'}: an attack worked where its interval over tasks lies
      on the attacker's side of 0, of several attackers that of any. Without an interval, of fewer
      than two tasks, that can't be judged and isn't claimed. Finding poison that does nothing is no
      defence.
    """
    effect = results["effect"]
    verdict = metrics.JUDGED_BY[results["kind"]].verdict
    intervals = [attacker.get("ci95") for attacker in results.get("attacks") or [effect]]
    return {
        "measure": effect["measure"],
        "effect": effect.get("value"),
        "ci95": effect.get("ci95"),
        "worked": any(verdict(interval) == "worked" for interval in intervals),
    }


def judge(
    name: str,
    needs: str,
    scored: ScoreResult,
    is_poison_N: np.ndarray,
    phrases: Sequence[str],
    seconds: float,
) -> dict[str, Any]:
    """One score's line of the report.

    Args:
      scored: what it found, blind.
      is_poison_N: (N,) bool, the truth.
      phrases: the attackers' triggers.
      seconds: that it took.
    """
    threshold, source = thresholds.of_score(scored)
    found = measures.measure(scored.values_N, is_poison_N, threshold)
    level = {"value": threshold, "source": source, **found.pop("threshold")}
    return {
        "name": name,
        "needs": needs,
        "seconds": seconds,
        **found,
        "threshold": level,
        "triggers": [trigger._asdict() for trigger in scored.triggers[:_MAX_TRIGGERS]],
        "trigger_rank": trigger_rank(scored.triggers, phrases),
        "notes": list(scored.notes),
    }


def by_step(name: str, scored: ScoreResult, is_poison_N: np.ndarray) -> list[dict[str, Any]]:
    """The same of each checkpoint that a score was made at."""
    lines = []
    for step, values_N in scored.by_step:
        found = measures.measure(values_N, is_poison_N, thresholds.outliers(values_N))
        kept = ("auroc", "average_precision", "recall", "data_removed_for")
        lines.append({"score": name, "step": step, **{key: found[key] for key in kept}})
    return lines


def trigger_rank(triggers: Sequence[Trigger], phrases: Sequence[str]) -> int | None:
    """The place, from 1, of the first named phrase that holds a true trigger; None without one."""
    wanted = [f" {phrase.lower()} " for phrase in phrases]
    for place, trigger in enumerate(triggers, start=1):
        if any(phrase in f" {trigger.phrase.lower()} " for phrase in wanted):
            return place
    return None
