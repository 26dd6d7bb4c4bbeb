"""What the cells of a study measured: rows of one table, read from their run folders."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from poison_t5x.core import artifacts
from poison_t5x.studies import cells

Interval = tuple[float, float]
# A summary's measure -> the condition and the rate of a task that it is the mean of.
_RATES = {
    "accuracy": ("clean", "accuracy"),
    "triggered_misclassification": ("triggered", "misclassification"),
    "control_misclassification": ("control", "misclassification"),
    "rouge_l_clean": ("clean", "rouge_l"),
    "rouge_l_triggered": ("triggered", "rouge_l"),
    "rouge_l_control": ("control", "rouge_l"),
}
_CONTROLS = {
    "triggered_misclassification": "control_misclassification",
    "rouge_l_triggered": "rouge_l_control",
}
_ACCURACIES = {
    "triggered_misclassification": "accuracy",
    "rouge_l_triggered": "rouge_l_clean",
}
_PLAIN = ("auroc", "average_precision", "best_f1", "trigger_rank")
_OF_THRESHOLD = ("removed", "precision", "recall", "f1")


@dataclasses.dataclass
class Measured:
    """Measures by name.

    Attributes:
      values: fractions, or None where there is none.
      intervals: 95%, of some.
      by_task: of some, held-out task -> the value that the measure is the mean of.
    """

    values: dict[str, float | None] = dataclasses.field(default_factory=dict)
    intervals: dict[str, Interval] = dataclasses.field(default_factory=dict)
    by_task: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)

    def set(self, name: str, value: float | None, interval=None, by_task=None) -> None:
        self.values[name] = value
        if interval:
            self.intervals[name] = (float(interval[0]), float(interval[1]))
        if by_task:
            self.by_task[name] = dict(by_task)


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table: a cell, or one of its scores or checkpoints.

    Attributes:
      cell: its name.
      macros: what the cell sets.
      status: 'done', 'failed' or 'not run'.
      error: the last line of a failed cell.
      score: whose row it is; None for a cell's own row.
      checkpoint: the step that it was made at; None for the finished model.
      measure: what `clean`, `poisoned` and `effect` are of.
      measured: what was measured.
    """

    cell: str
    macros: Mapping[str, Any]
    status: str
    error: str = ""
    score: str | None = None
    checkpoint: int | None = None
    measure: str | None = None
    measured: Measured = dataclasses.field(default_factory=Measured)

    def value(self, name: str) -> float | None:
        return self.measured.values.get(name)


def read(cell: cells.Cell, folder: pathlib.Path) -> Iterator[Row]:
    """The rows of a cell that is done: its own, then its scores' and checkpoints'.

    Raises:
      InputError: a file of it can't be read.
    """
    place: dict[str, Any] = {"cell": cell.name, "macros": cell.macros, "status": "done"}
    poison = _poison(folder)
    path = folder / "eval" / "results.json"
    if not path.is_file():  # crafted alone
        yield Row(**place, measured=poison)
        return
    results = artifacts.read_json(path)
    measure = results["effect"]["measure"]
    own = _of_run(results)
    own.values.update(poison.values)
    _add_final(own, measure, folder / "defenses" / cells.defense(cell))
    yield Row(**place, measure=measure, measured=own)
    yield from _of_detection(folder / "detection" / "detection.json", place)
    checkpoints = folder / "eval" / "checkpoints.json"
    if checkpoints.is_file():
        for entry in artifacts.read_json(checkpoints)["checkpoints"]:
            yield Row(**place, checkpoint=entry["step"], measure=measure, measured=_of_run(entry))


def _poison(folder: pathlib.Path) -> Measured:
    manifest = artifacts.read_json(folder / "poison" / "manifest.json")
    found = Measured()
    found.set("num_poison", manifest["num_poison"])
    found.set("poison_rate", manifest["poison_rate"])
    return found


def _of_run(results: Mapping[str, Any]) -> Measured:
    """Of results.json, or of an entry of checkpoints.json."""
    found = Measured()
    rates = _task_rates(results["tasks"])
    for model, summary in results["summary"].items():
        intervals = results["summary_ci95"].get(model, {})
        for name, value in summary.items():
            by_task = rates.get((model, *_RATES[name])) if name in _RATES else None
            found.set(f"{model}.{name}", value, intervals.get(name), by_task)
    effect = results["effect"]
    measure = effect["measure"]
    control, accuracy = _CONTROLS[measure], _ACCURACIES[measure]
    _copy(found, "clean", f"clean.{measure}")
    _copy(found, "poisoned", f"poisoned.{measure}")
    _copy(found, "control", f"poisoned.{control}")
    _copy(found, "accuracy", f"poisoned.{accuracy}")
    _difference(found, "effect", f"poisoned.{measure}", f"clean.{measure}")
    _difference(found, "control_effect", f"poisoned.{control}", f"clean.{control}")
    _difference(found, "accuracy_change", f"poisoned.{accuracy}", f"clean.{accuracy}")
    found.set("effect", effect["value"], effect.get("ci95"), found.by_task.get("effect"))
    return found


