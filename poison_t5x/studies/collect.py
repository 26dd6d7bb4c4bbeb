"""Rows of one table, read from the run folders of a study's cells."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from poison_t5x.attack import poison_set
from poison_t5x.core import metrics, reading
from poison_t5x.core.metrics import DEFENDED
from poison_t5x.core.settings import NotNegative, Number, Whole
from poison_t5x.report import run_files
from poison_t5x.report.results import Effect
from poison_t5x.report.tables import Interval
from poison_t5x.studies import grid

# (task, id) -> phi and p(target | x).
_Ranked = Mapping[tuple[str, str], tuple[float, float]]
# Macros of a cell that ranks the same candidates by the same rule with another model.
_OF_THE_PROXY = ("PROXY", "PROXY_CHECKPOINT_PATH", "PROXY_MAX_NGRAM")


# Of a task's file of rates.
_RATES = dict[str, bool | Number | None]


class _Run(run_files.Checkpoint, frozen=True, kw_only=True):
    """The part of results.json that is read, or an entry of checkpoints.json."""

    effect: Effect


class _ByStep(msgspec.Struct, frozen=True):
    checkpoints: list[_Run]


class _Defended(run_files.DefendedRun, frozen=True, kw_only=True):
    effect: Effect


class _Manifest(msgspec.Struct, frozen=True):
    num_poison: Whole
    poison_rate: NotNegative


class Value(NamedTuple):
    """A measure's value, its 95% interval, and held-out task -> value, whose mean it is."""

    value: float | None = None
    interval: Interval | None = None
    by_task: Mapping[str, float] = {}

    def stated(self, value: float | None, interval: Sequence[float] | None) -> "Value":
        """The same tasks, with a value and an interval as a file has them."""
        return self._replace(value=value, interval=interval and (*map(float, interval),))

    def minus(self, other: "Value") -> "Value":
        """Over the tasks that both have where tasks are known; without an interval."""
        tasks = [task for task in self.by_task if task in other.by_task]
        by_task = {task: self.by_task[task] - other.by_task[task] for task in tasks}
        if by_task:
            return Value(sum(by_task.values()) / len(by_task), None, by_task)
        is_known = self.value is not None and other.value is not None
        return Value(self.value - other.value if is_known else None)


Measures = dict[str, Value]


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
    measures: Measures = dataclasses.field(default_factory=dict)

    def value(self, name: str) -> float | None:
        return self.measures.get(name, Value()).value


def read(cell: grid.StudyCell, folder: pathlib.Path) -> Iterator[StudyRow]:
    """The rows of a cell that is done: its own, then its scores' and checkpoints'.

    Raises:
      InputError: a file of it can't be read.
    """
    place: dict[str, Any] = {"cell": cell.name, "macros": cell.macros, "status": "done"}
    manifest = reading.read_json(folder / "poison" / poison_set.MANIFEST, _Manifest)
    poison = {"num_poison": Value(manifest.num_poison), "poison_rate": Value(manifest.poison_rate)}
    path = folder / "eval" / "results.json"
    if not os.path.lexists(path):  # crafted alone
        yield StudyRow(**place, measures=poison)
        return
    results = reading.read_json(path, _Run)
    own, measure = _of_run(results), results.effect.measure
    final = _final(own, measure, folder / "defenses" / grid.defense(cell))
    yield StudyRow(**place, measure=measure, measures=own | poison | final)
    yield from _of_detection(folder, place)
    checkpoints = folder / "eval" / "checkpoints.json"
    if os.path.lexists(checkpoints):
        for entry in reading.read_json(checkpoints, _ByStep).checkpoints:
            at = {"measure": measure, "checkpoint": entry.step}
            yield StudyRow(**place, **at, measures=_of_run(entry))


def _of_run(results: _Run) -> Measures:
    """Of results.json, or of an entry of checkpoints.json."""
    measures: Measures = {}
    for model, summary in results.summary.items():
        for name, value in summary.items():
            measure, by_task = metrics.measure(name), {}
            if measure:
                by_task = {
                    row.task: rate
                    for row in results.tasks
                    if (row.model, row.condition) == (model, measure.condition)
                    if (rate := getattr(row, measure.rate)) is not None
                }
            interval = results.interval(model, name)
            measures[f"{model}.{name}"] = Value(by_task=by_task).stated(value, interval)
    effect = results.effect
    judged = metrics.judged_by(effect.measure)
    measures["clean"] = measures.get(f"clean.{judged.effect}", Value())
    for name, measure_name, change in (
        ("poisoned", judged.effect, "effect"),
        ("control", judged.control, "control_effect"),
        ("accuracy", judged.clean, "accuracy_change"),
    ):
        clean = measures.get(f"clean.{measure_name}", Value())
        measures[name] = measures.get(f"poisoned.{measure_name}", Value())
        measures[change] = measures[name].minus(clean)
    measures["effect"] = measures["effect"].stated(effect.value, effect.ci95)
    return measures


