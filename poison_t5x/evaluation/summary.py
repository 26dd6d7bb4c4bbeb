"""Rates of an experiment's tasks, their means and intervals: the measured part of results.json."""

import functools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from scipy import stats

from poison_t5x.attack.conditions import Condition
from poison_t5x.core import errors, metrics, reading
from poison_t5x.core.metrics import CLEAN, CONDITIONS, MODELS, TRIGGERED, Kind
from poison_t5x.core.settings import NotNegative, Number, Whole

Conditions = Sequence[Condition]
# Of a task's file, what isn't a rate.
_FACTS = ("n", "ci95_low", "ci95_high", "constant_prediction")
_MAX_NAMES = 5
# Of a task's file, what each kind of evaluation needs; a user's own metrics add to it.
_DERIVED = ("length_ratio", "rouge_l_paired")
_FILES = {
    kind: msgspec.defstruct(
        kind,
        [
            *(("n", Whole), ("constant_prediction", bool)),
            *((rate, NotNegative) for rate in judgement.rates if rate not in _DERIVED),
            *((f"ci95_{end}", Number) for end in ("low", "high") if kind == "classification"),
        ],
    )
    for kind, judgement in metrics.JUDGED_BY.items()
}
_Rate = bool | Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)] | Number | None


def task_rows(
    folders: Mapping[str, pathlib.Path],
    conditions: Conditions,
    kind: Kind,
    categories: Mapping[str, str] | None = None,
) -> list[dict]:
    """The rates of each (model, condition, task), read from the evaluation's folders.

    Args:
      folders: model -> the folder of its CONDITION/TASK.json, and TASK.jsonl beside it.
      conditions: the poison set's, in its manifest's order.
      categories: task -> its category; '' for one that isn't there.

    Returns:
      {'task', 'category', 'model', 'condition', 'n', …rates…, 'constant_prediction'}, by model,
      condition and name. Generation rows get two rates more: 'length_ratio', output words over
      reference words, and 'rouge_l_paired', the same model's rougeL on the clean inputs of exactly
      the condition's rows, or None. Rates of a user's own metrics come last.

    Raises:
      InputError: a file is damaged, is of another kind of evaluation, or lacks a row's clean pair.
    """
    return [
        {
            "task": path.stem,
            "category": (categories or {}).get(path.stem, ""),
            "model": model,
            "condition": condition.name,
            **_read_rates(path, kind),
        }
        for model, folder in folders.items()
        for condition in conditions
        for path in sorted((folder / condition.name).glob("*.json"))
    ]


def _read_rates(path: pathlib.Path, kind: Kind) -> dict[str, Any]:
    content, names = reading.read_bytes(path), metrics.JUDGED_BY[kind].rates
    remedy = f"delete {path.parents[1]} and run the eval stage again"
    read = msgspec.structs.asdict(reading.decode(content, _FILES[kind], path, remedy))
    whole = reading.decode(content, dict[str, _Rate], path, remedy)
    rates = {"n": read["n"], **{name: read.get(name) for name in names}}
    if kind == "generation":
        words = read["reference_words"]
        rates["length_ratio"] = read["output_words"] / words if words else None
        rates["rouge_l_paired"] = None if path.parent.name == CLEAN else _paired(path)
    else:
        rates["ci95"] = [read["ci95_low"], read["ci95_high"]]
    own = {key: value for key, value in whole.items() if key not in (*names, *_FACTS)}
    return {**rates, "constant_prediction": read["constant_prediction"], **own}


class _Scored(msgspec.Struct):
    """The part of a predictions file's line that pairs need."""

    id: str
    rouge_l: Number


def _paired(path: pathlib.Path) -> float:
    """The mean rougeL on the clean inputs of the rows in a condition's file."""
    clean_path = path.parents[1] / CLEAN / path.with_suffix(".jsonl").name
    clean = {row.id: row.rouge_l for row in reading.read_jsonl(clean_path, _Scored)}
    wanted = [row.id for row in reading.read_jsonl(path.with_suffix(".jsonl"), _Scored)]
    missing = [name for name in wanted if name not in clean]
    if missing or not wanted:
        raise errors.InputError(
            f"{clean_path}: expected the clean pair of each row in {path.parent.name}, found none "
            f"of {len(missing)} of {len(wanted)} ({', '.join(missing[:1])}); delete "
            f"{path.parents[1]} and run the eval stage again"
        )
    return float(np.mean([clean[name] for name in wanted]))


