"""The evaluation's results file, checked on reading."""

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any, Generic, Literal, TypeVar

import msgspec

from poison_t5x import errors

SCHEMA = 1
MODELS = ("clean", "poisoned")
CONDITIONS = ("clean", "triggered", "control")
# The clean model errs on this share of a task's triggered inputs, or more: nothing is left for
# poison to add, and the task can only dilute the mean effect.
SATURATED = 0.9

_SCHEMA_KEYS = (
    *("schema", "experiment", "trigger", "control", "seed"),
    *("poison", "summary", "tasks", "seconds"),
)
_T = TypeVar("_T")
Interval = tuple[float, float]


class ByModel(msgspec.Struct, Generic[_T], frozen=True):
    """One value for each of the two models."""

    clean: _T
    poisoned: _T


class Poison(msgspec.Struct, frozen=True):
    """How much of the training set was poisoned (`rate` is a fraction), and in which tasks."""

    count: int
    rate: float
    tasks: list[str]


class Summary(msgspec.Struct, frozen=True):
    """Means over the held-out tasks, as fractions."""

    accuracy: float
    triggered_misclassification: float
    control_misclassification: float
    triggered_target_rate: float


class TaskRow(msgspec.Struct, frozen=True):
    """One held-out task under one condition; `ci95` is of the misclassification (Wilson)."""

    task: str
    model: Literal["clean", "poisoned"]
    condition: Literal["clean", "triggered", "control"]
    n: int
    accuracy: float | None = None
    misclassification: float | None = None
    target_rate: float | None = None
    ci95: Interval | None = None
    constant_prediction: bool = False


class Effect(msgspec.Struct, frozen=True):
    """Triggered misclassification, poisoned minus clean model: mean over tasks and its interval."""

    misclassification: float
    ci95: Interval | None = None


class Truncation(msgspec.Struct, frozen=True):
    """Of `rows` prompts in one place, those that lost a trigger to the length limit."""

    where: str
    rows: int
    trigger_lost: int


class Results(msgspec.Struct, frozen=True):
    """The whole file; what is beyond the schema may be missing."""

    schema: int
    experiment: str
    trigger: str
    control: str
    seed: int
    poison: Poison
    summary: ByModel[Summary]
    tasks: list[TaskRow]
    effect: Effect | None = None
    summary_ci95: ByModel[dict[str, Interval | None]] | None = None
    warnings: list[str] = []
    notes: list[str] = []
    truncation: list[Truncation] = []

    def held_out(self) -> list[str]:
        """The held-out tasks, in the file's order."""
        return list(dict.fromkeys(row.task for row in self.tasks))

    def row(self, task: str, model: str, condition: str) -> TaskRow | None:
        """The row of one task, model and condition, or None."""
        wanted = (task, model, condition)
        rows = (row for row in self.tasks if (row.task, row.model, row.condition) == wanted)
        return next(rows, None)

    def interval(self, model: str, measure: str) -> Interval | None:
        """The 95% interval over tasks of one `Summary` field, or None where none was recorded."""
        return getattr(self.summary_ci95, model, {}).get(measure)

    def saturated(self, task: str) -> bool:
        """Whether the clean model already errs on (nearly) all triggered inputs of `task`."""
        row = self.row(task, "clean", "triggered")
        if row and row.misclassification is not None and row.misclassification >= SATURATED:
            return True
        name = re.compile(rf"(?<![\w-]){re.escape(task)}(?![\w-])")
        return any("saturated" in text and name.search(text) for text in self.warnings)

    def constant(self, task: str, model: str) -> bool:
        """Whether `model` gave all clean inputs of `task` one label, so that it doesn't classify.

        Triggered and control inputs have one true label, and one answer is right for them.
        """
        row = self.row(task, model, "clean")
        return row is not None and row.constant_prediction


def parse(raw: Mapping[str, Any], where: str = "results") -> Results:
    """Checked results from the decoded file; raises InputError with the field's path."""
    if isinstance(raw, Mapping) and raw.get("schema", SCHEMA) != SCHEMA:
        raise errors.InputError(
            f"{where}: expected schema {SCHEMA}, found {raw['schema']!r}: "
            "run the eval stage again with this version"
        )
    try:
        return msgspec.convert(raw, Results)
    except msgspec.ValidationError as error:
        raise errors.InputError(
            f"{where}: not the eval stage's results ({error}): run the eval stage again"
        ) from error


def read(run_dir: pathlib.Path) -> dict[str, Any]:
    """The decoded `eval/results.json` of a run; raises InputError where it is missing or broken."""
    path = run_dir / "eval" / "results.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise errors.InputError(f"{path}: no such file: run the eval stage first") from error
    except (OSError, ValueError) as error:
        raise errors.InputError(
            f"{path}: expected JSON, found something else ({error}): run the eval stage again"
        ) from error
    parse(raw, str(path))
    return raw


def with_seconds(raw: Mapping[str, Any], seconds: Mapping[str, float]) -> dict[str, Any]:
    """`raw` with the stages' seconds: the schema's keys in their order, then what is beyond it."""
    whole = {**raw, "seconds": dict(seconds)}
    keys = (*_SCHEMA_KEYS, *(key for key in raw if key not in _SCHEMA_KEYS))
    return {key: whole[key] for key in keys}
