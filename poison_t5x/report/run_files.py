"""The optional files of a run: what is missing or broken leaves a note, never a crash."""

import json
import pathlib
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import msgspec

from poison_t5x.core.metrics import DEFENDED, missing
from poison_t5x.report import tables
from poison_t5x.report.results import Effect, Interval

DETECTION, BY_STEP = "detection/detection.json", "eval/checkpoints.json"
_T = TypeVar("_T")
Measures = dict[str, float | None]


class Rows(NamedTuple, Generic[_T]):
    """The rows of one file and, where something is wrong with it, a note that says what."""

    rows: list[_T]
    note: str = ""


class MetricsRow(msgspec.Struct, frozen=True):
    """One line of a model's `metrics.jsonl`: losses in nats a target token."""

    step: int
    loss: float | None = None
    loss_clean: float | None = None
    loss_poison: float | None = None


class PoisonRow(msgspec.Struct, frozen=True):
    """One line of `poison.jsonl`; `spans` are the trigger's places in `poisoned_input`.

    `input` and `target` are None where a row was imported and its original is not known.
    `target_probability` is the proxy's; `phi` is None for selections without a score.
    """

    task: str
    id: str
    poisoned_input: str
    poisoned_target: str
    input: str | None = None
    target: str | None = None
    spans: list[tuple[int, int]] = []
    attack: str = ""
    trigger: str = ""
    trigger_count: int | None = None
    target_probability: float | None = None
    phi: float | None = None
    rank: int | None = None


class Prediction(msgspec.Struct, frozen=True):
    """One line of a predictions file.

    Labels that were ranked have `log_probabilities`, summed over their tokens; decoded answers have
    `rouge_l`, F1 of the best of their `references`.
    """

    id: str
    input: str
    target: str
    prediction: str
    log_probabilities: dict[str, float] = {}
    references: list[str] = []
    rouge_l: float | None = None


class EvaluatedStep(msgspec.Struct, frozen=True):
    """Both models after `step` optimiser steps: model -> measure -> mean over tasks."""

    step: int
    summary: dict[str, Measures]


class ByStep(msgspec.Struct, frozen=True):
    """`eval/checkpoints.json`, schema 1."""

    schema: Literal[1]
    checkpoints: list[EvaluatedStep]


class AttackEffect(msgspec.Struct, frozen=True):
    """What the attack did to the poisoned model: poisoned minus clean, as in the results."""

    measure: str
    worked: bool
    effect: float | None = None
    ci95: Interval | None = None

    @property
    def value(self) -> float | None:
        return self.effect


class Threshold(msgspec.Struct, frozen=True):
    """What a filter does whose level was set without knowing the poison."""

    value: float | None = None
    source: str = ""
    removed: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None


class NamedTrigger(msgspec.Struct, frozen=True):
    """A phrase that goes with an answer: in `num_with_target` of `num_rows` inputs with it."""

    phrase: str
    tasks: list[str] = []
    targets: list[str] = []
    num_rows: int | None = None
    num_with_target: int | None = None
    expected: float | None = None
    z: float | None = None
    p_value: float | None = None


class ScoreMeasures(msgspec.Struct, frozen=True):
    """How well one score, which `needs` nothing, a model or checkpoints, tells poison apart.

    `recall` is share of the data removed -> share of the poison among it, `data_removed_for` the
    other way round, `curve` both, ascending; `trigger_rank` is the true trigger's place, from 1.
    """

    name: str
    needs: str = ""
    seconds: float | None = None
    auroc: float | None = None
    average_precision: float | None = None
    recall: Measures = {}
    threshold: Threshold | None = None
    best_f1: float | None = None
    data_removed_for: Measures = {}
    curve: list[tuple[float, float]] = []
    triggers: list[NamedTrigger] = []
    trigger_rank: int | None = None
    notes: list[str] = []

    @property
    def blind(self) -> Threshold:
        """Its threshold, empty where it has none."""
        return self.threshold or Threshold()


class ScoredStep(msgspec.Struct, frozen=True):
    """A score of the model as it was after `step` optimiser steps."""

    score: str
    step: int
    auroc: float | None = None
    recall: Measures = {}
    data_removed_for: Measures = {}


