"""A study's figures: SVG, PNG and CSV of the same numbers, the same bytes each time."""

import csv
import io
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from poison_t5x.core import artifacts
from poison_t5x.studies import charts, words

# Okabe and Ito (2008): told apart with any colour vision; markers and dashes, in greyscale.
_COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#f0e442"),
)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
# From this ratio of the largest place to the smallest on, the axis is logarithmic.
_LOG_FROM = 16
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "poison_t5x",
    "font.size": 10,
    "text.parse_math": False,  # a trigger may hold a `$`
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
}
_DPI = 150


def write(directory: pathlib.Path, chart: charts.Chart) -> str:
    """Writes NAME.svg, NAME.png and NAME.csv, and returns the SVG element for a page."""
    import matplotlib
    from matplotlib.backends import backend_agg, backend_svg

    artifacts.write_atomically(directory / f"{chart.name}.csv", table(chart))
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's own matplotlibrc must not change the figure
        matplotlib.rcParams.update(_STYLE)
        drawing = _draw(chart)
        svg, png = io.StringIO(), io.BytesIO()
        backend_svg.FigureCanvasSVG(drawing).print_svg(svg, metadata={"Date": None})
        canvas = backend_agg.FigureCanvasAgg(drawing)
        drawing.set_dpi(_DPI)
        canvas.print_png(png, metadata={"Software": None})
    artifacts.write_atomically(directory / f"{chart.name}.svg", svg.getvalue())
    artifacts.write_atomically(directory / f"{chart.name}.png", png.getvalue())
    return _inline(svg.getvalue(), chart.name)


def table(chart: charts.Chart) -> str:
    """The numbers of a chart as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([chart.x, "line", chart.measure, "low", "high", "interval_over", "seeds"])
    for series in chart.series:
        for place, found in zip(series.places, series.estimates, strict=True):
            low, high = found.interval or (None, None)
            where = words.place(chart.x, place)
            writer.writerow([where, series.label, found.mean, low, high, found.over, found.count])
    return text.getvalue()


def _draw(chart: charts.Chart) -> Any:
    from matplotlib import figure

    drawing = figure.Figure(figsize=(5.6, 3.6), layout="constrained")
    plot = drawing.add_subplot()
    positions = _axis(plot, chart)
    scale = 100 if words.is_percent(chart.measure) else 1
    for number, series in enumerate(chart.series):
        _draw_series(plot, chart, series, number, positions, scale)
    unit = f", {words.unit(chart.measure)}" if scale == 100 else ""
    plot.set_xlabel(chart.x)
    plot.set_ylabel(_wrapped(words.measure(chart.measure) + unit))
    if any(found.mean < 0 for series in chart.series for found in series.estimates):
        plot.axhline(0, color="#555555", linewidth=0.8)
    if any(series.label for series in chart.series):
        columns = 2 if len(chart.series) > 3 else 1
        drawing.legend(loc="outside upper left", frameon=False, ncols=columns, fontsize=9)
    return drawing


def _axis(plot: Any, chart: charts.Chart) -> dict[str, float]:
    """Prepares the x axis; place -> position."""
    places = chart.places
    wide = chart.is_numeric and len(places) > 1 and max(places) >= _LOG_FROM * abs(min(places))
    if chart.is_numeric and not (wide and min(places) <= 0):
        if wide:
            plot.set_xscale("log")
            plot.minorticks_off()
        positions = {repr(place): float(place) for place in places}
    else:  # categories, and numbers from 0 over a wide range, stand side by side
        positions = {repr(place): float(number) for number, place in enumerate(places)}
        plot.set_xlim(-0.5, len(places) - 0.5)
    labels = [words.place(chart.x, place) for place in places]
    plot.set_xticks(list(positions.values()), labels)
    return positions


def _draw_series(
    plot: Any,
    chart: charts.Chart,
    series: charts.Series,
    number: int,
    positions: dict[str, float],
    scale: float,
) -> None:
    shift = 0.0 if chart.is_numeric else 0.12 * (number - (len(chart.series) - 1) / 2)
    xs = [positions[repr(place)] + shift for place in series.places]
    means = [scale * found.mean for found in series.estimates]
    bounds = [found.interval or (found.mean, found.mean) for found in series.estimates]
    below = [max(0.0, mean - scale * low) for mean, (low, _) in zip(means, bounds, strict=True)]
    above = [max(0.0, scale * high - mean) for mean, (_, high) in zip(means, bounds, strict=True)]
    kind = number % len(_COLOURS)
    plot.errorbar(
        xs,
        means,
        yerr=[below, above],
        color=_COLOURS[kind],
        marker=_MARKERS[kind],
        linestyle=_DASHES[kind] if chart.is_numeric else "none",
        linewidth=1.6,
        markersize=6,
        capsize=3,
        elinewidth=1.0,
        label=series.label or None,
    )


def _wrapped(text: str, width: int = 38) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))


def _inline(svg: str, name: str) -> str:
    """The `<svg>` element for a page: sized by the page, its ids its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg).strip()


def label(chart: charts.Chart) -> str:
    """The words that stand for a figure where it can't be seen."""
    parts: list[str] = []
    for series in chart.series:
        shown: Sequence[str] = [
            f"{words.place(chart.x, place)}: {words.estimate(chart.measure, found)}"
            for place, found in zip(series.places, series.estimates, strict=True)
        ]
        parts.append(f"{series.label + ': ' if series.label else ''}{'; '.join(shown)}")
    return f"Chart of {words.measure(chart.measure)} by {chart.x}. {'. '.join(parts)}."
