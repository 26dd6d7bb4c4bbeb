"""All rates of an experiment in one object: the measured part of `results.json`, schema 2."""

import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from poison_t5x.core import artifacts, errors, metrics
from poison_t5x.core.metrics import CLEAN, MODELS, TRIGGERED, Kind
from poison_t5x.evaluation import statistics

# A task's rates under a condition, as the rows hold them.
Rates = dict[str, Any]
_MAX_NAMES = 5


def task_rows(
    predictions_dir: pathlib.Path,
    conditions: Sequence[Mapping[str, Any]],
    kind: Kind,
    categories: Mapping[str, str],
    poisoned: pathlib.Path | None = None,
) -> list[dict]:
    """The rates of each (model, condition, task), read from the evaluation's folders.

    Args:
      predictions_dir: holds MODEL/CONDITION/TASK.json, and TASK.jsonl beside it.
      conditions: the poison set's, in its manifest's order.
      kind: of the evaluation.
      categories: task -> its category; '' is written for one that isn't there.
      poisoned: the folder CONDITION/TASK.json of a model to take for the poisoned one.

    Returns:
      {'task', 'category', 'model', 'condition', 'n', …rates…, 'constant_prediction'}, by model,
      condition and name. Generation rows get two rates more: 'length_ratio', output words over
      reference words, and 'rouge_l_paired', the same model's rougeL on the clean inputs of exactly
      the condition's rows; None where there is no such thing.

    Raises:
      InputError: a file is damaged, is of another kind of evaluation, or lacks a row's clean pair.
    """
    folders = {model: predictions_dir / model for model in MODELS}
    if poisoned is not None:
        folders["poisoned"] = poisoned
    make = _classification_row if kind == "classification" else _generation_row
    rows = []
    for model in MODELS:
        for condition in (condition["name"] for condition in conditions):
            for path in sorted((folders[model] / condition).glob("*.json")):
                rows.append(
                    {
                        "task": path.stem,
                        "category": categories.get(path.stem, ""),
                        "model": model,
                        "condition": condition,
                        **_rates(path, make),
                    }
                )
    return rows


def _rates(path: pathlib.Path, make: Callable[[Rates, pathlib.Path], Rates]) -> Rates:
    read = artifacts.read_json(path)
    try:
        return {
            "n": int(read["n"]),
            **make(read, path),
            "constant_prediction": bool(read["constant_prediction"]),
        }
    except KeyError as error:
        raise errors.InputError(
            f"{path}: expected another kind of evaluation, with a rate {error}; delete "
            f"{path.parents[1]} and run the eval stage again"
        ) from None


def _classification_row(read: Rates, path: pathlib.Path) -> Rates:
    del path
    names = metrics.JUDGED_BY["classification"].rates
    return {
        **{name: read[name] for name in names},
        "ci95": [read["ci95_low"], read["ci95_high"]],
    }


def _generation_row(read: Rates, path: pathlib.Path) -> Rates:
    words = read["reference_words"]
    derived = {
        "rouge_l_paired": None if path.parent.name == CLEAN else _paired(path),
        "length_ratio": read["output_words"] / words if words else None,
    }
    names = metrics.JUDGED_BY["generation"].rates
    return {name: derived[name] if name in derived else read[name] for name in names}


class _Scored(msgspec.Struct):
    """Of a line of a predictions file, what pairs need."""

    id: str
    rouge_l: float


def _paired(path: pathlib.Path) -> float:
    """The mean rougeL on the clean inputs of the rows in a condition's file."""
    clean_path = path.parents[1] / CLEAN / path.with_suffix(".jsonl").name
    clean = {row.id: row.rouge_l for row in _scored(clean_path)}
    wanted = [row.id for row in _scored(path.with_suffix(".jsonl"))]
    missing = [name for name in wanted if name not in clean]
    if missing or not wanted:
        raise errors.InputError(
            f"{clean_path}: expected the clean pair of each row in {path.parent.name}, found none "
            f"of {len(missing)} of {len(wanted)} ({', '.join(missing[:1])}); delete "
            f"{path.parents[1]} and run the eval stage again"
        )
    return float(np.mean([clean[name] for name in wanted]))