class Detection(msgspec.Struct, frozen=True):
    """`detection/detection.json`, schema 1."""

    schema: Literal[1]
    num_rows: int
    num_poison: int
    poison_rate: float
    attack: AttackEffect
    scores: list[ScoreMeasures]
    checkpoints: list[ScoredStep] = []

    def ranked(self) -> list[ScoreMeasures]:
        """The scores, the highest average precision first."""

        def precision(score: ScoreMeasures) -> float:
            known = score.average_precision
            return -1.0 if missing(known) else known

        return sorted(self.scores, key=precision, reverse=True)

    def best(self) -> ScoreMeasures | None:
        """The score with the highest average precision."""
        ranked = self.ranked()
        return ranked[0] if ranked and not missing(ranked[0].average_precision) else None


class Filter(msgspec.Struct, frozen=True):
    """Training rows that were removed: those above a score's threshold, or a `budget` of them."""

    score: str
    budget: float | None = None
    removed: int | None = None
    removed_fraction: float | None = None
    poison_removed: float | None = None


class DefendedRun(msgspec.Struct, frozen=True):
    """`defenses/NAME/defense.json`, schema 1: rows that were removed, or settings changed.

    `capacity` is setting -> its value for the poisoned model and for the defended one, `summary`
    model -> measure -> mean over tasks; an `effect` of 0 is a defence that is complete.
    """

    schema: Literal[1]
    name: str
    summary: dict[str, Measures]
    filter: Filter | None = None
    capacity: dict[str, tuple[Any, Any]] = {}
    seconds: float | None = None
    attack_worked: bool = True
    summary_ci95: dict[str, dict[str, Interval | None]] = {}
    effect: Effect | None = None

    def measure(self, name: str) -> float | None:
        """Of the defended model, the mean over held-out tasks."""
        return self.summary.get(DEFENDED, {}).get(name)

    def interval(self, name: str) -> Interval | None:
        """The 95% interval of `measure`."""
        return self.summary_ci95.get(DEFENDED, {}).get(name)

    def removed(self) -> str:
        """The rows that were removed, in words; '' where none were."""
        cut = self.filter
        if cut is None:
            return ""
        rows = "rows" if cut.removed is None else f"{cut.removed} rows"
        level = "" if cut.budget is None else f", a budget of {tables.percent(cut.budget)}"
        return (
            f"{rows} ({tables.percent(cut.removed_fraction)}) by {cut.score}{level}: "
            f"{tables.percent(cut.poison_removed)} of the poison"
        )

    def reduced(self) -> str:
        """The settings that differ, in words; '' where none does."""
        return ", ".join(f"{name} {old} → {new}" for name, (old, new) in self.capacity.items())


def read_rows(run_dir: pathlib.Path, name: str, kind: type[_T]) -> Rows[_T]:
    """The lines of `run_dir / name` as `kind`, up to the first that doesn't fit."""
    rows: list[_T] = []
    try:
        lines = (run_dir / name).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        return Rows(rows, _unreadable(name, error))
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                rows.append(msgspec.convert(json.loads(line), kind))
        except ValueError as error:
            return Rows(rows, f"{name} was read up to line {number}, which is broken: {error}.")
    return Rows(rows, "" if rows else f"{name} is empty.")


def read_json(run_dir: pathlib.Path, name: str, kind: type[_T]) -> tuple[_T | None, str]:
    """`run_dir / name` as `kind`, and a note where it doesn't fit; none where it isn't there."""
    try:
        return msgspec.convert(json.loads((run_dir / name).read_text("utf-8")), kind), ""
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        return None, _unreadable(name, error)
    except ValueError as error:
        return None, f"{name} doesn’t have the form that this version reads: {error}."


def read_defenses(run_dir: pathlib.Path) -> tuple[list[DefendedRun], list[str]]:
    """The defences by name, and what is wrong with those that can't be read."""
    paths = sorted(run_dir.glob("defenses/*/defense.json"))
    names = (path.relative_to(run_dir).as_posix() for path in paths)
    read = [read_json(run_dir, name, DefendedRun) for name in names]
    return [one for one, _ in read if one], [note for _, note in read if note]


def read_text(run_dir: pathlib.Path, name: str) -> tuple[str, str]:
    """The text of `run_dir / name`, and a note where there is none."""
    try:
        text = (run_dir / name).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        return "", _unreadable(name, error)
    return text, "" if text else f"{name} is empty."


def _unreadable(name: str, error: Exception) -> str:
    is_missing = isinstance(error, FileNotFoundError)
    return f"{name} is not in the run folder." if is_missing else f"{name} can’t be read."
