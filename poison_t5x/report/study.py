"""A study's charts, finding, tables and page: a measure along one setting, a line for each other.

Settings, rows and points are records of `studies`, which stands above this room: what is read of
them is their attributes and methods.
"""

import itertools
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from poison_t5x.core import artifacts, metrics
from poison_t5x.report import plots, render, tables
from poison_t5x.report.plots import Point, Series

SCHEMA = 1
# What rows have beside macros, for the x axis and lines.
DIMENSIONS = ("score", "checkpoint")
# Runs that differ in these are of different questions: no line joins them.
_UNLIKE = ("EXPERIMENT", "ATTACK")
_OF_STUDY = ("question", "command", "x", "lines", "measures")
_OF_CELL = ("cell", "macros", "score", "checkpoint", "status", "error", "measure")
_OF_POINT = ("macros", "score", "checkpoint", "seeds")
_USUAL = ("clean", "poisoned", "control", "effect", "accuracy")
# Measure -> its words, and its unit where that isn't percent.
_MEASURES = tables.WORDS["study_measures"]
_UNITS = {"points": tables.POINTS, "decimal": tables.DECIMAL, "count": tables.COUNT}
# From so many means on, a rank correlation says something.
_MIN_CORRELATED = 4


class StudyResults(NamedTuple):
    """A study's settings, rows of its cells, points (rows over seeds), and how each cell ended.

    `difference` is of two points and a measure: the estimate of second minus first.
    """

    config: Any
    rows: Sequence[Any]
    points: Sequence[Any]
    outcomes: Mapping[str, Any]
    difference: Callable[[Any, Any, str], Any]

    @property
    def failed(self) -> list[Any]:
        return [row for row in self.rows if row.status == "failed"]


class Chart(NamedTuple):
    """One measure along one dimension; the lines' `sources` are the study's points."""

    x: str
    measure: str
    lines: Sequence[Series]

    @property
    def caption(self) -> str:
        """The caption, with what its intervals are over."""
        over = "; ".join(_distinct(one.over for line in self.lines for one in line.points))
        caption = tables.heading(f"{measure_words(self.measure)} by {self.x}")
        return f"{caption}; bars are 95% intervals over {over}" if over else caption

    def picture(self) -> plots.Picture:
        unit = measure_unit(self.measure)
        y = f"{measure_words(self.measure)}{', points' if unit == tables.POINTS else ''}"
        name = f"{self.measure}_by_{self.x}".replace(".", "_")
        records = plots.records(self.x, self.measure, self.lines)
        return plots.lines(name, self.x, y, self.lines, unit)._replace(records=records)


def measure_words(name: str) -> str:
    """A measure's name for people."""
    if name.startswith("removed_for_"):
        return f"share of the data removed to lose {float(name[12:]):.0%} of the poison"
    if name.startswith("recall_"):
        return f"share of the poison in the first {float(name[7:]):.0%} of the rows"
    return _MEASURES[name][0] if name in _MEASURES else name.replace("_", " ").replace(".", ": ")


def measure_unit(name: str, *, difference: bool = False) -> tables.Unit:
    """How a measure's values are said, or those of a `difference` of two of them."""
    _, *kind = _MEASURES.get(name, [name])
    unit = _UNITS[kind[0]] if kind else tables.PERCENT
    if difference:
        return tables.POINTS if unit == tables.PERCENT else unit._replace(sign="+")
    return unit


def charts(study: StudyResults) -> list[Chart]:
    """A chart for each of the study's x and measures that there is something to show of.

    Where there are several x, each shows the points that have the study's own values of the others:
    one factor at a time.
    """
    config = study.config
    return [
        Chart(x, measure, _lines(own, x, measure, config))
        for x in config.x
        for measure in config.measures
        if (own := [p for p in study.points if p.by_seed(measure) and _belongs(p, x, config)])
    ]


def _belongs(point: Any, x: str, config: Any) -> bool:
    if (point.checkpoint is not None) != ("checkpoint" in (x, *config.lines)):
        return False
    others = [name for name in config.x if name != x and name not in DIMENSIONS]
    is_own = all(repr(point.place(name)) == repr(config.base.get(name)) for name in others)
    return is_own and not (x == "score" and point.score is None)


def varying(points: Sequence[Any]) -> list[str]:
    """Names of macros, 'score' and 'checkpoint' in which points differ."""
    names = dict.fromkeys([*(name for point in points for name in point.macros), *DIMENSIONS])
    return [name for name in names if len({point.key([name]) for point in points}) > 1]


def _lines(points: Sequence[Any], x: str, measure: str, config: Any) -> list[Series]:
    def groups(names: Sequence[str]) -> list[list[Any]]:
        return list(tables.grouped(points, lambda point: point.key(names)).values())

    differ = [name for name in varying(points) if name != x]
    told_apart = [name for name in differ if name in (*config.lines, *_UNLIKE)]
    if any(len({point.key([x]) for point in one}) < len(one) for one in groups(told_apart)):
        told_apart += [name for name in differ if name not in told_apart]
    return [_line(group, x, measure, told_apart) for group in groups(told_apart)]


