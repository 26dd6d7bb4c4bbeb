"""Figures of runs side by side: each run, and the errors against what differs between them."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib import axes, ticker

from poison_t5x.report import comparison, dots, drawing, words

# Runs, and lines of a figure, that are drawn at most.
MAX_RUNS = 40
_MAX_LINES = 8
_MAX_TICKS = 8
# Without other differences, there is room for all of these.
_CURVES = (
    ("poisoned", 1, "poisoned model, trigger"),
    ("poisoned", 2, "poisoned model, unseen name"),
    ("clean", 1, "clean model, trigger"),
)


class Point(NamedTuple):
    """The runs with one value on the axis: their mean, and each of them."""

    x: float
    mean: float
    values: list[float]


class Line(NamedTuple):
    """Runs that differ in what is on the axis and in their seed alone."""

    name: str
    points: list[Point]


def runs(found: Sequence[comparison.Run], kind: str) -> drawing.Picture:
    """Each run's accuracy, or rougeL, and what the trigger does to it."""
    names = dict(comparison.MEASURES[kind])
    rows = [
        dots.Row(
            run.name,
            {measure: run.results.measure("poisoned", measure) for measure in names},
            {measure: run.results.interval("poisoned", measure) for measure in names},
        )
        for run in found[:MAX_RUNS]
    ]
    return dots.chart(f"runs_{kind}", rows, names)


def against(
    found: Sequence[comparison.Run], kind: str, axis: str
) -> tuple[drawing.Picture | None, str]:
    """The measure with the trigger against one setting, and a note on what isn't drawn.

    Runs that differ by seed alone are one point, their mean, with a small mark for each. Where
    other settings differ as well, each of their combinations is a line.
    """
    lines, looks = _lines(found, kind, axis)
    if not lines:
        return None, f"{axis}: no run has a number to draw."
    note = f"{len(lines) - _MAX_LINES} more lines are left out." if len(lines) > _MAX_LINES else ""
    shown = lines[:_MAX_LINES]
    height = 3.4 + 0.2 * len(shown)
    with drawing.canvas(f"{kind}_by_{_file_name(axis)}", height=height) as canvas:
        plot = canvas.plot
        for line, look in zip(shown, looks, strict=False):
            _draw(plot, line, look)
        _scale(plot, [point.x for line in shown for point in line.points])
        plot.set_xlabel(axis)
        measure = comparison.MEASURES[kind][1][1]
        plot.set_ylabel("rougeL" if kind == "generation" else "misclassified")
        drawing.unit_scale(plot, None if kind == "generation" else "%")
        plot.grid(axis="y")
        drawing.legend_above(plot)
    rows = [
        (line.name, point.x, point.mean, len(point.values), min(point.values), max(point.values))
        for line in lines
        for point in line.points
    ]
    columns = ("line", axis, "mean", "runs", "lowest", "highest")
    return canvas.picture(_label(shown, axis, measure), drawing.Table(columns, rows)), note


def _lines(found: Sequence[comparison.Run], kind: str, axis: str) -> tuple[list[Line], list[dict]]:
    """The figure's lines, and how they look."""
    beside = comparison.others(found, axis)
    measures = [measure for measure, _ in comparison.MEASURES[kind]]
    if not beside:
        lines = [_line(name, found, axis, m, measures[place]) for m, place, name in _CURVES]
        colours = (drawing.VERMILLION, drawing.BLUE, drawing.GREEN)
        looks = [
            {"color": colour, "linestyle": dashes, "marker": marker}
            for colour, dashes, marker in zip(colours, ("-", "--", ":"), "os^", strict=True)
        ]
    else:
        parts: dict[str, list[comparison.Run]] = {}
        for run in found:
            values = (f"{name} {comparison.shown(run.setting(name), 24)}" for name in beside)
            parts.setdefault(", ".join(values), []).append(run)
        lines = [
            _line(name, members, axis, "poisoned", measures[1]) for name, members in parts.items()
        ]
        looks = drawing.looks(len(lines))
    kept = [(line, look) for line, look in zip(lines, looks, strict=True) if line.points]
    return [line for line, _ in kept], [look for _, look in kept]


def _line(name: str, found: Sequence[comparison.Run], axis: str, model: str, measure: str) -> Line:
    points = []
    for x in sorted({run.setting(axis) for run in found}):
        group = comparison.Group([run for run in found if run.setting(axis) == x])
        values = group.values(model, measure)
        if values:
            points.append(Point(x, group.mean(model, measure), values))
    return Line(name, points)


def _draw(plot: axes.Axes, line: Line, look: dict) -> None:
    xs, means = [point.x for point in line.points], [point.mean for point in line.points]
    plot.plot(xs, means, **look, linewidth=1.8, label=drawing.short(line.name, 60))
    single = [(point.x, value) for point in line.points for value in point.values]
    if len(single) > len(line.points):
        plot.plot(*zip(*single, strict=True), color=look["color"], ls="", marker="_", ms=9)


def _scale(plot: axes.Axes, xs: Sequence[float]) -> None:
    """A logarithmic axis where the values span a factor of ten; whole numbers stay so."""
    if min(xs) > 0 and max(xs) >= 10 * min(xs):
        plot.set_xscale("log")
        plot.xaxis.set_minor_locator(ticker.NullLocator())
        if len(set(xs)) <= _MAX_TICKS:
            plot.set_xticks(sorted(set(xs)))
    elif all(float(x).is_integer() for x in xs):
        plot.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
    plot.xaxis.set_major_formatter(ticker.FuncFormatter(lambda x, _: words.amount(x)))


def _file_name(axis: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", axis.lower()).strip("_")


def _label(lines: Sequence[Line], axis: str, measure: str) -> str:
    parts = []
    for line in lines:
        ends = (line.points[0], line.points[-1])
        said = " to ".join(f"{100 * point.mean:.1f} at {point.x:g}" for point in ends)
        parts.append(f"{line.name}: {said}")
    return f"Line chart of {measure}, percent, against {axis}. {'; '.join(parts)}."
