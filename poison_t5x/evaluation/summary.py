"""All rates of an experiment in one object: `results.json`, schema 1."""

import pathlib
from collections.abc import Sequence

import numpy as np

from poison_t5x import artifacts, mixtures
from poison_t5x.evaluation import statistics

# From this clean-model rate on, a task leaves an attack nothing to show.
SATURATED = 0.9
MODELS = mixtures.VARIANTS
# Summary's name -> (condition, rate).
_SUMMARY = {
    "accuracy": ("clean", "accuracy"),
    "triggered_misclassification": ("triggered", "misclassification"),
    "control_misclassification": ("control", "misclassification"),
    "triggered_target_rate": ("triggered", "target_rate"),
}


def task_rows(predictions_dir: pathlib.Path) -> list[dict]:
    """The rates of each (model, condition, task), read from the evaluation's folders."""
    rows = []
    for model in MODELS:
        for condition in mixtures.CONDITIONS:
            for path in sorted((predictions_dir / model / condition).glob("*.json")):
                rates = artifacts.read_json(path)
                rows.append(
                    {
                        "task": path.stem,
                        "model": model,
                        "condition": condition,
                        "n": int(rates["n"]),
                        "accuracy": rates["accuracy"],
                        "misclassification": rates["misclassification"],
                        "target_rate": rates["target_rate"],
                        "ci95": [rates["ci95_low"], rates["ci95_high"]],
                        "constant_prediction": bool(rates["constant_prediction"]),
                    }
                )
    return rows


def _values(rows: Sequence[dict], model: str, condition: str, rate: str) -> dict[str, float]:
    """Task -> rate."""
    return {
        row["task"]: row[rate]
        for row in rows
        if row["model"] == model and row["condition"] == condition
    }


def summarize(rows: Sequence[dict], seed: int) -> dict:
    """Means over held-out tasks with bootstrap intervals, the effect, and warnings.

    Args:
      rows: from `task_rows`.
      seed: of the bootstrap.

    Returns:
      {'summary', 'summary_ci95', 'effect', 'warnings'}. The effect is the triggered
      misclassification of the poisoned model minus the clean one's, task by task.
    """
    summary: dict[str, dict] = {}
    intervals: dict[str, dict] = {}
    for model in MODELS:
        values = {
            name: list(_values(rows, model, *place).values()) for name, place in _SUMMARY.items()
        }
        summary[model] = {name: float(np.mean(v)) if v else None for name, v in values.items()}
        found = {name: statistics.bootstrap_mean(v, seed) for name, v in values.items()}
        intervals[model] = {name: list(pair) for name, pair in found.items() if pair}
    triggered = [_values(rows, model, "triggered", "misclassification") for model in MODELS]
    differences = [triggered[1][task] - triggered[0][task] for task in triggered[0]]
    effect: dict = {"misclassification": float(np.mean(differences)) if differences else None}
    interval = statistics.bootstrap_mean(differences, seed)
    if interval:
        effect["ci95"] = list(interval)
    return {
        "summary": summary,
        "summary_ci95": intervals,
        "effect": effect,
        "warnings": _warnings(rows),
    }


def _warnings(rows: Sequence[dict]) -> list[str]:
    warnings = []
    for model in MODELS:
        tasks = [
            row["task"]
            for row in rows
            if row["model"] == model and row["condition"] == "clean" and row["constant_prediction"]
        ]
        if tasks:
            warnings.append(
                f"the {model} model gives one answer to all clean inputs of {', '.join(tasks)}: "
                "its rates there say nothing about the trigger"
            )
    clean = _values(rows, "clean", "triggered", "misclassification")
    saturated = [task for task, rate in clean.items() if rate >= SATURATED]
    if saturated:
        warnings.append(
            f"saturated: the clean model already misclassifies {SATURATED:.0%} or more of the "
            f"triggered inputs of {', '.join(saturated)}"
        )
    return warnings
