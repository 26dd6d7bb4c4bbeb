"""The optional files of a run: what is missing or broken leaves a note, never a crash."""

import math
import os
import pathlib
from typing import Any, Literal, TypeVar

import msgspec

from poison_t5x.core import errors, reading
from poison_t5x.core.metrics import missing
from poison_t5x.core.settings import NotNegative, Number, Whole
from poison_t5x.report.results import Interval, Measured, RatesRow

DETECTION, BY_STEP = "detection/detection.json", "eval/checkpoints.json"
_T = TypeVar("_T")
# A share, such as '0.5', of the data or of the poison -> a rate.
Shares = dict[reading.Decimal, Number | None]


class CraftedRow(msgspec.Struct, frozen=True):
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
    spans: list[tuple[Whole, Whole]] = []
    attack: str = ""
    trigger: str = ""
    trigger_count: Whole | None = None
    target_probability: Number | None = None
    phi: Number | None = None
    rank: Whole | None = None


class Prediction(msgspec.Struct, frozen=True):
    """One line of a predictions file.

    Labels that were ranked have `log_probabilities`, summed over their tokens; decoded answers have
    `rouge_l`, F1 of the best of their `references`.
    """

    id: str
    input: str
    target: str
    prediction: str
    log_probabilities: dict[str, Number] = {}
    references: list[str] = []
    rouge_l: Number | None = None

    @property
    def is_correct(self) -> bool:
        """Whether the label that was ranked first is the true one."""
        return self.prediction == self.target

    @property
    def share(self) -> float | None:
        """The probability of the label that was ranked first, among the task's labels."""
        scores = self.log_probabilities
        if self.prediction not in scores:
            return None
        top = max(scores.values())
        total = sum(math.exp(score - top) for score in scores.values())
        return math.exp(scores[self.prediction] - top) / total


class Logged(msgspec.Struct, frozen=True):
    """One line of `metrics.jsonl`; null is a loss that wasn't finite."""

    step: Whole
    loss: Number | msgspec.UnsetType | None = msgspec.UNSET
    loss_clean: Number | msgspec.UnsetType | None = msgspec.UNSET
    loss_poison: Number | msgspec.UnsetType | None = msgspec.UNSET


class Checkpoint(Measured, frozen=True):
    """Both models after `step` optimiser steps."""

    tasks: list[RatesRow] = msgspec.field(default_factory=list)


class ByStep(msgspec.Struct, frozen=True):
    """`eval/checkpoints.json`, schema 1."""

    schema: Literal[1]
    checkpoints: list[Checkpoint]


class Threshold(msgspec.Struct, frozen=True):
    """A filter whose level was set without knowing the poison."""

    source: str = ""
    removed: Number | None = None
    precision: Number | None = None
    recall: Number | None = None
    f1: Number | None = None


class SuspectedTrigger(msgspec.Struct, frozen=True):
    """A phrase that a score names; see `defenses.score.Trigger`."""

    phrase: str
    tasks: list[str] = []
    targets: list[str] = []
    num_rows: Whole | None = None
    num_with_target: Whole | None = None
    expected: Number | None = None
    z: Number | None = None
    p_value: Number | None = None


class JudgedScore(msgspec.Struct, frozen=True):
    """How well one score, which `needs` nothing, a model or checkpoints, tells poison apart.

    `recall` is share of the data removed -> share of the poison among it, `data_removed_for` the
    other way round; `curve` is (data, poison) removed, ascending; `triggers` are phrases that go
    with an answer, and `trigger_rank` the true one's place among them, from 1.
    """

    name: str
    needs: str = ""
    seconds: NotNegative | None = None
    auroc: Number | None = None
    average_precision: Number | None = None
    recall: Shares = {}
    data_removed_for: Shares = {}
    threshold: Threshold | None = None
    best_f1: Number | None = None
    curve: list[Interval] = []
    triggers: list[SuspectedTrigger] = []
    trigger_rank: Whole | None = None
    notes: list[str] = []

    @property
    def blind(self) -> Threshold:
        """Its threshold, empty where it has none."""
        return self.threshold or Threshold()


