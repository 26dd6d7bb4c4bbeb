"""The optional files of a run: what is missing or broken leaves a note, never a crash."""

import json
import math
import pathlib
from typing import Any, Literal, TypeVar

import msgspec

from poison_t5x.core.metrics import missing
from poison_t5x.report.results import Measured, Measures

DETECTION, BY_STEP = "detection/detection.json", "eval/checkpoints.json"
_T = TypeVar("_T")


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


class ByStep(msgspec.Struct, frozen=True):
    """`eval/checkpoints.json`, schema 1."""

    schema: Literal[1]
    checkpoints: list[Measured]


class Threshold(msgspec.Struct, frozen=True):
    """A filter whose level was set without knowing the poison."""

    source: str = ""
    removed: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None


class JudgedScore(msgspec.Struct, frozen=True):
    """How well one score, which `needs` nothing, a model or checkpoints, tells poison apart.

    `recall` is share of the data removed -> share of the poison among it, `data_removed_for` the
    other way round; `curve` is (data, poison) removed, ascending; `triggers` are phrases that go
    with an answer, and `trigger_rank` the true one's place among them, from 1.
    """

    name: str
    needs: str = ""
    seconds: float | None = None
    auroc: float | None = None
    average_precision: float | None = None
    recall: Measures = {}
    data_removed_for: Measures = {}
    threshold: Threshold | None = None
    best_f1: float | None = None
    curve: list[tuple[float, float]] = []
    triggers: list[dict[str, Any]] = []
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
    """`detection/detection.json`, schema 1; `attack` is its effect, and whether it worked."""

    schema: Literal[1]
    num_rows: int
    num_poison: int
    poison_rate: float
    attack: dict[str, Any]
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


class DefendedRun(Measured, frozen=True):
    """`defenses/NAME/defense.json`, schema 1: rows that were removed, or settings changed.

    `filter` is of a score, with a budget or the score's own threshold; `capacity` is setting -> its
    value for the poisoned model and for the defended one; an `effect` of 0 is a complete defence.
    """

    schema: Literal[1]
    name: str
    filter: dict[str, Any] | None = None
    capacity: dict[str, tuple[Any, Any]] = msgspec.field(default_factory=dict)
    seconds: float | None = None
    attack_worked: bool = True


def read_rows(run_dir: pathlib.Path, name: str, kind: type[_T]) -> tuple[list[_T], str]:
    """The lines of `run_dir / name` as `kind`, up to the first that doesn't fit, and a note."""
    text, note = read_text(run_dir, name)
    rows: list[_T] = []
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            if line.strip():
                rows.append(msgspec.convert(json.loads(line), kind))
        except ValueError as error:
            return rows, f"{name} was read up to line {number}, which is broken: {error}."
    return rows, note


def read_json(run_dir: pathlib.Path, name: str, kind: type[_T]) -> tuple[_T | None, str]:
    """`run_dir / name` as `kind`, and a note where it doesn't fit; none where it isn't there."""
    if not (run_dir / name).exists():
        return None, ""
    text, note = read_text(run_dir, name)
    try:
        # Not msgspec's own decoder, to which NaN is no number.
        return (None, note) if note else (msgspec.convert(json.loads(text), kind), "")
    except ValueError as error:
        return None, f"{name} doesn’t have the form that this version reads: {error}."


def read_defenses(run_dir: pathlib.Path) -> tuple[list[DefendedRun], list[str]]:
    """The defences by name, and what is wrong with those that can't be read."""
    paths = sorted(run_dir.glob("defenses/*/defense.json"))
    read = [read_json(run_dir, str(path.relative_to(run_dir)), DefendedRun) for path in paths]
    return [one for one, _ in read if one], [note for _, note in read if note]


def read_text(run_dir: pathlib.Path, name: str) -> tuple[str, str]:
    """The text of `run_dir / name`, and a note where there is none."""
    try:
        text = (run_dir / name).read_text(encoding="utf-8").rstrip()
    except FileNotFoundError:
        return "", f"{name} is not in the run folder."
    except (OSError, UnicodeDecodeError):
        return "", f"{name} can’t be read."
    return text, "" if text else f"{name} is empty."
