"""Rows of one table, read from the run folders of a study's cells."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from poison_t5x.core import artifacts, metrics
from poison_t5x.studies import grid

Interval = tuple[float, float]
# (task, id) -> phi and p(target | x).
_Ranked = Mapping[tuple[str, str], tuple[float, float]]
# Macros of a cell that ranks the same candidates by the same rule with another model.
_OF_THE_PROXY = ("PROXY", "PROXY_CHECKPOINT_PATH", "PROXY_MAX_NGRAM")


@dataclasses.dataclass
class Measured:
    """Measures by name; of some, 95% intervals and held-out task -> value, whose mean they are."""

    values: dict[str, float | None] = dataclasses.field(default_factory=dict)
    intervals: dict[str, Interval] = dataclasses.field(default_factory=dict)
    by_task: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)

    def set(self, name: str, value: float | None, interval=None, by_task=None) -> None:
        self.values[name] = value
        if interval:
            self.intervals[name] = (float(interval[0]), float(interval[1]))
        if by_task:
            self.by_task[name] = dict(by_task)

    def copy(self, name: str, source: str) -> None:
        """Sets a measure to another one."""
        parts = (self.values, self.intervals, self.by_task)
        self.set(name, *(part.get(source) for part in parts))

    def subtract(self, name: str, first: str, second: str) -> None:
        """Sets the first minus the second, over the tasks that have both where tasks are known."""
        one, two = self.by_task.get(first, {}), self.by_task.get(second, {})
        by_task = {task: one[task] - two[task] for task in one if task in two}
        value, other = self.values.get(first), self.values.get(second)
        if by_task:
            value = sum(by_task.values()) / len(by_task)
        elif value is not None and other is not None:
            value -= other
        else:
            value = None
        self.set(name, value, None, by_task)


@dataclasses.dataclass(frozen=True)
class StudyRow:
    """A line of the table: a cell, or one of its scores or checkpoints.

    Attributes:
      status: 'done', 'failed' or 'not run'.
      error: the last line of a failed cell.
      score: None for a cell's own row.
      checkpoint: a step; None for the finished model.
      measure: of which `clean`, `poisoned` and `effect` are.
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


def read(cell: grid.StudyCell, folder: pathlib.Path) -> Iterator[StudyRow]:
    """The rows of a cell that is done: its own, then its scores' and checkpoints'.

    Raises:
      InputError: a file of it can't be read.
    """
    place: dict[str, Any] = {"cell": cell.name, "macros": cell.macros, "status": "done"}
    manifest = artifacts.read_json(folder / "poison" / "manifest.json")
    poison = {name: manifest[name] for name in ("num_poison", "poison_rate")}
    path = folder / "eval" / "results.json"
    if not path.is_file():  # crafted alone
        yield StudyRow(**place, measured=Measured(values=poison))
        return
    results = artifacts.read_json(path)
    own = _of_run(results)
    own.values.update(poison)
    place["measure"] = results["effect"]["measure"]
    _add_final(own, place["measure"], folder / "defenses" / grid.defense(cell))
    yield StudyRow(**place, measured=own)
    yield from _of_detection(folder / "detection" / "detection.json", {**place, "measure": None})
    checkpoints = folder / "eval" / "checkpoints.json"
    if checkpoints.is_file():
        for entry in artifacts.read_json(checkpoints)["checkpoints"]:
            yield StudyRow(**place, checkpoint=entry["step"], measured=_of_run(entry))


def _of_run(results: Mapping[str, Any]) -> Measured:
    """Of results.json, or of an entry of checkpoints.json."""
    measured = Measured()
    for model, summary in results["summary"].items():
        intervals = results["summary_ci95"].get(model, {})
        for name, value in summary.items():
            measure, by_task = metrics.measure(name), {}
            if measure:
                by_task = {
                    row["task"]: row[measure.rate]
                    for row in results["tasks"]
                    if (row["model"], row["condition"]) == (model, measure.condition)
                    if row.get(measure.rate) is not None
                }
            measured.set(f"{model}.{name}", value, intervals.get(name), by_task)
    effect = results["effect"]
    judged = metrics.judged_by(effect["measure"])
    measured.copy("clean", f"clean.{judged.effect}")
    for name, measure_name, change in (
        ("poisoned", judged.effect, "effect"),
        ("control", judged.control, "control_effect"),
        ("accuracy", judged.clean, "accuracy_change"),
    ):
        measured.copy(name, f"poisoned.{measure_name}")
        measured.subtract(change, f"poisoned.{measure_name}", f"clean.{measure_name}")
    measured.set("effect", effect["value"], effect.get("ci95"))
    return measured