class ScoredStep(msgspec.Struct, frozen=True):
    """A score of the model as it was after `step` optimiser steps."""

    score: str
    step: Whole
    auroc: Number | None = None
    average_precision: Number | None = None
    recall: Shares = {}
    data_removed_for: Shares = {}


class AttackEffect(msgspec.Struct, frozen=True):
    """The effect beside which detection is read, and whether the attack worked."""

    measure: str
    worked: bool
    effect: Number | None = None
    ci95: Interval | None = None


class Detection(msgspec.Struct, frozen=True):
    """`detection/detection.json`, schema 1."""

    schema: Literal[1]
    num_rows: Whole
    num_poison: Whole
    poison_rate: NotNegative
    attack: AttackEffect
    scores: list[JudgedScore]
    checkpoints: list[ScoredStep] = []

    def ranked(self) -> list[JudgedScore]:
        """The scores, the highest average precision first."""
        return sorted(
            self.scores,
            key=lambda s: math.inf if missing(s.average_precision) else -s.average_precision,
        )

    def best(self) -> JudgedScore | None:
        """The score with the highest average precision."""
        return next((s for s in self.ranked() if not missing(s.average_precision)), None)


class Filter(msgspec.Struct, frozen=True):
    """Rows that a score removed, by a budget or past its own threshold."""

    score: str
    removed_fraction: NotNegative
    poison_removed: NotNegative
    removed: Whole | None = None
    budget: Number | None = None


class DefendedRun(Measured, frozen=True):
    """`defenses/NAME/defense.json`, schema 1: rows that were removed, or settings changed.

    `capacity` is setting -> its value for the poisoned model and for the defended one; an `effect`
    of 0 is a complete defence.
    """

    schema: Literal[1]
    name: str
    filter: Filter | None = None
    capacity: dict[str, tuple[Any, Any]] = msgspec.field(default_factory=dict)
    seconds: NotNegative | None = None
    attack_worked: bool = True


def read_rows(run_dir: pathlib.Path, name: str, kind: type[_T]) -> tuple[list[_T], str]:
    """The lines of `run_dir / name` as `kind`, up to the first that doesn't fit, and a note."""
    rows: list[_T] = []
    note = _missing(run_dir, name)
    try:
        for place, line in reading.lines(run_dir / name) if not note else ():
            rows.append(reading.decode(line, kind, place))
    except errors.InputError as error:
        return rows, f"{_within(run_dir, error)}: only what stands before it is shown."
    return rows, note or ("" if rows else f"{name} is empty.")


def read_json(run_dir: pathlib.Path, name: str, kind: type[_T]) -> tuple[_T | None, str]:
    """`run_dir / name` as `kind`, and a note where it doesn't fit; none where it isn't there."""
    if _missing(run_dir, name):
        return None, ""
    try:
        return reading.read_json(run_dir / name, kind), ""
    except errors.InputError as error:
        return None, f"{_within(run_dir, error)}."


def read_defenses(run_dir: pathlib.Path) -> tuple[list[DefendedRun], list[str]]:
    """The defences by name, and what is wrong with those that can't be read."""
    paths = sorted(path.relative_to(run_dir) for path in run_dir.glob("defenses/*"))
    read = [read_json(run_dir, f"{path}/defense.json", DefendedRun) for path in paths]
    return [one for one, _ in read if one], [note for _, note in read if note]


def read_text(run_dir: pathlib.Path, name: str) -> tuple[str, str]:
    """The text of `run_dir / name`, and a note where there is none."""
    if note := _missing(run_dir, name):
        return "", note
    try:
        text = reading.read_text(run_dir / name).rstrip()
    except errors.InputError as error:
        return "", f"{_within(run_dir, error)}."
    return text, "" if text else f"{name} is empty."


def _missing(run_dir: pathlib.Path, name: str) -> str:
    return "" if os.path.lexists(run_dir / name) else f"{name} is not in the run folder."


def _within(run_dir: pathlib.Path, error: errors.InputError) -> str:
    """The message with the file's place in the run: a page is the same wherever the run lies."""
    return str(error).replace(f"{run_dir}/", "")
