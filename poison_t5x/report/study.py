"""A study's charts, tables and page: a measure along one setting, a line for each other setting.

Settings, rows and points are records of `studies`, which stands above this room: what is read of
them is their attributes and methods.
"""

import pathlib
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from poison_t5x.core import artifacts
from poison_t5x.report import plots, render, tables
from poison_t5x.report.plots import Point, Series

SCHEMA = 1
# What rows have beside macros, for the x axis and lines.
DIMENSIONS = ("score", "checkpoint")
# Runs that differ in these are of different questions: no line joins them.
_UNLIKE = ("EXPERIMENT", "ATTACK")
_AXES = ("x", "lines", "measures")
_CELL = ("cell", "macros", "score", "checkpoint", "status", "error", "measure")
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
        names = dict.fromkeys(name for point in self.points for name in point.macros)
        return _differing(self.points, (*names, *DIMENSIONS), self.config.base)


class Chart(NamedTuple):
    """One measure along one dimension; the lines' `sources` are the study's points."""

    x: str
    measure: str
    lines: Sequence[Series]

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


def told(name: str, value: float | None, interval: Any, *, difference: bool = False) -> str:
    """A value and its interval: '+91.3 points [+79.1, +98.4]'; '–' for none."""
    return measure_unit(name, difference=difference).both(value, interval)


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
        if (own := [p for p in study.points if measure in p.measures() and _belongs(p, x, config)])
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


def _key(point: Any, names: Iterable[str], base: Mapping[str, Any]) -> str:
    return repr([point.place(name, base) for name in names])


def _differing(points: Sequence[Any], names: Iterable[str], base: Mapping[str, Any]) -> list[str]:
    return [name for name in names if len({_key(point, [name], base) for point in points}) > 1]


def _lines(points: Sequence[Any], x: str, measure: str, config: Any) -> list[Series]:
    base = config.base
    names = dict.fromkeys(name for point in points for name in point.macros)
    differ = [name for name in _differing(points, (*names, *DIMENSIONS), base) if name != x]

    def groups(names: Sequence[str]) -> list[list[Any]]:
        members: dict[str, list[Any]] = {}
        for point in points:
            members.setdefault(_key(point, names, base), []).append(point)
        return list(members.values())

    told_apart = [name for name in differ if name in (*config.lines, *_UNLIKE)]
    if any(len({_key(p, [x], base) for p in one}) < len(one) for one in groups(told_apart)):
        told_apart += [name for name in differ if name not in told_apart]
    return [_line(group, x, measure, told_apart, base) for group in groups(told_apart)]


def _line(
    group: Sequence[Any], x: str, measure: str, names: Sequence[str], base: Mapping[str, Any]
) -> Series:
    order = [repr([place]) for place in plots.ordered(point.place(x, base) for point in group)]
    group = sorted(group, key=lambda point: order.index(_key(point, [x], base)))
    common = set.intersection(*(set(point.seeds) for point in group))
    if common:  # else a line would go from one seed's value to another's
        group = [point.only(common) for point in group]
    label = ", ".join(_name(name, group[0].place(name, base)) for name in names)
    known = [(point, one) for point in group if (one := point.estimate(measure))]
    drawn = [Point(p.place(x, base), one.mean, one.interval, one.over) for p, one in known]
    return Series(label, drawn, sources=[point for point, _ in known])


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
        **{name: getattr(config, name) for name in ("question", "command", *_AXES)},
        "finding": sentences,
        "cells": [
            {
                **{name: getattr(row, name) for name in _CELL},
                "values": row.measured.values,
                "ci95": row.measured.intervals,
            }
            for row in study.rows
        ],
        "summary": [
            {
                **{name: getattr(p, name) for name in ("macros", "score", "checkpoint", "seeds")},
                "values": {
                    name: {"mean": e.mean, "ci95": e.interval, "over": e.over, "seeds": e.count}
                    for name, e in _estimates(p).items()
                },
            }
            for p in study.points
        ],
        "failed": [{"cell": row.cell, "error": row.error} for row in _failed(study)],
    }
    # A value that JSON hasn't is its text in gin.
    plain = msgspec.to_builtins(whole, str_keys=True, enc_hook=repr)
    times = {
        name: {"seconds": round(outcome.seconds, 1), "peak_bytes": outcome.peak_bytes}
        for name, outcome in sorted(study.outcomes.items())
    }
    summary = [
        {
            **{place: point.place(place, config.base) for place in study.varying()},
            **{"measure": name, "mean": one.mean, **tables.bounds(one.interval)},
            **{"interval_over": one.over, "seeds": one.count},
        }
        for point in study.points
        for name, one in _estimates(point).items()
    ]
    lines = [_row_record(row, study.outcomes.get(row.cell)) for row in study.rows]
    artifacts.write_atomically(directory / "study.json", artifacts.dump_json(plain))
    artifacts.write_atomically(directory / "study.csv", tables.csv_text(lines))
    artifacts.write_atomically(directory / "summary.csv", tables.csv_text(summary))
    artifacts.write_atomically(directory / "timings.json", artifacts.dump_json(times))


def _failed(study: StudyResults) -> list[Any]:
    return [row for row in study.rows if row.status == "failed"]


def _estimates(point: Any) -> dict[str, Any]:
    return {name: one for name in point.measures() if (one := point.estimate(name))}


def _row_record(row: Any, outcome: Any) -> dict[str, Any]:
    record = {
        **{"cell": row.cell, "status": row.status, "error": row.error},
        "seconds": round(outcome.seconds, 1) if outcome else None,
        **row.macros,
        **{"score": row.score, "checkpoint": row.checkpoint, "measure": row.measure},
    }
    for name, value in row.measured.values.items():
        record |= {name: value, **tables.bounds(row.measured.intervals.get(name), f"{name}_")}
    return record


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
        "failed": _failed(study),
        "command": command,
    }
    render.write_page(directory / "index.html", "study.html.j2", context)
    return directory / "index.html"


def _caption(chart: Chart) -> tuple[str, str]:
    """A figure's caption, and what its intervals are over."""
    over = dict.fromkeys(one.over for line in chart.lines for one in line.points if one.over)
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
            shown = ["" if place is None else str(tables.plain(place)) for place in places]
            cells = [
                measure_unit(name).cell(one.mean, one.interval) if one else "–"
                for name, one in estimates.items()
            ]
            seeds = ", ".join(str(seed) for seed in point.seeds if seed is not None)
            rows.append((*shown, *cells, seeds, "; ".join(overs)))
    caption = (
        "Means over seeds, with 95% intervals over what the last column says; with one or two "
        "seeds they are over held-out tasks, and say nothing of other seeds"
    )
    heads = (*names, *map(measure_words, measures), "seeds", "intervals over")
    return tables.Table(caption, heads, rows, range(len(names), len(names) + len(measures)))


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
            effect = measure_unit("effect").text(row.value("effect"))
            lines.append((tables.Cell(row.cell, link=link), effect, seconds, peak, status))
    heads = ("cell", "effect", "time", "memory", "status")
    return tables.Table("Each is a run of its own, with a report", heads, lines)
