"""The evaluation's results file, schema 2, checked on reading."""

import functools
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from poison_t5x.core import errors, metrics, reading
from poison_t5x.core.metrics import CLEAN, CONDITIONS, MODELS, PROBE, TRIGGERED, missing
from poison_t5x.core.settings import NotNegative, Number, Whole
from poison_t5x.report import tables

SCHEMA, AGAIN = 2, "run the eval stage again"
Interval = tuple[Number, Number]
Measures = dict[str, Number | None]
Intervals = dict[str, Interval | None]
Model = Literal["clean", "poisoned"]


class Effect(msgspec.Struct, frozen=True):
    """`measure`, poisoned (or defended) minus clean model: mean over tasks and its interval."""

    measure: Literal["triggered_misclassification", "rouge_l_triggered"]
    value: Number | None = None
    ci95: Interval | None = None


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """Models' measures: means over held-out tasks, their 95% intervals, and the attack's effect.

    Of models that were kept on the way, after `step` optimiser steps.
    """

    step: Whole = 0
    summary: dict[str, Measures]
    summary_ci95: dict[str, Intervals] = {}
    effect: Effect | None = None

    def measure(self, model: str, name: str) -> float | None:
        return self.summary.get(model, {}).get(name)

    def interval(self, model: str, name: str) -> Interval | None:
        return self.summary_ci95.get(model, {}).get(name)


class Poison(msgspec.Struct, frozen=True):
    """How much of the training set was poisoned (`rate` is a fraction), and in which tasks."""

    count: Whole
    rate: NotNegative
    tasks: list[str]


class MeasuredCondition(msgspec.Struct, frozen=True):
    """A change of held-out inputs: `phrases` of an `attack`, or nothing."""

    name: str
    kind: Literal["clean", "triggered", "control", "probe"]
    attack: str = ""
    phrases: list[str] = []
    target: str | None = None

    @property
    def words(self) -> str:
        """Its name for people: 'trigger', 'look-alike', 'trigger of second', …."""
        is_main = self.name in CONDITIONS or self.kind == PROBE
        return metrics.CONDITION_WORDS[self.kind] + ("" if is_main else f" of {self.attack}")


class MeasuredAttack(msgspec.Struct, frozen=True):
    """One attacker: `count` poisoned rows, and the effect on the inputs with its triggers."""

    name: str
    triggers: list[str]
    target: str | None = None
    count: Whole = 0
    effect: Number | None = None
    ci95: Interval | None = None


class ConditionRow(msgspec.Struct, frozen=True):
    """One model under one condition: means over its tasks, and their intervals."""

    model: Model
    condition: str
    num_tasks: Whole
    measures: Measures
    ci95: Intervals = {}


class RatesRow(msgspec.Struct, frozen=True):
    """One model under one condition: a held-out task's rates, or means over a category's tasks.

    `ci95` is of a task's misclassification (Wilson).
    """

    model: Model
    condition: str
    task: str = ""
    category: str = ""
    n: Whole = 0
    num_tasks: Whole = 0
    accuracy: Number | None = None
    misclassification: Number | None = None
    target_rate: Number | None = None
    ci95: Interval | None = None
    rouge_l: Number | None = None
    rouge_l_paired: Number | None = None
    exact_match: Number | None = None
    says_trigger: Number | None = None
    length_ratio: Number | None = None
    empty: Number | None = None
    single_character: Number | None = None
    repeated_token: Number | None = None
    constant_prediction: bool = False


