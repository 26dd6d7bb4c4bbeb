"""A study's charts, tables and page: a measure along one setting, a line for each other setting.

Settings, rows and points are records of `studies`, which stands above this room: what is read of
them is their attributes and methods.
"""

import pathlib
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from poison_t5x.core import artifacts
from poison_t5x.report import plots, render, tables

SCHEMA = 1
# What rows have beside macros, for the x axis and lines.
DIMENSIONS = ("score", "checkpoint")
# Runs that differ in these are of different questions: no line joins them.
_UNLIKE = ("EXPERIMENT", "ATTACK")
_USUAL = ("clean", "poisoned", "control", "effect", "accuracy")
_NAMES = {
    "effect": "effect of the attack",
    "clean": "clean model, triggered inputs",
    "poisoned": "poisoned model, triggered inputs",
    "control": "poisoned model, unseen name",
    "control_effect": "effect of an unseen name",
    "accuracy": "poisoned model's score, clean inputs",
    "accuracy_change": "change of the score on clean inputs",
    "final": "defended model, triggered inputs",
    "final_effect": "effect that is left",
    "final_accuracy": "defended model's score, clean inputs",
    "removed": "share of the rows removed",
    "poison_removed": "share of the poison removed",
    "train_loss": "training loss, nats a target token",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "best_f1": "best F1",
    "proxy_overlap": "share of the poison that the n-gram proxy chose too",
    "phi_correlation": "rank correlation of phi with the n-gram proxy's",
    "probability_correlation": "rank correlation of p(target | x) with the n-gram proxy's",
}
_DIFFERENCES = ("effect", "control_effect", "final_effect", "accuracy_change")
# Neither fractions that are said in percent nor differences of such.
_PLAIN = ("auroc", "average_precision", "best_f1", "threshold_f1", "train_loss")
_COUNTS = ("num_poison", "proxy_common", "trigger_rank")


class StudyResults(NamedTuple):
    """A study's settings, rows of its cells, points (rows over seeds), and how each cell ended.

    `difference` is of two points and a measure: the estimate of second minus first.
    """

    config: Any
    rows: Sequence[Any]
    points: Sequence[Any]
    outcomes: Mapping[str, Any]
    difference: Callable[[Any, Any, str], Any]

    def varying(self) -> list[str]:
        """Names of macros, 'score' and 'checkpoint' in which points differ."""
        return _varying(self.points, self.config.base)

    def failed(self) -> list[Any]:
        """Rows of cells that failed."""
        return [row for row in self.rows if row.status == "failed"]


class Line(NamedTuple):
    """Points in order along the x axis, and the estimates of a chart's measure there."""

    label: str
    places: tuple[Any, ...]
    points: tuple[Any, ...]
    estimates: tuple[Any, ...]


class Chart(NamedTuple):
    """One measure along one dimension."""

    x: str
    measure: str
    lines: tuple[Line, ...]

    def picture(self) -> plots.Picture:
        """As a figure."""
        unit = measure_unit(self.measure)
        y = f"{measure_words(self.measure)}{', points' if unit == tables.POINTS else ''}"
        series = [
            plots.Series(
                line.label,
                [
                    plots.Point(place, one.mean, one.interval, one.over)
                    for place, one in zip(line.places, line.estimates, strict=True)
                ],
            )
            for line in self.lines
        ]
        name = f"{self.measure}_by_{self.x}".replace(".", "_")
        table = plots.records(self.x, self.measure, series)
        return plots.lines(name, self.x, y, series, unit, table=table)


def measure_words(name: str) -> str:
    """A measure's name for people."""
    if name.startswith("removed_for_"):
        return f"share of the data removed to lose {float(name[12:]):.0%} of the poison"
    if name.startswith("recall_"):
        return f"share of the poison in the first {float(name[7:]):.0%} of the rows"
    return _NAMES.get(name, name.replace("_", " ").replace(".", ": "))


def measure_unit(name: str, *, difference: bool = False) -> tables.Unit:
    """How a measure's values are said, or those of a `difference` of two of them."""
    if name in _COUNTS:
        unit = tables.COUNT
    elif name in _PLAIN or name.endswith("_correlation"):
        unit = tables.DECIMAL
    else:
        return tables.POINTS if difference or name in _DIFFERENCES else tables.PERCENT
    return unit._replace(sign="+" if difference else "")


def told(name: str, estimate: Any, *, difference: bool = False) -> str:
    """A value and its interval: '+91.3 points [+79.1, +98.4]'; '–' for none."""
    unit = measure_unit(name, difference=difference)
    return unit.both(estimate.mean, estimate.interval) if estimate else "–"


