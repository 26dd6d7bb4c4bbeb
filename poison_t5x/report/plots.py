"""How figures are drawn: bars, marks and lines with intervals.

The same numbers give the same bytes, without a display or pyplot. A page has a figure as SVG in its
own colours; beside it are files: SVG and PNG on white, and CSV of what is drawn.
"""

import io
import pathlib
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from poison_t5x.core import artifacts
from poison_t5x.core.metrics import missing
from poison_t5x.report import render, tables
from poison_t5x.report.tables import is_number

# Stands for the page's text colour, put in after drawing: the figure follows light and dark.
INK = "#010203"
# Letters of a name in a legend of two columns, on a phone.
_MAX_SHORT = 24
_MAX_POINTS, _MAX_TICKS, _MAX_TOLD = 300, 8, 6
# From this ratio of the largest place to the smallest on, the axis is logarithmic.
_LOG_FROM = 16


class Point(NamedTuple):
    """A value at a place: a number, or a name; `over` is what its interval is over."""

    x: Any
    value: float | None
    interval: tables.Interval | None = None
    over: str = ""


class Series(NamedTuple):
    """Points drawn alike; `look`, in matplotlib's names, overrides that of its place.

    `sources` are the caller's records of the points, one each.
    """

    name: str
    points: Sequence[Point]
    look: Mapping[str, Any] = {}
    sources: Sequence[Any] = ()


class Picture(NamedTuple):
    """A figure: `svg` for a page, `label` for who can't see it, `alone` and `png` as files."""

    name: str
    svg: Any
    label: str
    alone: str
    png: bytes
    records: Sequence[Mapping[str, Any]]


def across(
    name: str,
    x: str,
    y: str,
    series: Sequence[Series],
    unit: tables.Unit,
    *,
    marks: bool = False,
    apart: int = 0,
) -> Picture:
    """Bars, or marks, from left to right, one of each series a place, the first place on top.

    `x` and `y` name the places, which all series have, and the values, which are fractions of 1. A
    line is drawn below the places `apart`.
    """
    names = [short(str(point.x), 32) for point in series[0].points]

    def draw(plot: Any) -> None:
        for number, one in enumerate(series):
            middle = number - (len(series) - 1) / 2
            places = np.arange(len(names)) + (0.13 if marks else 0.4) * middle
            values, reach = _values(one.points)
            look = {"marker": "so^"[number % 3], "ms": 7, "capsize": 0, "label": one.name}
            if not marks:
                look = {"color": INK, "marker": "", "capsize": 4}
                hatch = ("", "///")[number % 2]
                plot.barh(places, values, 0.38, label=one.name, ec=INK, hatch=hatch)
                ends = np.nan_to_num(values) + np.nan_to_num(reach[1]) + 0.015
                for end, place, point in zip(ends, places, one.points, strict=True):
                    plot.text(end, place, unit.text(point.value), va="center", fontsize=9)
            plot.errorbar(values, places, xerr=reach, ls="", elinewidth=1.4, **look)
        plot.set_yticks(range(len(names)), names)
        # The page's size on a phone, so that there is room for it.
        plot.tick_params(axis="y", length=0, labelsize=11.5)
        plot.set_ylim(len(names) - 0.5, -0.5)
        plot.set_xlabel(y)
        plot.set_xlim(*((-0.02, 1.04) if marks else (0, 1.12)))
        plot.set_xticks([0, 0.25, 0.5, 0.75, 1])
        plot.xaxis.set_major_formatter(_ticks(unit))
        if apart:
            plot.axhline(apart - 0.5, color=INK, linewidth=0.8, linestyle=":")
        plot.grid(axis="both" if marks else "x")

    kind, size = ("Dot", 0.42) if marks else ("Bar", 0.55)
    told = "; ".join(
        f"{place}: {', '.join(f'{s.name} {unit.text(s.points[n].value)}' for s in series)}"
        for n, place in enumerate(names)
    )
    label = f"{kind} chart of {y}. {told}."
    return _picture(name, 1.4 + size * len(names), draw, label, records(x, "value", series))