def _line(group: Sequence[Any], x: str, measure: str, names: Sequence[str]) -> Series:
    order = [repr([place]) for place in plots.ordered(point.place(x) for point in group)]
    group = sorted(group, key=lambda point: order.index(point.key([x])))
    common = set.intersection(*(set(point.seeds) for point in group))
    if common:  # else a line would go from one seed's value to another's
        group = [point.only(common) for point in group]
    words = {"score": "", "checkpoint": "step "}
    places = ((name, tables.plain(group[0].place(name))) for name in names)
    label = ", ".join(f"{words.get(name, f'{name} ')}{place}" for name, place in places)
    known = [(point, one) for point in group if (one := point.estimate(measure))]
    drawn = [Point(p.place(x), one.mean, one.interval, one.over) for p, one in known]
    return Series(label, drawn, sources=[point for point, _ in known])


def finding(study: StudyResults, drawn: Sequence[Chart]) -> list[str]:
    """Sentences: of each line of each chart, of whether the attack worked, of cells that failed."""
    lines = [_facts(chart, line, study) for chart in drawn for line in chart.lines]
    text = render.text("study.txt.j2", lines=lines, attacks=_attacks(study), rows=study.rows)
    return text.split("\n") if text else []


def _facts(chart: Chart, line: Series, study: StudyResults) -> dict[str, Any]:
    """Of a line, all that the finding's template may tell."""
    unit, points = measure_unit(chart.measure), line.points
    means, last = [one.value for one in points], len(points) - 1
    is_trend = last > 0 and all(tables.is_number(one.x) for one in points)
    steps = [after - before for before, after in itertools.pairwise(means)]
    # Of numbers, the last step; of categories, each against the first.
    pairs = [(last - 1, last)] if is_trend else [(0, place) for place in range(1, last + 1)]
    by_mean = sorted(points, key=lambda one: one.value)
    rho = None
    if is_trend and len(means) >= _MIN_CORRELATED and len(set(means)) > 1:
        from scipy import stats

        rho = float(stats.spearmanr([one.x for one in points], means).statistic) + 0.0
    return {
        "measure": measure_words(chart.measure),
        "x": chart.x,
        "of": line.name,
        "told": [f"{tables.plain(p.x)}: {unit.both(p.value, p.interval)}" for p in points],
        "over": _distinct(one.over for one in points),
        "is_trend": is_trend,
        "rises": len(steps) > 1 and min(steps) > 0,
        "falls": len(steps) > 1 and max(steps) < 0,
        "lowest": by_mean[0].x if points else None,
        "highest": by_mean[-1].x if points else None,
        "changes": [_change(line, *pair, chart.measure, study) for pair in pairs],
        "rho": rho,
        "blind": _blind(chart, line, study.points),
    }


def _change(line: Series, first: int, second: int, measure: str, study: StudyResults) -> dict:
    """From one point of a line to another, and whether the interval includes 0."""
    change = study.difference(line.sources[first], line.sources[second], measure)
    interval = change and change.interval
    unit = measure_unit(measure, difference=True)
    return {
        "first": tables.plain(line.points[first].x),
        "second": tables.plain(line.points[second].x),
        "by": change and unit.both(change.mean, interval),
        "includes_0": interval[0] <= 0 <= interval[1] if interval else None,
    }


def _blind(chart: Chart, line: Series, points: Sequence[Any]) -> str:
    """A score at the checkpoint that it chose itself, without knowing the poison."""
    first = line.sources[0] if line.sources else None
    if chart.x == "checkpoint" and first and first.score is not None:
        for point in points:
            is_own = (point.score, point.macros) == (first.score, first.macros)
            if point.checkpoint is None and is_own and (one := point.estimate(chart.measure)):
                return measure_unit(chart.measure).both(one.mean, one.interval)
    return ""


def _attacks(study: StudyResults) -> dict[str, list[str]]:
    """Settings by whether the attack worked; a defence has no say in that."""
    attacks: dict[str, Any] = {}
    for point in study.points:
        if point.score is None and point.checkpoint is None:
            own = (p for p in point.macros.items() if p[0] not in study.config.defense_macros)
            names = ", ".join(f"{name} {tables.plain(value)}" for name, value in own)
            attacks.setdefault(names or "the study’s own settings", point)
    settings: dict[str, list[str]] = {"worked": [], "failed": [], "reversed": [], "unknown": []}
    for name, point in attacks.items():
        if effect := point.estimate("effect"):
            verdict = metrics.judged_by(point.rows[0].measure).verdict(effect.interval)
            said = measure_unit("effect").both(effect.mean, effect.interval)
            settings[verdict].append(f"{name} ({said})")
    return settings