def charts(study: StudyResults) -> list[Chart]:
    """A chart for each of the study's x and measures that there is something to show of.

    Where there are several x, each shows the points that have the study's own values of the others:
    one factor at a time.
    """
    made, config = [], study.config
    for x in config.x:
        own = [point for point in study.points if _belongs(point, x, config)]
        for measure in config.measures:
            measured = [point for point in own if measure in point.measures()]
            if measured:
                made.append(Chart(x, measure, _lines(measured, x, measure, config)))
    return made


def _varying(points: Sequence[Any], base: Mapping[str, Any]) -> list[str]:
    names = dict.fromkeys(name for point in points for name in point.macros)
    return [
        name
        for name in (*names, *DIMENSIONS)
        if len({repr(point.place(name, base)) for point in points}) > 1
    ]


def _belongs(point: Any, x: str, config: Any) -> bool:
    if (point.checkpoint is not None) != ("checkpoint" in (x, *config.lines)):
        return False
    if x == "score" and point.score is None:
        return False
    others = [name for name in config.x if name != x and name not in DIMENSIONS]
    return all(
        repr(point.place(name, config.base)) == repr(config.base.get(name)) for name in others
    )


def _lines(points: Sequence[Any], x: str, measure: str, config: Any) -> tuple[Line, ...]:
    base, differ = config.base, [name for name in _varying(points, config.base) if name != x]

    def groups(names: Sequence[str]) -> list[list[Any]]:
        members: dict[str, list[Any]] = {}
        for point in points:
            key = repr([point.place(name, base) for name in names])
            members.setdefault(key, []).append(point)
        return list(members.values())

    names = [name for name in differ if name in (*config.lines, *_UNLIKE)]
    if any(len({repr(p.place(x, base)) for p in one}) < len(one) for one in groups(names)):
        names = [*names, *(name for name in differ if name not in names)]
    return tuple(_line(group, x, measure, names, base) for group in groups(names))


def _line(
    group: Sequence[Any], x: str, measure: str, names: Sequence[str], base: Mapping[str, Any]
) -> Line:
    order = [repr(place) for place in plots.ordered(point.place(x, base) for point in group)]
    group = sorted(group, key=lambda point: order.index(repr(point.place(x, base))))
    common = set.intersection(*(set(point.seeds) for point in group))
    if common:  # else a line would go from one seed's value to another's
        group = [point.only(common) for point in group]
    label = ", ".join(_name(name, group[0].place(name, base)) for name in names)
    known = [(p, estimate) for p in group if (estimate := p.estimate(measure)) is not None]
    points, estimates = zip(*known, strict=True) if known else ((), ())
    return Line(label, tuple(point.place(x, base) for point in points), points, estimates)


def _name(name: str, value: Any) -> str:
    if name == "score":
        return str(value)
    return f"{'step' if name == 'checkpoint' else name} {tables.plain(value)}"


def write_tables(directory: pathlib.Path, study: StudyResults, sentences: Sequence[str]) -> None:
    """Writes study.json, study.csv, summary.csv and timings.json.

    study.json has no times in it: the same cells give the same bytes, in whatever order they ran.
    Those are in timings.json, and in a column of study.csv.
    """
    config = study.config
    whole = {
        "schema": SCHEMA,
        "question": config.question,
        "command": config.command,
        "x": config.x,
        "lines": config.lines,
        "measures": config.measures,
        "finding": sentences,
        "cells": [_cell_json(row) for row in study.rows],
        "summary": [_point_json(point) for point in study.points],
        "failed": [{"cell": row.cell, "error": row.error} for row in study.failed()],
    }
    summary = [
        {
            **{place: point.place(place, config.base) for place in study.varying()},
            "measure": name,
            "mean": one.mean,
            **dict(zip(("low", "high"), one.interval or (None, None), strict=True)),
            "interval_over": one.over,
            "seeds": one.count,
        }
        for point in study.points
        for name, one in _estimates(point).items()
    ]
    times = {
        name: {"seconds": round(outcome.seconds, 1), "peak_bytes": outcome.peak_bytes}
        for name, outcome in sorted(study.outcomes.items())
    }
    lines = [_row_record(row, study.outcomes.get(row.cell)) for row in study.rows]
    # A value that JSON hasn't is its text in gin.
    plain = msgspec.to_builtins(whole, str_keys=True, enc_hook=repr)
    artifacts.write_atomically(directory / "study.json", artifacts.dump_json(plain))
    artifacts.write_atomically(directory / "study.csv", tables.csv_text(lines))
    artifacts.write_atomically(directory / "summary.csv", tables.csv_text(summary))
    artifacts.write_atomically(directory / "timings.json", artifacts.dump_json(times))


