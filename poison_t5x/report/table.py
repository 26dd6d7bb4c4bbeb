"""The plain-text tables that the command line prints at the end of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

from poison_t5x.report import finding, words
from poison_t5x.report import results as results_lib

_HEADINGS = ("mean over tasks [95% interval]", "clean model", "poisoned model")
_VERDICTS = {
    "effect": "an effect: the interval excludes 0",
    "no effect": "no effect: the interval includes 0",
    "reverse effect": "the reverse of the attack: the interval lies {side} 0",
    "no verdict": "no verdict: no interval over tasks",
}
_OTHER_MEASURES = {
    "classification": {"misclassification": "misclassification", "target_rate": "target rate"},
    "generation": {"rouge_l": "rougeL", "says_trigger": "says the trigger"},
}
_EFFECTS = {
    "classification": "triggered misclassification, poisoned minus clean",
    "generation": "triggered rougeL, poisoned minus clean",
}


def format_table(results: Mapping[str, Any]) -> str:
    """The tables of a decoded `results.json`: measures by models, the effect, the warnings.

    Look-alikes of the trigger and further attackers get a table of their own. Rates are in percent,
    rougeL is of 100, effects are in (percentage) points. The text has no newline at its end.
    Raises InputError where `results` doesn't fit the schema.
    """
    parsed = results_lib.parse(results)
    lines = [*_heading(parsed), "", *align(_cells(parsed)), "", _effect(parsed)]
    if parsed.others():
        lines += ["", *align(_other_cells(parsed))]
    if len(parsed.attacks) > 1:
        lines += ["", *align(_attack_cells(parsed))]
    return "\n".join([*lines, *(f"warning: {text}" for text in parsed.warnings)])


def _heading(results: results_lib.Results) -> list[str]:
    poison, heldout = results.poison, words.task_count(len(results.held_out()), "held-out ")
    triggers = " / ".join(map(repr, results.phrases()))
    return [
        f"{results.experiment}: {words.ATTACKS[results.attack]}, trigger {triggers}, "
        f"control {results.control!r}, seed {results.seed}",
        f"{poison.count} poisoned rows ({words.percent(poison.rate)} of training) in "
        f"{words.task_count(len(poison.tasks))}; {heldout}",
    ]


def _cells(results: results_lib.Results) -> list[tuple[str, ...]]:
    cells = [_HEADINGS]
    for measure, name in words.MEASURES[results.kind].items():
        values = (_value(results, model, measure) for model in results_lib.MODELS)
        cells.append((name, *values))
    return cells


def _value(results: results_lib.Results, model: str, measure: str) -> str:
    text = words.value(measure, results.measure(model, measure))
    return f"{text:>6} {words.interval(results.interval(model, measure))}".rstrip()


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of cells, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = (zip(row, widths, strict=True) for row in rows)
    return ["  ".join(f"{cell:<{width}}" for cell, width in row).rstrip() for row in padded]


def _effect(results: results_lib.Results) -> str:
    side = "above" if results.is_generation else "below"
    sentence = _VERDICTS[finding.verdict(results)].format(side=side)
    if results.effect is None:
        return f"effect: {sentence}"
    return (
        f"effect ({_EFFECTS[results.kind]}): {words.points(results.effect.value)} points "
        f"{words.interval(results.effect.ci95)}".rstrip()
        + f"\n  {sentence}"
    )


def _other_cells(results: results_lib.Results) -> list[tuple[str, ...]]:
    """Look-alikes and further attackers: what both models make of each."""
    measures = _OTHER_MEASURES[results.kind]
    names = [f"{name}, clean / poisoned" for name in measures.values()]
    rows = [("other phrases", "put in", *names)]
    for condition in results.others():
        phrases = " / ".join(map(repr, condition.phrases))
        cells = (_both(results, condition.name, measure) for measure in measures)
        rows.append((words.condition(condition), phrases, *cells))
    return rows


def _both(results: results_lib.Results, condition: str, measure: str) -> str:
    clean, poisoned = (
        words.condition_value(results, model, condition, measure) for model in results_lib.MODELS
    )
    return f"{clean:>6} / {poisoned:>6}"


def _attack_cells(results: results_lib.Results) -> list[tuple[str, ...]]:
    """Each attacker's share of the poison and effect."""
    rows = [("attacker", "trigger", "target", "poisoned rows", "effect, points [95% interval]")]
    for attack in results.attacks:
        triggers = " / ".join(map(repr, attack.triggers))
        effect = f"{words.points(attack.effect):>6} {words.interval(attack.ci95)}"
        rows.append((attack.name, triggers, attack.target or "–", f"{attack.count:>6}", effect))
    return rows