def write_tables(directory: pathlib.Path, study: StudyResults, sentences: Sequence[str]) -> None:
    """Writes study.json, study.csv, summary.csv and timings.json.

    study.json has no times in it: the same cells give the same bytes, in whatever order they ran.
    Those are in timings.json, and in a column of study.csv.
    """
    known = [(point, _known(point)) for point in study.points]
    names = varying(study.points)
    summary = [
        {
            **{place: point.place(place) for place in names},
            **{"measure": name, "mean": one.mean, **tables.bounds(one.interval)},
            **{"interval_over": one.over, "seeds": one.count},
        }
        for point, estimates in known
        for name, one in estimates
    ]
    times = {
        name: {"seconds": round(outcome.seconds, 1), "peak_bytes": outcome.peak_bytes}
        for name, outcome in sorted(study.outcomes.items())
    }
    files = {
        "study.json": artifacts.dump_json(_whole(study, known, sentences)),
        "study.csv": tables.csv_text([_record(row, study.outcomes) for row in study.rows]),
        "summary.csv": tables.csv_text(summary),
        "timings.json": artifacts.dump_json(times),
    }
    for name, text in files.items():
        artifacts.write_atomically(directory / name, text)


def _known(point: Any) -> list[tuple[str, Any]]:
    return [(name, one) for name in point.measures() if (one := point.estimate(name))]


def _whole(study: StudyResults, known: Sequence[Any], sentences: Sequence[str]) -> Any:
    """The content of study.json; `known` has each point's estimates."""
    whole = {
        "schema": SCHEMA,
        **_parts(study.config, _OF_STUDY),
        "finding": sentences,
        "cells": [
            {
                **_parts(row, _OF_CELL),
                "values": {name: one.value for name, one in row.measures.items()},
                "ci95": {name: one.interval for name, one in row.measures.items() if one.interval},
            }
            for row in study.rows
        ],
        "summary": [
            {
                **_parts(point, _OF_POINT),
                "values": {
                    name: {"mean": e.mean, "ci95": e.interval, "over": e.over, "seeds": e.count}
                    for name, e in estimates
                },
            }
            for point, estimates in known
        ],
        "failed": [_parts(row, ("cell", "error")) for row in study.failed],
    }
    # A value that JSON hasn't is its text in gin.
    return msgspec.to_builtins(whole, str_keys=True, enc_hook=repr)


def _parts(record: Any, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(record, name) for name in names}


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(filter(None, texts)))


def _record(row: Any, outcomes: Mapping[str, Any]) -> dict[str, Any]:
    """A line of study.csv."""
    outcome = outcomes.get(row.cell)
    record = {
        **_parts(row, ("cell", "status", "error")),
        "seconds": round(outcome.seconds, 1) if outcome else None,
        **row.macros,
        **_parts(row, ("score", "checkpoint", "measure")),
    }
    for name, one in row.measures.items():
        record |= {name: one.value, **tables.bounds(one.interval, f"{name}_")}
    return record


def write_page(
    directory: pathlib.Path,
    study: StudyResults,
    drawn: Sequence[Chart],
    sentences: Sequence[str],
    command: str,
) -> pathlib.Path:
    """Draws the figures, writes index.html with the command line, and returns its path."""
    pictures = [(chart.picture(), chart.caption) for chart in drawn]
    plots.write([picture for picture, _ in pictures], directory / "figures")
    context = {
        "study_title": directory.resolve().name,
        "question": study.config.question,
        "sentences": sentences,
        "pictures": pictures,
        "summary": _summary(study),
        "study": study,
        "reported": {path.parts[-3] for path in directory.glob("cells/*/report/index.html")},
        "command": command,
    }
    render.write_page(directory / "index.html", "study.html.j2", context)
    return directory / "index.html"


def _summary(study: StudyResults) -> tables.Table:
    """Points by the study's own measures, and the usual ones that there are."""
    names, rows = varying(study.points), []
    known = {name for point in study.points for name in point.measures()}
    measures = [name for name in _distinct([*study.config.measures, *_USUAL]) if name in known]
    for point in study.points:
        estimates = {name: point.estimate(name) for name in measures}
        if overs := [one.over for one in estimates.values() if one]:
            places = (point.place(name) for name in names)
            cells = (
                measure_unit(name).cell(one.mean, one.interval) if one else "–"
                for name, one in estimates.items()
            )
            seeds = ", ".join(str(seed) for seed in point.seeds if seed is not None)
            shown = ("" if place is None else str(tables.plain(place)) for place in places)
            rows.append((*shown, *cells, seeds, "; ".join(_distinct(overs))))
    caption = (
        "Means over seeds, with 95% intervals over what the last column says; with one or two "
        "seeds they are over held-out tasks, and say nothing of other seeds"
    )
    heads = (*names, *map(measure_words, measures), "seeds", "intervals over")
    return tables.Table(caption, heads, rows, range(len(names), len(names) + len(measures)))