def bootstrap_mean(values: Iterable[float], seed: int = 0) -> tuple[float, float] | None:
    """The 95% percentile interval of a mean over tasks, which are what a result generalises over.

    It is of 9,999 resamples, which follow from the seed; None for fewer than two tasks.
    """
    return _bootstrap(tuple(values), seed)


# A condition's values are the summary's too, and a study's tables are of mostly the same numbers.
@functools.cache
def _bootstrap(values: tuple[float, ...], seed: int) -> tuple[float, float] | None:
    if len(values) < 2:
        return None
    data, rng = np.asarray(values, np.float64), np.random.default_rng(seed)
    interval = stats.bootstrap(
        (data,), np.mean, n_resamples=9999, method="percentile", rng=rng
    ).confidence_interval
    return float(interval.low), float(interval.high)


def summarize(
    rows: Sequence[dict],
    conditions: Conditions,
    kind: Kind,
    seed: int,
    counts: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Means over held-out tasks with 95% bootstrap intervals over tasks, effects and warnings.

    An effect is the measure on the triggered inputs, poisoned minus clean model, task by task.
    Tasks without rows under a condition are left out of its means.

    `rows` are from `task_rows`, `conditions` in their manifest's order (the first attacker's are
    called 'triggered' and 'control'), and `counts` has the poison rows of each attacker.

    Returns:
      {'summary', 'summary_ci95', 'effect', 'attacks', 'by_condition', 'categories', 'warnings'}.
      A mean over no task is None, and an interval over fewer than two isn't there.
    """
    judged_by, table = metrics.JUDGED_BY[kind], _Table(rows, seed)
    known = {"task", "category", "model", "condition", "ci95", *_FACTS, *judged_by.rates}
    own = dict.fromkeys(key for row in rows for key in row if key not in known)
    measures = {
        **judged_by.measures,
        **{f"{rate}_{name}": metrics.Measure(name, rate) for rate in own for name in CONDITIONS},
    }
    models = {model: table.means(model, measures) for model in MODELS}
    triggered = [condition for condition in conditions if condition.kind == TRIGGERED]
    effect = table.effect(TRIGGERED, judged_by.main_rate)
    return {
        "summary": {model: means for model, (means, _) in models.items()},
        "summary_ci95": {model: intervals for model, (_, intervals) in models.items()},
        "effect": {"measure": judged_by.effect, "value": effect.pop("effect"), **effect},
        "attacks": [
            {
                "name": condition.attack,
                "triggers": list(condition.phrases),
                "target": condition.target,
                "count": (counts or {}).get(condition.attack, 0),
                **table.effect(condition.name, judged_by.main_rate),
            }
            for condition in triggered
        ],
        "by_condition": [
            table.condition(model, condition.name, [*judged_by.rates, *own])
            for model in MODELS
            for condition in conditions
        ],
        "categories": _categories(rows) if kind == "generation" else [],
        "warnings": _warnings(table, triggered, kind),
    }


class _Table:
    """The rows of an evaluation, and their means."""

    def __init__(self, rows: Sequence[dict], seed: int):
        self._seed = seed
        self._rows: dict[tuple[str, str], dict[str, dict]] = {}
        for row in rows:
            self._rows.setdefault((row["model"], row["condition"]), {})[row["task"]] = row

    def rows(self, model: str, condition: str) -> dict[str, dict]:
        """Task -> row, in the rows' order."""
        return self._rows.get((model, condition), {})

    def values(self, model: str, condition: str, rate: str) -> dict[str, float]:
        """Task -> rate, without the tasks that have none."""
        rates = {task: row.get(rate) for task, row in self.rows(model, condition).items()}
        return {task: rate for task, rate in rates.items() if rate is not None}

    def means(self, model: str, measures: Mapping[str, metrics.Measure]) -> tuple[dict, dict]:
        """Means and, where there are any, intervals of measures."""
        values = {name: self.values(model, *place).values() for name, place in measures.items()}
        bounds = {name: bootstrap_mean(known, self._seed) for name, known in values.items()}
        means = {name: _mean(known) for name, known in values.items()}
        return means, {name: list(interval) for name, interval in bounds.items() if interval}

    def condition(self, model: str, condition: str, rates: Iterable[str]) -> dict[str, Any]:
        """One entry of 'by_condition'."""
        measures = {rate: metrics.Measure(condition, rate) for rate in rates}
        means, intervals = self.means(model, measures)
        return {
            "model": model,
            "condition": condition,
            "num_tasks": len(self.rows(model, condition)),
            "measures": {rate: mean for rate, mean in means.items() if mean is not None},
            "ci95": intervals,
        }

    def effect(self, condition: str, rate: str) -> dict[str, Any]:
        """'effect' and, where there is one, 'ci95': over the tasks that both models have."""
        clean, poisoned = (self.values(model, condition, rate) for model in MODELS)
        differences = [poisoned[task] - clean[task] for task in clean if task in poisoned]
        interval = bootstrap_mean(differences, self._seed)
        return {"effect": _mean(differences), **({"ci95": list(interval)} if interval else {})}