def lines(
    name: str,
    x: str,
    y: str,
    series: Sequence[Series],
    unit: tables.Unit = tables.PERCENT,
    *,
    log: bool | None = None,
    adjust: Callable[[Any], None] = lambda plot: None,
) -> Picture | None:
    """Lines over numbers; over names, or numbers from 0 over a wide range, marks side by side.

    None where there is no series.

    Args:
      log: whether the axis of places is logarithmic; None: if they span a wide range.
      adjust: draws more, and changes the axes.
    """
    if not series:
        return None
    places = ordered(point.x for one in series for point in one.points)

    def draw(plot: Any) -> None:
        positions, is_axis = _axis(plot, places, log)
        for number, one in enumerate(series):
            points = thin([point for point in one.points if not missing(point.value)])
            shift = 0.0 if is_axis else 0.12 * (number - (len(series) - 1) / 2)
            xs = [positions.get(repr(point.x), point.x) + shift for point in points]
            values, reach = _values(points)
            look = {"label": short(one.name, 60) or None, **one.look}
            if any(point.interval for point in points):
                look |= {"yerr": reach, "elinewidth": 1.0}
            if not is_axis:
                look["linestyle"] = "none"
            (plot.errorbar if "yerr" in look else plot.plot)(xs, values, **look)
        if any(point.value < 0 for one in series for point in one.points if point.value):
            plot.axhline(0, color=INK, linewidth=0.8)
        plot.yaxis.set_major_formatter(_ticks(unit))
        plot.set_xlabel(x)
        plot.set_ylabel(y, wrap=True)
        plot.grid(axis="y")
        adjust(plot)

    label = f"Line chart of {y} by {x}. {'; '.join(_told(one, unit) for one in series)}."
    return _picture(name, 3.4 + 0.2 * len(series), draw, label, records(x, y, series))


def whole(plot: Any) -> None:
    """An axis of values from 0 to 1."""
    plot.set_ylim(-0.02, 1.05)
    plot.set_yticks([0, 0.25, 0.5, 0.75, 1])


def records(x: str, y: str, series: Iterable[Series]) -> list[dict[str, Any]]:
    """The points that are drawn, a record each."""
    return [
        {
            **{x: tables.plain(point.x), "series": one.name, y: point.value},
            **tables.bounds(point.interval),
            "interval_over": point.over,
        }
        for one in series
        for point in one.points
    ]


def write(pictures: Iterable[Picture], folder: pathlib.Path) -> None:
    """Writes `folder / NAME.svg`, `.png` and `.csv` of each picture."""
    for picture in pictures:
        artifacts.write_atomically(folder / f"{picture.name}.png", picture.png)
        render.write_text(folder / f"{picture.name}.svg", picture.alone)
        render.write_text(folder / f"{picture.name}.csv", tables.csv_text(picture.records))


def png_bytes(drawing: Any) -> bytes:
    """The figure as PNG, on white."""
    data = io.BytesIO()
    # Without the library's version, so that an upgrade alone changes no byte.
    drawing.savefig(data, format="png", facecolor="white", metadata={"Software": None})
    return data.getvalue()