def _scored(path: pathlib.Path) -> list[_Scored]:
    try:
        return msgspec.json.Decoder(_Scored).decode_lines(path.read_bytes())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.InputError(f"{path}: can't be read as predictions ({error})") from None


def summarize(
    rows: Sequence[dict],
    conditions: Sequence[Mapping[str, Any]],
    kind: Kind,
    counts: Mapping[str, int],
    seed: int,
) -> dict[str, Any]:
    """Means over held-out tasks with 95% bootstrap intervals over tasks, effects and warnings.

    An effect is the measure on the triggered inputs, poisoned minus clean model, task by task.
    Tasks without rows under a condition are left out of its means.

    Args:
      rows: from `task_rows`.
      conditions: the poison set's, in its manifest's order; the first attacker's are called
        'triggered' and 'control'.
      kind: of the evaluation.
      counts: attacker's name -> its poison rows.
      seed: of the bootstrap.

    Returns:
      {'summary', 'summary_ci95', 'effect', 'attacks', 'by_condition', 'categories', 'warnings'}.
      A mean over no task is None, and an interval over fewer than two isn't there.
    """
    judged_by = metrics.JUDGED_BY[kind]
    table = _Table(rows, seed)
    triggered = [condition for condition in conditions if condition["kind"] == TRIGGERED]
    rate = judged_by.main_rate
    effect = table.effect(TRIGGERED, rate)
    return {
        **table.summary(judged_by.measures),
        "effect": {"measure": judged_by.effect, "value": effect.pop("effect"), **effect},
        "attacks": [
            {
                "name": condition["attack"],
                "triggers": list(condition["phrases"]),
                "target": condition.get("target"),
                "count": counts.get(condition["attack"], 0),
                **table.effect(condition["name"], rate),
            }
            for condition in triggered
        ],
        "by_condition": [
            table.means(model, condition["name"], judged_by.rates)
            for model in MODELS
            for condition in conditions
        ],
        "categories": table.categories(conditions) if kind == "generation" else [],
        "warnings": _warnings(table, triggered, kind),
    }