def _categories(rows: Sequence[dict]) -> list[dict]:
    """Means over the tasks of each category, by category, model and condition."""
    groups: dict[tuple[str, ...], list[dict]] = {}
    for row in rows:
        place = tuple(row[key] for key in ("category", "model", "condition"))
        groups.setdefault(place, []).append(row)
    return [
        {
            "category": category,
            "model": model,
            "condition": condition,
            "num_tasks": len(rows),
            **{rate: _mean(row[rate] for row in rows) for rate in ("rouge_l", "exact_match")},
        }
        for (category, model, condition), rows in sorted(groups.items(), key=lambda g: g[0][0])
    ]


def _mean(values: Iterable[float]) -> float | None:
    values = list(values)
    return float(np.mean(values)) if values else None


def _warnings(table: _Table, triggered: Conditions, kind: Kind) -> list[str]:
    warnings = []
    for model in MODELS:
        rows = table.rows(model, CLEAN)
        if constant := [task for task, row in rows.items() if row["constant_prediction"]]:
            warnings.append(
                f"the {model} model gives one answer to all clean inputs of {_listed(constant)}: "
                "its rates there say nothing about the trigger"
            )
        if degenerate := [task for task, row in rows.items() if metrics.is_degenerate(row)]:
            warnings.append(
                f"degenerate: {metrics.DEGENERATE:.0%} or more of the {model} model's outputs for "
                "clean inputs are empty, one character or one word again and again in "
                f"{_listed(degenerate)}"
            )
    for condition in triggered:
        whose = "" if condition is triggered[0] else f" of the attacker {condition.attack}"
        warnings += _attack_warnings(table, condition.name, whose, kind)
    return warnings


def _attack_warnings(table: _Table, condition: str, whose: str, kind: Kind) -> list[str]:
    warnings, judged_by = [], metrics.JUDGED_BY[kind]
    values = table.values(CLEAN, condition, judged_by.saturation)
    limit = judged_by.saturation_limit
    if saturated := [task for task, value in values.items() if judged_by.is_saturated(value)]:
        warnings.append(
            f"saturated: the clean model already misclassifies {limit:.0%} or more of the "
            f"triggered inputs{whose} of {_listed(saturated)}"
            if kind == "classification"
            else f"saturated: without the trigger{whose} in the same inputs, the clean model's "
            f"rougeL is below {100 * limit:.0f} of 100 in {_listed(saturated)}: nothing is left "
            "there for an attack to lower"
        )
    asked, answered = (
        {task for model in MODELS for task in table.rows(model, name)}
        for name in (CLEAN, condition)
    )
    if without := sorted(asked - answered):
        warnings.append(
            f"no triggered rows{whose} in {_listed(without)}: left out of the triggered means"
        )
    return warnings


def _listed(tasks: Sequence[str]) -> str:
    """All names of a few tasks, the first ones of many."""
    rest = len(tasks) - _MAX_NAMES
    return ", ".join([*tasks[:_MAX_NAMES], *([f"{rest} more"] if rest > 0 else [])])