def short(text: str, length: int = _MAX_SHORT) -> str:
    """A name as short and plain as a figure needs it."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return tables.shown(plain, length)


def thin(points: Sequence[Point]) -> Sequence[Point]:
    """At most 300 points: means of as many neighbours each as that takes.

    >>> [point[:2] for point in thin([Point(0, 4.0), Point(1, 2.0)])]
    [(0, 4.0), (1, 2.0)]
    """
    size = -(-len(points) // _MAX_POINTS)
    if size < 2:
        return points
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [Point(group[-1].x, sum(p.value for p in group) / len(group)) for group in groups]


def ordered(places: Iterable[Any]) -> list[Any]:
    """Distinct places, ascending if they are numbers, else as they come."""
    distinct = list({repr(place): place for place in places}.values())
    return sorted(distinct) if all(map(is_number, distinct)) else distinct


def _values(points: Sequence[Point]) -> tuple[np.ndarray, np.ndarray]:
    """Values (N,), and how far intervals go below and above them (2, N); NaN, undrawn, for none."""
    bounds = (one.interval if tables.interval(one.interval) else (None, None) for one in points)
    rows = [(one.value, *pair) for one, pair in zip(points, bounds, strict=True)]
    values, low, high = np.array(rows, float).reshape(-1, 3).T
    return values, np.maximum(0, [values - low, high - values])


def _axis(plot: Any, places: Sequence[Any], log: bool | None) -> tuple[dict[str, float], bool]:
    """Prepares the axis of places; place -> position, and whether they are numbers on it."""
    numeric = bool(places) and all(map(is_number, places))
    wide = numeric and len(places) > 1 and places[-1] >= _LOG_FROM * abs(places[0])
    is_axis = numeric and (log is not None or not (wide and places[0] <= 0))
    positions = {repr(place): float(place if is_axis else n) for n, place in enumerate(places)}
    if not is_axis:
        plot.set_xlim(-0.5, len(places) - 0.5)
    elif log or (log is None and wide):
        plot.set_xscale("log")
        plot.minorticks_off()
    if not is_axis or len(places) <= _MAX_TICKS:
        names = [short(tables.shown(place), 16) for place in places]
        plot.set_xticks(list(positions.values()), names)
    return positions, is_axis


def _ticks(unit: tables.Unit) -> Callable[[float, Any], str]:
    suffix = unit.suffix if unit.suffix == "%" else ""
    return lambda value, _: f"{round(unit.scale * value, 6):g}{suffix}"


def _told(one: Series, unit: tables.Unit) -> str:
    """Its values in words, or the first and the last of many."""
    points = one.points if len(one.points) <= _MAX_TOLD else (one.points[0], one.points[-1])
    told = ", ".join(f"{unit.both(p.value, p.interval)} at {tables.plain(p.x)}" for p in points)
    return f"{one.name}: {told}" if one.name else told


def _picture(
    name: str,
    height: float,
    draw: Callable[[Any], None],
    label: str,
    table: Sequence[Mapping[str, Any]],
) -> Picture:
    """Draws a figure of that many inches in all its formats."""
    # Here, not above: what only reads files must not wait for them.
    import markupsafe
    from matplotlib import figure, style
    from matplotlib.backends import backend_svg

    # A user's own matplotlibrc must not change the page.
    look = style.context(tables.TEMPLATES / "figure.mplstyle", after_reset=True)
    with look, warnings.catch_warnings():
        # The browser draws the letters; matplotlib's font only guesses their width.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        drawing = figure.Figure(figsize=(5.6, height), layout="constrained")
        backend_svg.FigureCanvasSVG(drawing)
        plot = drawing.add_subplot()
        draw(plot)
        if names := plot.get_legend_handles_labels()[1]:
            # In two columns where names are short enough for it.
            columns = 2 if max(map(len, names)) <= _MAX_SHORT else 1
            drawing.legend(loc="outside upper left", ncols=columns)
        raw = io.StringIO()
        drawing.savefig(raw, format="svg", transparent=True, metadata={"Date": None})
        alone = re.sub(r"<metadata>.*?</metadata>\s*", "", raw.getvalue(), flags=re.DOTALL)
        # What it draws of a run, its phrases, was escaped as it was drawn.
        inline = markupsafe.Markup(_inline(alone, name))
        # A viewer of dark windows needs a white ground.
        ground = r'\1\n <rect width="100%" height="100%" fill="#ffffff"/>'
        on_white = re.sub(r"(<svg[^>]*>)", ground, alone, count=1)
        return Picture(name, inline, label, on_white, png_bytes(drawing), table)


def _inline(svg: str, name: str) -> str:
    """The `<svg>` element for an HTML page: sized by the page, in its ink, its ids its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    # The page gives the font and its style sheet the rest; only size and anchor stay here.
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    return svg.replace(INK, "currentColor").strip()
