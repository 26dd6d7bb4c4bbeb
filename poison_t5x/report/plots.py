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

from poison_t5x.core.metrics import missing
from poison_t5x.report import render, tables

# Okabe and Ito's colours (2008), told apart with any colour vision and against a white or a
# near-black page; hatches, dashes and markers tell them apart in greyscale. Their yellow is left
# out: lines of it can't be seen on white.
BLUE, VERMILLION, PURPLE = "#0072b2", "#d55e00", "#cc79a7"
GREEN, ORANGE, SKY = "#009e73", "#e69f00", "#56b4e9"
_COLOURS, _MARKERS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY), "osD^vPX*<>hp"
_DASHES, _HATCHES = ("-", "--", "-.", (0, (1, 1))), ("", "///", "...")
# Stands for the page's text colour, put in after drawing: the figure follows light and dark.
INK = "#010203"
_WIDTH, _PNG_DPI = 5.6, 200
# Letters of a name in a legend of two columns, on a phone.
_MAX_SHORT = 24
_MAX_POINTS, _MAX_TICKS, _MAX_TOLD = 300, 8, 6
# From this ratio of the largest place to the smallest on, the axis is logarithmic.
_LOG_FROM = 16
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "poison_t5x",
    "font.size": 10,
    "hatch.linewidth": 0.8,
    "text.parse_math": False,  # names are a user's, and may hold a `$`
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    ),
    "grid.color": INK,
}


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
            offset = 0.4 * (number - (len(series) - 1) / 2)
            if marks:
                _marks(plot, one, number, offset / 3)
            else:
                _bars(plot, one, number, offset, unit)
        plot.set_yticks(range(len(names)), names)
        # The page's size on a phone, so that there is room for it.
        plot.tick_params(axis="y", length=0, labelsize=11.5)
        plot.set_ylim(len(names) - 0.5, -0.5)
        plot.set_xlabel(y)
        plot.set_xlim(-0.02 if marks else 0, 1.04 if marks else 1.12)
        plot.set_xticks([0, 0.25, 0.5, 0.75, 1])
        plot.xaxis.set_major_formatter(lambda value, _: _tick(unit, value))
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
) -> Picture:
    """Lines over numbers; over names, or numbers from 0 over a wide range, marks side by side.

    Args:
      log: whether the axis of places is logarithmic; None: if they span a wide range.
      adjust: draws more, and changes the axes.
    """
    places = ordered(point.x for one in series for point in one.points)

    def draw(plot: Any) -> None:
        positions, is_axis = _axis(plot, places, log)
        styles = zip(series, looks(len(series)), strict=True)
        for number, (one, look) in enumerate(styles):
            shift = 0.0 if is_axis else 0.12 * (number - (len(series) - 1) / 2)
            joined = {} if is_axis else {"linestyle": "none"}
            _draw_line(plot, one, {**look, **one.look, **joined}, positions, shift)
        values = [point.value for one in series for point in one.points if point.value is not None]
        if min(values, default=0) < 0:
            plot.axhline(0, color=INK, linewidth=0.8)
        plot.yaxis.set_major_formatter(lambda value, _: _tick(unit, value))
        plot.set_xlabel(x)
        plot.set_ylabel(y, wrap=True)
        plot.grid(axis="y")
        adjust(plot)

    told = "; ".join(_told(one, unit) for one in series if one.points)
    label = f"Line chart of {y} by {x}. {told}."
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
        render.write_bytes(folder / f"{picture.name}.png", picture.png)
        render.write_text(folder / f"{picture.name}.svg", picture.alone)
        render.write_text(folder / f"{picture.name}.csv", tables.csv_text(picture.records))


def png_bytes(drawing: Any) -> bytes:
    """The figure as PNG, on white."""
    data = io.BytesIO()
    # Without the library's version, so that an upgrade alone changes no byte.
    about = {"Software": None}
    drawing.savefig(data, format="png", dpi=_PNG_DPI, facecolor="white", metadata=about)
    return data.getvalue()


def short(text: str, length: int = _MAX_SHORT) -> str:
    """A name as short and plain as a figure needs it."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return plain if len(plain) <= length else plain[: length - 1] + "…"


def looks(count: int) -> list[dict[str, Any]]:
    """Colours, dashes and markers of `count` lines: of 24, no two alike."""
    return [
        {
            "color": _COLOURS[place % len(_COLOURS)],
            "linestyle": _DASHES[place // len(_COLOURS) % len(_DASHES)],
            "marker": _MARKERS[place % len(_MARKERS)],
        }
        for place in range(count)
    ]


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


def is_number(value: Any) -> bool:
    """Whether a setting is one that an axis can have."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _marks(plot: Any, one: Series, number: int, offset: float) -> None:
    style = {"color": _COLOURS[number % len(_COLOURS)], "marker": "so^"[number % 3], "ms": 7}
    style |= {"linestyle": "", "elinewidth": 1.6, "label": one.name}
    places = [place + offset for place in range(len(one.points))]
    plot.errorbar(_values(one), places, xerr=_reach(one.points), **style)


