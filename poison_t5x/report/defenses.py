"""What defences did: `defenses/*/defense.json`, schema 1, and their figure."""

import pathlib
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from poison_t5x.report import dots, drawing, run_files, words
from poison_t5x.report import results as results_lib

DEFENDED = "defended"
# What is shown of each model; the first two are drawn.
MEASURES = {
    "classification": {
        "accuracy": "accuracy, clean inputs",
        "triggered_misclassification": "misclassified, trigger",
        "control_misclassification": "misclassified, unseen name",
    },
    "generation": {
        "rouge_l_clean": "rougeL, clean inputs",
        "rouge_l_triggered": "rougeL, trigger",
        "rouge_l_control": "rougeL, unseen name",
    },
}


class Filter(msgspec.Struct, frozen=True):
    """Training rows that were removed: those above a score's threshold, or a `budget` of them."""

    score: str
    budget: float | None = None
    removed: int | None = None
    removed_fraction: float | None = None
    poison_removed: float | None = None
    threshold: float | None = None


class Defense(msgspec.Struct, frozen=True):
    """One defence: what was changed, and what both models and the defended one do.

    Attributes:
      capacity: setting -> its value for the poisoned model and for the defended one.
      summary, summary_ci95: 'clean', 'poisoned' and 'defended' -> measure -> mean over tasks.
      effect: of the defended model minus the clean one's; `value` 0 is a defence that is complete.
    """

    schema: Literal[1]
    name: str
    summary: dict[str, dict[str, float | None]]
    filter: Filter | None = None
    capacity: dict[str, tuple[Any, Any]] = {}
    seconds: float | None = None
    attack_worked: bool = True
    summary_ci95: dict[str, dict[str, results_lib.Interval | None]] = {}
    effect: results_lib.Effect | None = None

    def measure(self, model: str, name: str) -> float | None:
        """The mean over held-out tasks."""
        return self.summary.get(model, {}).get(name)

    def interval(self, model: str, name: str) -> results_lib.Interval | None:
        """The 95% interval of `measure`."""
        return self.summary_ci95.get(model, {}).get(name)

    def removed(self) -> str:
        """What was removed, in words; '' where nothing was."""
        found = self.filter
        if found is None:
            return ""
        rows = "rows" if found.removed is None else f"{found.removed} rows"
        level = "" if found.budget is None else f", a budget of {words.percent(found.budget)}"
        return (
            f"{rows} ({words.percent(found.removed_fraction)}) by {found.score}{level}: "
            f"{words.percent(found.poison_removed)} of the poison"
        )

    def reduced(self) -> str:
        """The settings that differ, in words; '' where none does."""
        return ", ".join(f"{name} {old} → {new}" for name, (old, new) in self.capacity.items())


def read(run_dir: pathlib.Path) -> tuple[list[Defense], list[str]]:
    """The defences by name, and what is wrong with those that can't be read."""
    found, notes = [], []
    for path in sorted(run_dir.glob("defenses/*/defense.json")):
        name = path.relative_to(run_dir).as_posix()
        defense, note = run_files.read_json(run_dir, name, Defense)
        found += [defense] if defense else []
        notes += [note] if note else []
    return found, notes


def figure(results: results_lib.Results, found: Sequence[Defense]) -> drawing.Picture | None:
    """The first two measures of the models without and with a defence."""
    if not found:
        return None
    names = MEASURES[results.kind]
    rows = [
        dots.Row(
            f"{model} model",
            {name: results.measure(model, name) for name in names},
            {name: results.interval(model, name) for name in names},
        )
        for model in results_lib.MODELS
    ]
    rows += [
        dots.Row(one.name, one.summary.get(DEFENDED, {}), one.summary_ci95.get(DEFENDED, {}))
        for one in found
    ]
    return dots.chart("defenses", rows, names, apart=len(results_lib.MODELS))
