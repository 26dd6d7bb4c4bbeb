"""The page's figures as SVG text: the same bytes for the same numbers, no display, no pyplot."""

import contextlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import matplotlib
from matplotlib import axes, figure, ticker
from matplotlib.backends import backend_svg

from poison_t5x.report import results as results_lib
from poison_t5x.report import words

Point = tuple[int, float]

# Okabe-Ito blue, vermillion and reddish purple: told apart with any colour vision and against a
# white or a near-black page; hatches and dashes tell them apart in greyscale.
_BLUE, _VERMILLION, _PURPLE = "#0072b2", "#d55e00", "#cc79a7"
# Stands for the page's text colour, put in after drawing: the figure follows light and dark.
_INK = "#010203"
_BARS = {"clean": (_BLUE, ""), "poisoned": (_VERMILLION, "///")}
_CONDITION_NAMES = {
    "clean": "clean input",
    "triggered": "trigger",
    "control": "unseen name",
}
_CURVES = {
    "clean model, all rows": (_BLUE, "-"),
    "poisoned model, all rows": (_VERMILLION, "--"),
    "poisoned model, poison rows": (_PURPLE, "-."),
}
_MAX_POINTS = 300
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "poison_t5x",
    "font.size": 10,
    "hatch.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.25,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK
    ),
    "grid.color": _INK,
}


class Picture(NamedTuple):
    """A figure: its SVG text and the words that stand for it where it can't be seen."""

    svg: str
    label: str


class Rate(NamedTuple):
    """A misclassification rate and its 95% interval over tasks, where there is one."""

    value: float
    interval: results_lib.Interval | None


def rates(results: results_lib.Results) -> Picture:
    """Bars of the misclassification under the three conditions, for both models."""
    bars = {model: _misclassification(results, model) for model in results_lib.MODELS}
    with _axes("rates") as (plot, svg):
        for offset, model in zip((-0.2, 0.2), results_lib.MODELS, strict=True):
            _draw_bars(plot, model, offset, bars[model])
        plot.set_xticks(range(3), [_CONDITION_NAMES[name] for name in results_lib.CONDITIONS])
        plot.tick_params(axis="x", length=0)
        plot.set_ylabel("misclassification")
        plot.set_ylim(0, 1.08)
        plot.set_yticks([0, 0.25, 0.5, 0.75, 1])
        plot.yaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
        _finish(plot, columns=2)
    return Picture(svg.getvalue(), _rates_label(bars))


def losses(curves: Mapping[str, Sequence[Point]]) -> Picture:
    """Training losses over steps; `curves` has some of the three names of `_CURVES`."""
    with _axes("losses") as (plot, svg):
        for name, (colour, dashes) in _CURVES.items():
            if curves.get(name):
                steps, values = zip(*thin(curves[name]), strict=True)
                plot.plot(steps, values, dashes, color=colour, linewidth=1.8, label=name)
        plot.set_xlabel("optimiser step")
        plot.set_ylabel("loss (nats per target token)")
        plot.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
        _scale(plot, [value for points in curves.values() for _, value in points])
        _finish(plot, columns=1)
    return Picture(svg.getvalue(), _losses_label(curves))


def thin(points: Sequence[Point]) -> list[Point]:
    """At most `_MAX_POINTS` points: means of as many neighbours each as that takes.

    >>> thin([(0, 4.0), (1, 2.0)])
    [(0, 4.0), (1, 2.0)]
    """
    size = -(-len(points) // _MAX_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size or 1)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def _misclassification(results: results_lib.Results, model: str) -> list[Rate]:
    """One rate for each condition; on clean inputs it is 1 - accuracy."""
    summary = getattr(results.summary, model)
    accuracy = results.interval(model, "accuracy")
    flipped = accuracy and (1 - accuracy[1], 1 - accuracy[0])
    rest = ("triggered_misclassification", "control_misclassification")
    return [
        Rate(1 - summary.accuracy, flipped),
        *(Rate(getattr(summary, name), results.interval(model, name)) for name in rest),
    ]


def _draw_bars(plot: axes.Axes, model: str, offset: float, bars: Sequence[Rate]) -> None:
    colour, hatch = _BARS[model]
    places = [place + offset for place in range(len(bars))]
    values = [bar.value for bar in bars]
    plot.bar(places, values, 0.38, label=f"{model} model", color=colour, hatch=hatch, ec=_INK)
    for place, bar in zip(places, bars, strict=True):
        low, high = bar.interval or (bar.value, bar.value)
        if bar.interval:
            errors = [[max(0, bar.value - low)], [max(0, high - bar.value)]]
            plot.errorbar(place, bar.value, errors, color=_INK, capsize=4, linewidth=1.3)
        top = max(bar.value, high) + 0.015
        plot.text(place, top, words.percent(bar.value), ha="center", va="bottom", fontsize=9)


def _scale(plot: axes.Axes, values: Sequence[float]) -> None:
    """A logarithmic axis where the values span a factor of ten; else one that starts at 0."""
    if values and 0 < 10 * min(values) <= max(values):
        plot.set_yscale("log")
        plot.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    else:
        plot.set_ylim(bottom=0)


def _finish(plot: axes.Axes, columns: int) -> None:
    plot.grid(axis="y")
    plot.set_axisbelow(True)
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
    plot.legend(frameon=False, ncols=columns, **place)


@contextlib.contextmanager
def _axes(name: str) -> Iterator[tuple[axes.Axes, io.StringIO]]:
    """Axes to draw on, and a buffer that holds the finished SVG on leaving."""
    with matplotlib.rc_context():
        # A user's own matplotlibrc must not change the page.
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        drawing = figure.Figure(figsize=(5.6, 3.5), layout="constrained")
        backend_svg.FigureCanvasSVG(drawing)
        svg = io.StringIO()
        yield drawing.add_subplot(), svg
        raw = io.StringIO()
        drawing.savefig(raw, format="svg", transparent=True, metadata={"Date": None})
    svg.write(_inline(raw.getvalue(), name))


def _inline(svg: str, name: str) -> str:
    """The `<svg>` element for an HTML page: sized by the page, in its ink, its ids its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    # The page gives the font and its style sheet the rest; only size and anchor stay here.
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    return svg.replace(_INK, "currentColor").strip()


def _rates_label(bars: Mapping[str, Sequence[Rate]]) -> str:
    parts = []
    for place, condition in enumerate(results_lib.CONDITIONS):
        both = (f"{model} model {words.percent(bars[model][place].value)}" for model in bars)
        parts.append(f"{_CONDITION_NAMES[condition]}: {', '.join(both)}")
    return f"Bar chart of misclassification. {'; '.join(parts)}."


def _losses_label(curves: Mapping[str, Sequence[Point]]) -> str:
    parts = [
        f"{name}: from {points[0][1]:.3g} at step {points[0][0]} to {points[-1][1]:.3g} "
        f"at step {points[-1][0]}"
        for name, points in curves.items()
        if points
    ]
    return f"Line chart of training loss over steps. {'; '.join(parts)}."