def _bars(plot: Any, one: Series, number: int, offset: float, unit: tables.Unit) -> None:
    values, reach = _values(one), _reach(one.points)
    places = [place + offset for place in range(len(values))]
    style = {"color": _COLOURS[number % len(_COLOURS)], "hatch": _HATCHES[number % len(_HATCHES)]}
    plot.barh(places, values, 0.38, label=one.name, ec=INK, **style)
    plot.errorbar(values, places, xerr=reach, ls="", color=INK, capsize=4, elinewidth=1.3)
    for place, value, above in zip(places, values, reach[1], strict=True):
        end = np.nan_to_num(value) + np.nan_to_num(above) + 0.015
        plot.text(end, place, unit.text(value), ha="left", va="center", fontsize=9)


def _values(one: Series) -> list[float]:
    return [float("nan") if missing(point.value) else point.value for point in one.points]


def _draw_line(
    plot: Any, one: Series, look: Mapping[str, Any], positions: Mapping[str, float], shift: float
) -> None:
    points = thin([point for point in one.points if not missing(point.value)])
    xs = [positions.get(repr(point.x), point.x) + shift for point in points]
    style = {"linewidth": 1.8, "label": short(one.name, 60) or None, **look}
    if any(point.interval for point in points):
        style |= {"capsize": 3, "elinewidth": 1.0, "yerr": _reach(points)}
    draw = plot.errorbar if "yerr" in style else plot.plot
    draw(xs, [point.value for point in points], **style)


def _reach(points: Sequence[Point]) -> np.ndarray:
    """How far intervals go below and above values, (2, N); NaN, which isn't drawn, without one."""
    rows = [
        (p.value, *(p.interval if tables.interval(p.interval) else (None,) * 2)) for p in points
    ]
    values, low, high = np.array(rows, float).reshape(-1, 3).T
    return np.maximum(0, [values - low, high - values])


def _axis(plot: Any, places: Sequence[Any], log: bool | None) -> tuple[dict[str, float], bool]:
    """Prepares the axis of places; place -> position, and whether they are numbers on it."""
    numeric = bool(places) and all(map(is_number, places))
    wide = numeric and len(places) > 1 and places[-1] >= _LOG_FROM * abs(places[0])
    is_axis = numeric and (log is not None or not (wide and places[0] <= 0))
    if not is_axis:
        positions = {repr(place): float(number) for number, place in enumerate(places)}
        plot.set_xlim(-0.5, len(places) - 0.5)
    else:
        positions = {repr(place): float(place) for place in places}
        if log or (log is None and wide):
            plot.set_xscale("log")
            plot.minorticks_off()
    if not is_axis or len(places) <= _MAX_TICKS:
        names = [short(tables.shown(tables.plain(place)), 16) for place in places]
        plot.set_xticks([positions[repr(place)] for place in places], names)
    return positions, is_axis


def _tick(unit: tables.Unit, value: float) -> str:
    return f"{round(unit.scale * value, 6):g}{unit.suffix if unit.suffix == '%' else ''}"


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
    import matplotlib
    from matplotlib import figure
    from matplotlib.backends import backend_svg

    with matplotlib.rc_context(), warnings.catch_warnings():
        # The browser draws the letters; matplotlib's font only guesses their width.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        # A user's own matplotlibrc must not change the page.
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        drawing = figure.Figure(figsize=(_WIDTH, height), layout="constrained")
        backend_svg.FigureCanvasSVG(drawing)
        plot = drawing.add_subplot()
        draw(plot)
        if names := plot.get_legend_handles_labels()[1]:
            # In two columns where names are short enough for it.
            columns = 2 if max(map(len, names)) <= _MAX_SHORT else 1
            drawing.legend(loc="outside upper left", frameon=False, ncols=columns)
        raw = io.StringIO()
        drawing.savefig(raw, format="svg", transparent=True, metadata={"Date": None})
        alone = re.sub(r"<metadata>.*?</metadata>\s*", "", raw.getvalue(), flags=re.DOTALL)
        # What it draws of a run, its phrases, was escaped as it was drawn.
        inline = markupsafe.Markup(_inline(alone, name))
        return Picture(name, inline, label, _on_white(alone), png_bytes(drawing), table)


def _on_white(svg: str) -> str:
    """The file's text with a white ground, as a viewer of dark windows needs it."""
    end = svg.index(">", svg.index("<svg")) + 1
    return f'{svg[:end]}\n <rect width="100%" height="100%" fill="#ffffff"/>{svg[end:]}'


def _inline(svg: str, name: str) -> str:
    """The `<svg>` element for an HTML page: sized by the page, in its ink, its ids its own."""
    svg = svg[svg.index("<svg") :]
    for size in ("width", "height"):
        svg = re.sub(rf'(<svg[^>]*?) {size}="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    # The page gives the font and its style sheet the rest; only size and anchor stay here.
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    return svg.replace(INK, "currentColor").strip()
