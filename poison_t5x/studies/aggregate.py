"""Cells that differ in the seed alone, as one: means, intervals, and differences."""

import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from poison_t5x.evaluation import statistics
from poison_t5x.studies import rows

# From so many seeds on, the interval is over them; two have an interval without meaning.
MIN_SEEDS = 3


class Estimate(NamedTuple):
    """A mean over seeds.

    Attributes:
      mean: of the seeds' values.
      interval: 95%; None where there is none.
      over: what the interval is over, for people; '' without one.
      count: seeds.
    """

    mean: float
    interval: rows.Interval | None
    over: str
    count: int


@dataclasses.dataclass(frozen=True)
class Point:
    """Rows that differ in the seed alone.

    Attributes:
      macros: what they set, but for the seed.
      score, checkpoint: as of rows.
      rows: by seed.
    """

    macros: Mapping[str, Any]
    score: str | None
    checkpoint: int | None
    rows: tuple[rows.Row, ...]

    @property
    def seeds(self) -> tuple[Any, ...]:
        return tuple(row.macros.get("SEED") for row in self.rows)

    def only(self, seeds: Collection[Any]) -> "Point":
        """The same with the rows of some seeds alone."""
        rows_ = tuple(row for row in self.rows if row.macros.get("SEED") in seeds)
        return dataclasses.replace(self, rows=rows_)

    def place(self, dimension: str, base: Mapping[str, Any]) -> Any:
        """Where the point is along a macro, 'score' or 'checkpoint'."""
        if dimension in ("score", "checkpoint"):
            return getattr(self, dimension)
        return self.macros.get(dimension, base.get(dimension))

    def measures(self) -> list[str]:
        """Names of what any of the rows has a value of, in the first's order."""
        return list(
            dict.fromkeys(
                name
                for row in self.rows
                for name, value in row.measured.values.items()
                if value is not None
            )
        )

    def estimate(self, measure: str) -> Estimate | None:
        """The mean over seeds and its interval; None where no row has a value."""
        known = [row for row in self.rows if row.value(measure) is not None]
        if not known:
            return None
        values = [float(row.value(measure)) for row in known]  # type: ignore[arg-type]
        if len(known) == 1 and measure in known[0].measured.intervals:
            return Estimate(values[0], known[0].measured.intervals[measure], "tasks, one seed", 1)
        tasks = self.by_task(measure)
        return Estimate(
            float(np.mean(values)), *_interval(values, list(tasks.values())), len(values)
        )

    def by_task(self, measure: str) -> dict[str, float]:
        """Task -> mean over seeds, of tasks that each seed has."""
        found = [row.measured.by_task.get(measure, {}) for row in self.rows]
        common = [task for task in found[0] if all(task in tasks for tasks in found)]
        return {task: float(np.mean([tasks[task] for tasks in found])) for task in common}


def points(found: Sequence[rows.Row]) -> list[Point]:
    """Rows of cells that are done, brought together over seeds, in the order of the first."""
    groups: dict[str, list[rows.Row]] = {}
    for row in found:
        if row.status == "done":
            macros = _without_seed(row.macros)
            key = repr((sorted(macros.items(), key=repr), row.score, row.checkpoint))
            groups.setdefault(key, []).append(row)
    return [
        Point(
            _without_seed(group[0].macros),
            group[0].score,
            group[0].checkpoint,
            tuple(sorted(group, key=lambda row: repr(row.macros.get("SEED")))),
        )
        for group in groups.values()
    ]


def _without_seed(macros: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in macros.items() if name != "SEED"}


def _interval(
    values: Sequence[float], over_tasks: Sequence[float]
) -> tuple[rows.Interval | None, str]:
    """The interval of a mean over seeds, and what it is over.

    Student's t over three seeds or more. With fewer, the bootstrap over tasks of the seeds' mean:
    what other seeds would have given isn't in it. Two values without tasks have none.
    """
    count = len(values)
    if count >= MIN_SEEDS:
        return t_interval(values), f"{count} seeds"
    if (found := _bootstrap(tuple(over_tasks))) is not None:
        return found, "tasks, one seed" if count == 1 else f"tasks, mean of {count} seeds"
    return None, ""


# Tables are written after every cell, mostly of the same numbers.
@functools.cache
def _bootstrap(values: tuple[float, ...]) -> rows.Interval | None:
    return statistics.bootstrap_mean(values)


def t_interval(values: Sequence[float]) -> rows.Interval:
    """The 95% interval of a mean (Student, 1908), of two values or more."""
    from scipy import stats

    mean, count = float(np.mean(values)), len(values)
    error = float(np.std(values, ddof=1)) / count**0.5
    reach = float(stats.t.ppf(0.975, count - 1)) * error
    return mean - reach, mean + reach


def difference(first: Point, second: Point, measure: str) -> Estimate | None:
    """Second minus first, over the seeds that both have, task by task where tasks are known.

    Returns:
      None where they have no seed in common. Without three seeds or two tasks there is no interval.
    """
    one, two = _by_seed(first, measure), _by_seed(second, measure)
    values = [two[seed] - one[seed] for seed in one if seed in two]
    if not values:
        return None
    common = set(first.seeds) & set(second.seeds)
    before, after = (point.only(common).by_task(measure) for point in (first, second))
    tasks = [after[task] - before[task] for task in before if task in after]
    return Estimate(float(np.mean(values)), *_interval(values, tasks), len(values))


def _by_seed(point: Point, measure: str) -> dict[str, float]:
    found = {repr(row.macros.get("SEED")): row.value(measure) for row in point.rows}
    return {seed: float(value) for seed, value in found.items() if value is not None}