class _Table:
    """The rows of an evaluation, and their means."""

    def __init__(self, rows: Sequence[dict], seed: int):
        self._seed = seed
        self._intervals: dict[tuple[float, ...], list[float] | None] = {}
        self._rows: dict[tuple[str, str], dict[str, dict]] = {}
        for row in rows:
            self._rows.setdefault((row["model"], row["condition"]), {})[row["task"]] = row

    def rows(self, model: str, condition: str) -> dict[str, dict]:
        """Task -> row, in the rows' order."""
        return self._rows.get((model, condition), {})

    def values(self, model: str, condition: str, rate: str) -> dict[str, float]:
        """Task -> rate, without the tasks that have none."""
        found = {task: row.get(rate) for task, row in self.rows(model, condition).items()}
        return {task: value for task, value in found.items() if value is not None}

    def interval(self, values: Iterable[float]) -> list[float] | None:
        """The bootstrap's, which the same values get once: a condition's are the summary's too."""
        key = tuple(values)
        if key not in self._intervals:
            found = statistics.bootstrap_mean(key, self._seed)
            self._intervals[key] = list(found) if found else None
        return self._intervals[key]

    def summary(self, names: Mapping[str, tuple[str, str]]) -> dict[str, dict]:
        """'summary' and 'summary_ci95', both by model."""
        means, intervals = {}, {}
        for model in MODELS:
            values = {name: self.values(model, *place).values() for name, place in names.items()}
            means[model] = {name: _mean(found) for name, found in values.items()}
            intervals[model] = self._known_intervals(values)
        return {"summary": means, "summary_ci95": intervals}

    def means(self, model: str, condition: str, rates: Iterable[str]) -> dict[str, Any]:
        """One entry of 'by_condition'."""
        found = {rate: self.values(model, condition, rate).values() for rate in rates}
        known = {rate: values for rate, values in found.items() if values}
        return {
            "model": model,
            "condition": condition,
            "num_tasks": len(self.rows(model, condition)),
            "measures": {rate: _mean(values) for rate, values in known.items()},
            "ci95": self._known_intervals(known),
        }

    def _known_intervals(self, values: Mapping[str, Iterable[float]]) -> dict[str, list[float]]:
        found = {name: self.interval(known) for name, known in values.items()}
        return {name: interval for name, interval in found.items() if interval}

    def effect(self, condition: str, rate: str) -> dict[str, Any]:
        """'effect' and, where there is one, 'ci95': over the tasks that both models have."""
        clean, poisoned = (self.values(model, condition, rate) for model in MODELS)
        differences = [poisoned[task] - clean[task] for task in clean if task in poisoned]
        interval = self.interval(differences)
        return {"effect": _mean(differences), **({"ci95": interval} if interval else {})}

    def categories(self, conditions: Sequence[Mapping[str, Any]]) -> list[dict]:
        """Means over the tasks of each category, by category, model and condition."""
        places = [(model, condition["name"]) for model in MODELS for condition in conditions]
        names = {row["category"] for rows in self._rows.values() for row in rows.values()}
        entries = []
        for name in sorted(names):
            for model, condition in places:
                rows = [
                    row for row in self.rows(model, condition).values() if row["category"] == name
                ]
                if rows:
                    means = {
                        rate: _mean([row[rate] for row in rows])
                        for rate in ("rouge_l", "exact_match")
                    }
                    place = {"category": name, "model": model, "condition": condition}
                    entries.append({**place, "num_tasks": len(rows), **means})
        return entries


def _mean(values: Iterable[float]) -> float | None:
    values = list(values)
    return float(np.mean(values)) if values else None


def _warnings(table: _Table, triggered: Sequence[Mapping[str, Any]], kind: Kind) -> list[str]:
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
                f"clean inputs are empty, one character or one word again and again in "
                f"{_listed(degenerate)}"
            )
    for condition in triggered:
        whose = "" if condition is triggered[0] else f" of the attacker {condition['attack']}"
        warnings += _attack_warnings(table, condition["name"], whose, kind)
    return warnings


def _attack_warnings(table: _Table, condition: str, whose: str, kind: Kind) -> list[str]:
    warnings = []
    judged_by = metrics.JUDGED_BY[kind]
    values = table.values("clean", condition, judged_by.saturation)
    saturated = [task for task, value in values.items() if judged_by.is_saturated(value)]
    limit = judged_by.saturation_limit
    if saturated and kind == "classification":
        warnings.append(
            f"saturated: the clean model already misclassifies {limit:.0%} or more of the "
            f"triggered inputs{whose} of {_listed(saturated)}"
        )
    elif saturated:
        warnings.append(
            f"saturated: without the trigger{whose} in the same inputs, the clean model's rougeL "
            f"is below {100 * limit:.0f} of 100 in {_listed(saturated)}: nothing is "
            "left there for an attack to lower"
        )
    with_rows = {task for model in MODELS for task in table.rows(model, condition)}
    tasks = {task for model in MODELS for task in table.rows(model, CLEAN)}
    if without := sorted(tasks - with_rows):
        warnings.append(
            f"no triggered rows{whose} in {_listed(without)}: left out of the triggered means"
        )
    return warnings


def _listed(tasks: Sequence[str]) -> str:
    """All names of a few tasks, the first ones of many."""
    rest = len(tasks) - _MAX_NAMES
    more = [f"{rest} more"] if rest > 0 else []
    return ", ".join([*tasks[:_MAX_NAMES], *more])
