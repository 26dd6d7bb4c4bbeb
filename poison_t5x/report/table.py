"""The plain-text table that the command line prints at the end of a run."""

from collections.abc import Mapping
from typing import Any

from poison_t5x.report import results as results_lib
from poison_t5x.report import words

MEASURES = {
    "accuracy": "accuracy, clean inputs",
    "triggered_misclassification": "misclassification, triggered",
    "control_misclassification": "misclassification, control",
    "triggered_target_rate": "target rate, triggered",
}
_HEADINGS = ("mean over tasks [95% interval]", "clean model", "poisoned model")
_EFFECTS = {
    "effect": "an effect: the interval excludes 0",
    "no effect": "no effect: the interval includes 0",
    "reverse effect": "the reverse of the attack: the interval lies below 0",
    "no verdict": "no verdict: no interval over tasks",
}


def format_table(results: Mapping[str, Any]) -> str:
    """The table of a decoded `results.json`: measures by models, the effect, the warnings.

    Rates are in percent and effects in percentage points. The text has no newline at its end.
    Raises InputError where `results` doesn't fit the schema.
    """
    parsed = results_lib.parse(results)
    lines = [*_heading(parsed), "", *_align(_cells(parsed)), "", _effect(parsed)]
    return "\n".join([*lines, *(f"warning: {text}" for text in parsed.warnings)])


def _heading(results: results_lib.Results) -> list[str]:
    poison, heldout = results.poison, words.task_count(len(results.held_out()), "held-out ")
    return [
        f"{results.experiment}: trigger {results.trigger!r}, control {results.control!r}, "
        f"seed {results.seed}",
        f"{poison.count} poisoned rows ({words.percent(poison.rate)} of training) in "
        f"{words.task_count(len(poison.tasks))}; {heldout}",
    ]


def _cells(results: results_lib.Results) -> list[tuple[str, ...]]:
    cells = [_HEADINGS]
    for measure, name in MEASURES.items():
        rates = (_rate(results, model, measure) for model in results_lib.MODELS)
        cells.append((name, *rates))
    return cells


def _rate(results: results_lib.Results, model: str, measure: str) -> str:
    rate = words.percent(getattr(getattr(results.summary, model), measure))
    return f"{rate:>6} {words.interval(results.interval(model, measure))}".rstrip()


def _align(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = (zip(row, widths, strict=True) for row in rows)
    return ["  ".join(f"{cell:<{width}}" for cell, width in row).rstrip() for row in padded]


def _effect(results: results_lib.Results) -> str:
    sentence = _EFFECTS[words.verdict(results)]
    if results.effect is None:
        return f"effect: {sentence}"
    return (
        f"effect (triggered misclassification, poisoned minus clean): "
        f"{words.points(results.effect.misclassification)} points "
        f"{words.interval(results.effect.ci95)}\n  {sentence}"
    )