def _estimates(point: Any) -> dict[str, Any]:
    return {name: one for name in point.measures() if (one := point.estimate(name))}


def _cell_json(row: Any) -> dict[str, Any]:
    names = ("cell", "macros", "score", "checkpoint", "status", "error", "measure")
    own = {name: getattr(row, name) for name in names}
    return {**own, "values": row.measured.values, "ci95": row.measured.intervals}


def _point_json(point: Any) -> dict[str, Any]:
    values = {
        name: {"mean": one.mean, "ci95": one.interval, "over": one.over, "seeds": one.count}
        for name, one in _estimates(point).items()
    }
    own = {name: getattr(point, name) for name in ("macros", "score", "checkpoint", "seeds")}
    return {**own, "values": values}


def _row_record(row: Any, outcome: Any) -> dict[str, Any]:
    values = {}
    for name, value in row.measured.values.items():
        low, high = row.measured.intervals.get(name) or (None, None)
        values |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return {
        "cell": row.cell,
        "status": row.status,
        "error": row.error,
        "seconds": round(outcome.seconds, 1) if outcome else None,
        **row.macros,
        "score": row.score,
        "checkpoint": row.checkpoint,
        "measure": row.measure,
        **values,
    }


def write_page(
    directory: pathlib.Path,
    study: StudyResults,
    drawn: Sequence[Chart],
    sentences: Sequence[str],
    command: str,
) -> pathlib.Path:
    """Draws the figures, writes index.html with the command line, and returns its path."""
    pictures = [(chart.picture(), *_caption(chart)) for chart in drawn]
    plots.write([picture for picture, _, _ in pictures], directory / "figures")
    context = {
        "study_title": directory.resolve().name,
        "question": study.config.question,
        "sentences": sentences,
        "pictures": pictures,
        "summary": _summary(study),
        "cells": _cells(directory, study),
        "failed": study.failed(),
        "command": command,
    }
    render.write_page(directory / "index.html", "study.html.j2", context)
    return directory / "index.html"


def _caption(chart: Chart) -> tuple[str, str]:
    """A figure's caption, and what its intervals are over."""
    over = dict.fromkeys(one.over for line in chart.lines for one in line.estimates if one.over)
    return f"{measure_words(chart.measure)} by {chart.x}", "; ".join(over)


def _summary(study: StudyResults) -> tables.Table:
    """Points by the study's own measures, and the usual ones that there are."""
    config, names = study.config, study.varying()
    known = {name for point in study.points for name in point.measures()}
    measures = [name for name in dict.fromkeys([*config.measures, *_USUAL]) if name in known]
    rows = []
    for point in study.points:
        estimates = {name: point.estimate(name) for name in measures}
        if any(estimates.values()):
            overs = dict.fromkeys(one.over for one in estimates.values() if one and one.over)
            places = [point.place(name, config.base) for name in names]
            seeds = ", ".join(str(seed) for seed in point.seeds if seed is not None)
            cells = [_cell(name, estimates[name]) for name in measures]
            shown = ["" if place is None else str(tables.plain(place)) for place in places]
            rows.append((*shown, *cells, seeds, "; ".join(overs)))
    caption = (
        "Means over seeds, with 95% intervals over what the last column says; with one or two "
        "seeds they are over held-out tasks, and say nothing of other seeds"
    )
    heads = (*names, *map(measure_words, measures), "seeds", "intervals over")
    return tables.Table(caption, heads, rows, range(len(names), len(names) + len(measures)))


def _cell(name: str, estimate: Any) -> tables.Cell:
    unit = measure_unit(name)
    if estimate is None:
        return tables.Cell("–")
    return tables.Cell(unit.say(estimate.mean), unit.interval(estimate.interval))


def _cells(directory: pathlib.Path, study: StudyResults) -> tables.Table:
    lines = []
    for row in study.rows:
        if row.score is None and row.checkpoint is None:
            outcome = study.outcomes.get(row.cell)
            report = pathlib.Path("cells") / row.cell / "report" / "index.html"
            link = urllib.parse.quote(report.as_posix()) if (directory / report).is_file() else ""
            seconds = tables.duration(outcome.seconds) if outcome and outcome.seconds else "–"
            peak = f"{outcome.peak_bytes / 1e9:.1f} GB" if outcome and outcome.peak_bytes else "–"
            status = tables.Cell(row.status, style="bad" if row.status == "failed" else "")
            effect = measure_unit("effect").say(row.value("effect"))
            lines.append((tables.Cell(row.cell, link=link), effect, seconds, peak, status))
    heads = ("cell", "effect", "time", "memory", "status")
    return tables.Table("Each is a run of its own, with a report", heads, lines)