class Results(Measured, frozen=True, dict=True):
    """The whole file. What follows from the rest, and what is only told, may be missing."""

    schema: Literal[2]
    experiment: str
    kind: metrics.Kind
    attack: str
    trigger: str
    control: str
    seed: Whole
    poison: Poison
    tasks: list[RatesRow]
    triggers: list[str] = []
    target: str | None = None
    conditions: list[MeasuredCondition] = []
    attacks: list[MeasuredAttack] = []
    by_condition: list[ConditionRow] = []
    categories: list[RatesRow] = []
    warnings: list[str] = []
    notes: list[str] = []
    # Rows of prompts 'where', of which some lost their trigger to the length limit.
    truncation: list[dict[str, str | Whole]] = []

    @property
    def is_generation(self) -> bool:
        """Whether answers were decoded, rather than labels ranked."""
        return self.kind == "generation"

    @property
    def attack_words(self) -> str:
        """The attack's name for people."""
        return tables.WORDS["attacks"].get(self.attack, self.attack)

    @property
    def judged_by(self) -> metrics.Judgement:
        return metrics.JUDGED_BY[self.kind]

    @property
    def main_measures(self) -> dict[str, str]:
        return main_measures(self.kind)

    @property
    def axis(self) -> str:
        """The name of an axis of the main measures."""
        return "rougeL" if self.is_generation else "share of inputs"

    @functools.cached_property
    def verdict(self) -> metrics.Verdict:
        """Whether the attack worked; 'unknown' where no interval can be had."""
        # Resampling a single task returns that task: its interval says nothing.
        if not self.effect or len(self.triggered()) < 2:
            return "unknown"
        return self.judged_by.verdict(self.effect.ci95)

    @property
    def verdict_words(self) -> str:
        """The verdict with its reason, such as 'no effect: the interval includes 0'."""
        words = tables.WORDS["verdicts"][self.verdict]
        return words.format("above" if self.is_generation else "below")

    def phrases(self) -> list[str]:
        """The first attacker's triggers."""
        return self.triggers or [self.trigger]

    def held_out(self) -> list[str]:
        """The held-out tasks, in the file's order."""
        return list(dict.fromkeys(row.task for row in self.tasks))

    def triggered(self) -> list[str]:
        """The held-out tasks that have triggered inputs."""
        return [task for task in self.held_out() if self.row(task, CLEAN, TRIGGERED)]

    def row(self, task: str, model: str, condition: str) -> RatesRow | None:
        return self._rows.get((task, model, condition))

    @functools.cached_property
    def _rows(self) -> dict[tuple[str, str, str], RatesRow]:
        return {(row.task, row.model, row.condition): row for row in self.tasks}

    def difference(self, name: str) -> float | None:
        """One of the summary's measures, poisoned minus clean model; None where one has none."""
        clean, poisoned = (self.measure(model, name) for model in MODELS)
        return None if missing(clean) or missing(poisoned) else poisoned - clean

    def condition_row(self, model: str, condition: str) -> ConditionRow | None:
        return self.of(self.by_condition, model, condition)

    @staticmethod
    def of(rows: Iterable[Any], model: str, condition: str) -> Any:
        """The first of some rows that is of one model under one condition; None without any."""
        wanted = (model, condition)
        return next((row for row in rows if (row.model, row.condition) == wanted), None)

    def others(self) -> list[MeasuredCondition]:
        """All conditions but the first attacker's three: its probes, and further attackers'."""
        return [condition for condition in self.conditions if condition.name not in CONDITIONS]

    def saturated(self, task: str) -> bool:
        """Whether the clean model leaves an attack on `task` nothing to do."""
        row = self.row(task, CLEAN, TRIGGERED)
        return bool(row) and self.judged_by.is_saturated(getattr(row, self.judged_by.saturation))

    def constant(self, task: str, model: str) -> bool:
        """Whether `model` gave all clean inputs of `task` one answer, so that it doesn't read them.

        Triggered and control inputs may have one true label, and one answer is right for them.
        """
        row = self.row(task, model, CLEAN)
        return row is not None and row.constant_prediction


def main_measures(kind: str) -> dict[str, str]:
    """Measures without the trigger, with it, and with an unseen name: name -> its words."""
    judged = metrics.JUDGED_BY[kind]
    names = (judged.clean, judged.effect, judged.control)
    return {name: judged.measures[name].words for name in names}


def parse(raw: Mapping[str, Any], where: str = "results") -> Results:
    """Checked results from the decoded file; raises InputError with the field's path."""
    results = reading.converted(raw, Results, where, AGAIN)
    if wrong := _inconsistency(results):
        raise errors.InputError(f"{where}: {wrong}; {AGAIN}")
    return results


def _inconsistency(results: Results) -> str:
    """Measures that aren't the kind's, or a row's condition that isn't the file's; '' for none."""
    for model in MODELS:
        known = results.summary.get(model, {})
        if lacking := [name for name in results.judged_by.measures if name not in known]:
            return f"no {lacking[0]} - at `$.summary.{model}`"
    effect, expected = results.effect, results.judged_by.effect
    if effect and effect.measure != expected:
        return f"expected {expected!r}, found {effect.measure!r} - at `$.effect.measure`"
    conditions = {*CONDITIONS, *(condition.name for condition in results.conditions)}
    for row in (*results.tasks, *results.by_condition, *results.categories):
        if row.condition not in conditions:
            name = type(row).__name__
            return f"{row.condition!r}, which a {name} has, - isn't in `$.conditions`"
    return ""


def read(run_dir: pathlib.Path, name: str = "eval/results.json") -> dict[str, Any]:
    """A run's decoded results file; raises InputError where it is missing or broken."""
    path = run_dir / name
    if not os.path.lexists(path):
        raise errors.InputError(
            f"{path} isn't there: run `poison-t5x eval` with the same settings first"
        )
    raw = reading.read_json(path, remedy=AGAIN)
    parse(raw, str(path))
    return raw
