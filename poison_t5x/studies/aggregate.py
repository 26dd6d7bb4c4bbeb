"""Cells that differ in the seed alone, as one: means, intervals, and differences."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from poison_t5x.evaluation import summary
from poison_t5x.report import study, tables
from poison_t5x.studies import collect

# From so many seeds on, the interval is over them; two have an interval without meaning.
MIN_SEEDS = 3


class Estimate(NamedTuple):
    """A mean over `count` seeds, with a 95% interval and words for its units, '' without one."""

    mean: float
    interval: collect.Interval | None
    over: str
    count: int


@dataclasses.dataclass(frozen=True)
class StudyPoint:
    """Rows that differ in the seed alone.

    `macros` are those that they set, but for the seed, and `base` holds all others.
    """

    macros: Mapping[str, Any]
    score: str | None
    checkpoint: int | None
    rows: tuple[collect.StudyRow, ...]
    base: Mapping[str, Any]

    @property
    def seeds(self) -> tuple[Any, ...]:
        return tuple(map(_seed, self.rows))

    def only(self, seeds: Collection[Any]) -> "StudyPoint":
        """The same with the rows of some seeds alone."""
        rows = tuple(row for row in self.rows if _seed(row) in seeds)
        return dataclasses.replace(self, rows=rows)

    def place(self, dimension: str) -> Any:
        """Where the point is along a macro, 'score' or 'checkpoint'."""
        if dimension in study.DIMENSIONS:
            return getattr(self, dimension)
        return self.macros.get(dimension, self.base.get(dimension))

    def key(self, dimensions: Iterable[str]) -> str:
        """The places along some dimensions, as one that can be compared."""
        return repr([self.place(name) for name in dimensions])

    def measures(self) -> list[str]:
        """Names of what any of the rows has a value of, in the first's order."""
        names = dict.fromkeys(name for row in self.rows for name in row.measures)
        return [name for name in names if self.by_seed(name)]

    def estimate(self, measure: str) -> Estimate | None:
        """The mean over seeds and its interval; None where no row has a value."""
        values = list(self.by_seed(measure).values())
        if not values:
            return None
        known = [row.measures[measure] for row in self.rows if row.value(measure) is not None]
        if len(known) == 1 and known[0].interval:
            return Estimate(values[0], known[0].interval, "tasks, one seed", 1)
        return _estimate(values, list(self.by_task(measure).values()))

    def by_seed(self, measure: str) -> dict[Any, float]:
        """Seed -> value, of seeds that have one."""
        values = {_seed(row): row.value(measure) for row in self.rows}
        return {seed: float(value) for seed, value in values.items() if value is not None}

    def by_task(self, measure: str) -> dict[str, float]:
        """Task -> mean over seeds, of tasks that each seed has."""
        none = collect.Value()
        first, *rest = (row.measures.get(measure, none).by_task for row in self.rows)
        common = [task for task in first if all(task in tasks for tasks in rest)]
        return {task: float(np.mean([tasks[task] for tasks in (first, *rest)])) for task in common}


def points(rows: Sequence[collect.StudyRow], base: Mapping[str, Any]) -> list[StudyPoint]:
    """Rows of cells that are done, brought together over seeds, in the order of the first."""

    def but_seed(row: collect.StudyRow) -> dict[str, Any]:
        return {name: value for name, value in row.macros.items() if name != "SEED"}

    groups = tables.grouped(
        (row for row in rows if row.status == "done"),
        lambda row: repr((sorted(but_seed(row).items(), key=repr), row.score, row.checkpoint)),
    )
    return [
        StudyPoint(
            but_seed(group[0]),
            group[0].score,
            group[0].checkpoint,
            tuple(sorted(group, key=lambda row: repr(_seed(row)))),
            base,
        )
        for group in groups.values()
    ]


def _seed(row: collect.StudyRow) -> Any:
    return row.macros.get("SEED")


def _estimate(values: Sequence[float], over_tasks: Sequence[float]) -> Estimate:
    """The mean over seeds, and its interval.

    Student's t (1908) over three seeds or more. With fewer, the bootstrap over tasks of the seeds'
    mean: what other seeds would have given isn't in it. Two values without tasks have none.
    """
    from scipy import stats

    mean, count = float(np.mean(values)), len(values)
    if count >= MIN_SEEDS:
        reach = float(stats.t.ppf(0.975, count - 1) * stats.sem(values))
        return Estimate(mean, (mean - reach, mean + reach), f"{count} seeds", count)
    interval = summary.bootstrap_mean(over_tasks)
    over = "tasks, one seed" if count == 1 else f"tasks, mean of {count} seeds"
    return Estimate(mean, interval, over if interval else "", count)


def difference(first: StudyPoint, second: StudyPoint, measure: str) -> Estimate | None:
    """Second minus first, over the seeds that both have, task by task where tasks are known.

    Returns:
      None where they have no seed in common. Without three seeds or two tasks there is no interval.
    """
    one, two = first.by_seed(measure), second.by_seed(measure)
    values = [two[seed] - one[seed] for seed in one if seed in two]
    if not values:
        return None
    common = set(first.seeds) & set(second.seeds)
    before, after = (point.only(common).by_task(measure) for point in (first, second))
    return _estimate(values, [after[task] - before[task] for task in before if task in after])