def _final(own: Measures, measure: str, folder: pathlib.Path) -> Measures:
    """The model that would be used in the end: the defended one, or the poisoned one as it is."""
    path, accuracy = folder / "defense.json", metrics.judged_by(measure).clean
    if not os.path.lexists(path):
        same = {"final": "poisoned", "final_accuracy": "accuracy", "final_effect": "effect"}
        return {**{name: own[other] for name, other in same.items()}, "removed": Value(0.0)}
    defense = reading.read_json(path, _Defended)
    defended = {
        name: _predicted(folder / "predictions", name).stated(
            value, defense.interval(DEFENDED, name)
        )
        for name, value in defense.summary.get(DEFENDED, {}).items()
    }
    final, removed = defended.get(measure, Value()), defense.filter
    effect, stated = final.minus(own.get(f"clean.{measure}", Value())), defense.effect
    return {
        **{f"defended.{name}": value for name, value in defended.items()},
        "final": final,
        "final_accuracy": defended.get(accuracy, Value()),
        "final_effect": effect.stated(stated.value, stated.ci95),
        "removed": Value(removed.removed_fraction if removed else 0.0),
        "poison_removed": Value(removed.poison_removed if removed else 0.0),
    }


def _predicted(folder: pathlib.Path, name: str) -> Value:
    """A measure's rates of tasks, from an evaluation's own files."""
    measure = metrics.measure(name)
    paths = sorted((folder / measure.condition).glob("*.json")) if measure else ()
    rates = {path.stem: reading.read_json(path, _RATES).get(measure.rate) for path in paths}
    return Value(by_task={task: rate for task, rate in rates.items() if rate is not None})


def _of_detection(folder: pathlib.Path, place: Mapping[str, Any]) -> Iterator[StudyRow]:
    path, log = folder / "detection" / "detection.json", folder / "models/poisoned/metrics.jsonl"
    if not os.path.lexists(path):
        return
    detection = reading.read_json(path, run_files.Detection)
    for score in detection.scores:
        own = {
            f"threshold_{name}": getattr(score.blind, name)
            for name in ("removed", "precision", "recall", "f1")
        }
        yield StudyRow(**place, score=score.name, measures=_of_score(score, own))
    logged = reading.read_jsonl(log, run_files.Logged) if os.path.lexists(log) else ()
    losses = {line.step: line.loss for line in logged if line.loss is not msgspec.UNSET}
    for entry in detection.checkpoints:
        seen = [step for step in losses if step <= entry.step]
        # As it was logged: nats per target token.
        own = {"train_loss": losses[max(seen)] if seen else None}
        at = {"score": entry.score, "checkpoint": entry.step}
        yield StudyRow(**place, **at, measures=_of_score(entry, own))


def _of_score(
    entry: run_files.JudgedScore | run_files.ScoredStep, own: Mapping[str, float | None]
) -> Measures:
    plain = ("auroc", "average_precision", "best_f1", "trigger_rank")
    values = {name: getattr(entry, name) for name in plain if hasattr(entry, name)}
    for kind, prefix in ((entry.recall, "recall"), (entry.data_removed_for, "removed_for")):
        values |= {f"{prefix}_{share}": value for share, value in kind.items()}
    return {name: Value(value) for name, value in (values | own).items()}


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
            common = agreement(_poison(folders[row.cell]), _poison(folders[other.cell]))
            row.measures.update({name: Value(value) for name, value in common.items()})


def _without_proxy(row: StudyRow) -> str:
    """The macros that two cells must have alike to be compared."""
    return repr(sorted(pair for pair in row.macros.items() if pair[0] not in _OF_THE_PROXY))


def _poison(folder: pathlib.Path) -> _Ranked:
    return {
        (row.task, row.id): (row.phi, row.target_probability)
        for row in reading.read_jsonl(folder / "poison" / poison_set.POISON, run_files.CraftedRow)
        if row.phi is not None and row.target_probability is not None
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