def _add_final(measured: Measured, measure: str, folder: pathlib.Path) -> None:
    """The model that would be used in the end: the defended one, or the poisoned one as it is."""
    path = folder / "defense.json"
    if not path.is_file():
        measured.copy("final", "poisoned")
        measured.copy("final_accuracy", "accuracy")
        measured.copy("final_effect", "effect")
        measured.set("removed", 0.0)
        return
    defense = artifacts.read_json(path)
    intervals = defense["summary_ci95"].get("defended") or {}
    for name, value in defense["summary"]["defended"].items():
        by_task = _predicted(folder / "predictions", name)
        measured.set(f"defended.{name}", value, intervals.get(name), by_task)
    measured.copy("final", f"defended.{measure}")
    measured.copy("final_accuracy", f"defended.{metrics.judged_by(measure).clean}")
    measured.subtract("final_effect", f"defended.{measure}", f"clean.{measure}")
    effect, filtered = defense["effect"], defense["filter"] or {}
    measured.set("final_effect", effect["value"], effect.get("ci95"))
    measured.set("removed", filtered.get("removed_fraction", 0.0))
    measured.set("poison_removed", filtered.get("poison_removed", 0.0))


def _predicted(folder: pathlib.Path, name: str) -> dict[str, float]:
    """Task -> rate, from an evaluation's own files."""
    measure = metrics.measure(name)
    paths = sorted((folder / measure.condition).glob("*.json")) if measure else ()
    rates = {path.stem: artifacts.read_json(path).get(measure.rate) for path in paths}
    return {task: rate for task, rate in rates.items() if rate is not None}


def _of_detection(path: pathlib.Path, place: Mapping[str, Any]) -> Iterator[StudyRow]:
    if not path.is_file():
        return
    detection = artifacts.read_json(path)
    for entry in detection["scores"]:
        measured = _of_score(entry)
        for name in ("removed", "precision", "recall", "f1"):
            measured.set(f"threshold_{name}", (entry.get("threshold") or {}).get(name))
        yield StudyRow(**place, score=entry["name"], measured=measured)
    log = path.parents[1] / "models" / "poisoned" / "metrics.jsonl"
    logged = artifacts.read_jsonl(log) if log.is_file() else ()
    losses = {line["step"]: line["loss"] for line in logged if "loss" in line}
    for entry in detection["checkpoints"]:
        measured = _of_score(entry)
        seen = [step for step in losses if step <= entry["step"]]
        # As it was logged: nats per target token.
        measured.set("train_loss", losses[max(seen)] if seen else None)
        yield StudyRow(**place, score=entry["score"], checkpoint=entry["step"], measured=measured)


def _of_score(entry: Mapping[str, Any]) -> Measured:
    plain = ("auroc", "average_precision", "best_f1", "trigger_rank")
    values = {name: entry[name] for name in plain if name in entry}
    for name, prefix in (("recall", "recall"), ("data_removed_for", "removed_for")):
        values |= {f"{prefix}_{share}": v for share, v in (entry.get(name) or {}).items()}
    return Measured(values=values)


def add_agreement(
    rows: Sequence[StudyRow], base: Mapping[str, Any], folders: Mapping[str, pathlib.Path]
) -> None:
    """Adds what a cell's poison has in common with that of the cell with the n-gram proxy.

    `proxy_overlap`: the share of its poison rows that the other chose too. `phi_correlation` and
    `probability_correlation`: Spearman's rank correlation of phi, and of p(target | x), over the
    rows that both chose, within each task, then averaged over tasks; only where a cell's poison is
    all that there is to choose from does that cover the whole order. `proxy_common`: those rows.

    Args:
      base: macros that cells don't set.
      folders: cell -> its run folder.
    """
    own = [row for row in rows if row.status == "done" and row.score is row.checkpoint is None]
    proxies = [row.macros.get("PROXY", base.get("PROXY")) for row in own]
    if len(set(map(repr, proxies))) < 2:
        return
    pairs = zip(own, proxies, strict=True)
    reference = {_without_proxy(row): row for row, proxy in pairs if proxy == "ngrams"}
    for row in own:
        other = reference.get(_without_proxy(row))
        if other is not None and other is not row:
            one, two = _poison(folders[row.cell]), _poison(folders[other.cell])
            row.measured.values.update(agreement(one, two))


def _without_proxy(row: StudyRow) -> str:
    """The macros that two cells must have alike to be compared."""
    return repr(sorted(pair for pair in row.macros.items() if pair[0] not in _OF_THE_PROXY))


def _poison(folder: pathlib.Path) -> _Ranked:
    return {
        (row["task"], row["id"]): (row["phi"], row["target_probability"])
        for row in artifacts.read_jsonl(folder / "poison" / "poison.jsonl")
        if row.get("phi") is not None and row.get("target_probability") is not None
    }


def agreement(one: _Ranked, two: _Ranked) -> dict[str, float | None]:
    """The measures of `add_agreement`.

    >>> both = {("t", str(n)): (float(n), float(n)) for n in range(3)}
    >>> agreement(both, both)["phi_correlation"]
    1.0
    """
    from scipy import stats

    common = [key for key in one if key in two]
    measures: dict[str, float | None] = {"proxy_common": float(len(common))}
    measures["proxy_overlap"] = len(common) / len(one) if one else None
    for which, name in enumerate(("phi_correlation", "probability_correlation")):
        correlations = []
        for task in sorted({task for task, _ in common}):
            keys = [key for key in common if key[0] == task]
            first, second = ([side[key][which] for key in keys] for side in (one, two))
            if len(set(first)) > 1 and len(set(second)) > 1:
                correlations.append(float(stats.spearmanr(first, second).statistic))
        measures[name] = round(float(np.mean(correlations)), 12) if correlations else None
    return measures