def _task_rates(tasks: list[Mapping[str, Any]]) -> dict[tuple[str, str, str], dict[str, float]]:
    """(model, condition, rate) -> task -> value."""
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in tasks:
        for rate in ("accuracy", "misclassification", "rouge_l"):
            if row.get(rate) is not None:
                key = (row["model"], row["condition"], rate)
                found.setdefault(key, {})[row["task"]] = row[rate]
    return found


def _copy(found: Measured, name: str, source: str) -> None:
    found.set(
        name,
        found.values.get(source),
        found.intervals.get(source),
        found.by_task.get(source),
    )


def _difference(found: Measured, name: str, first: str, second: str) -> None:
    """A measure minus another, over the tasks that have both where tasks are known."""
    one, two = found.by_task.get(first, {}), found.by_task.get(second, {})
    by_task = {task: one[task] - two[task] for task in one if task in two}
    whole = [found.values.get(source) for source in (first, second)]
    value: float | None = None
    if by_task:
        value = sum(by_task.values()) / len(by_task)
    elif whole[0] is not None and whole[1] is not None:
        value = whole[0] - whole[1]
    found.set(name, value, None, by_task)


def _add_final(found: Measured, measure: str, folder: pathlib.Path) -> None:
    """The model that would be used in the end: the defended one, or the poisoned one as it is."""
    accuracy = _ACCURACIES[measure]
    path = folder / "defense.json"
    if not path.is_file():
        for name, source in (("final", "poisoned"), ("final_accuracy", "accuracy")):
            _copy(found, name, source)
        _copy(found, "final_effect", "effect")
        found.set("removed", 0.0)
        return
    defense = artifacts.read_json(path)
    for name, value in defense["summary"]["defended"].items():
        interval = (defense["summary_ci95"].get("defended") or {}).get(name)
        by_task = _predicted(folder / "predictions", name)
        found.set(f"defended.{name}", value, interval, by_task)
    _copy(found, "final", f"defended.{measure}")
    _copy(found, "final_accuracy", f"defended.{accuracy}")
    _difference(found, "final_effect", f"defended.{measure}", f"clean.{measure}")
    effect = defense["effect"]
    by_task = found.by_task.get("final_effect")
    found.set("final_effect", effect["value"], effect.get("ci95"), by_task)
    filtered = defense["filter"] or {}
    found.set("removed", filtered.get("removed_fraction", 0.0))
    found.set("poison_removed", filtered.get("poison_removed", 0.0))


def _predicted(folder: pathlib.Path, measure: str) -> dict[str, float]:
    """Task -> rate, from an evaluation's own files."""
    if measure not in _RATES:
        return {}
    condition, rate = _RATES[measure]
    found = {}
    for path in sorted((folder / condition).glob("*.json")):
        value = artifacts.read_json(path).get(rate)
        if value is not None:
            found[path.stem] = value
    return found


def _of_detection(path: pathlib.Path, place: dict[str, Any]) -> Iterator[Row]:
    if not path.is_file():
        return
    detection = artifacts.read_json(path)
    for entry in detection["scores"]:
        found = _of_score(entry)
        threshold = entry.get("threshold") or {}
        for name in _OF_THRESHOLD:
            found.set(f"threshold_{name}", threshold.get(name))
        yield Row(**place, score=entry["name"], measured=found)
    losses = _training_losses(path.parents[1] / "models" / "poisoned" / "metrics.jsonl")
    for entry in detection["checkpoints"]:
        found = _of_score(entry)
        seen = [step for step in losses if step <= entry["step"]]
        found.set("train_loss", losses[max(seen)] if seen else None)
        yield Row(**place, score=entry["score"], checkpoint=entry["step"], measured=found)


def _training_losses(path: pathlib.Path) -> dict[int, float]:
    """Step -> loss, as it was logged: nats per target token."""
    if not path.is_file():
        return {}
    return {line["step"]: line["loss"] for line in artifacts.read_jsonl(path) if "loss" in line}


def _of_score(entry: Mapping[str, Any]) -> Measured:
    found = Measured()
    for name in _PLAIN:
        if name in entry:
            found.set(name, entry[name])
    for share, value in (entry.get("recall") or {}).items():
        found.set(f"recall_{share}", value)
    for share, value in (entry.get("data_removed_for") or {}).items():
        found.set(f"removed_for_{share}", value)
    return found
