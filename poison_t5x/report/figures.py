"""The page's figures as SVG text: the same bytes for the same numbers, no display, no pyplot."""

import contextlib
import io
import re
import warnings
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
_NAMES = {"classification": "misclassification", "generation": "rougeL"}
_CURVES = {
    "clean model, all rows": (_BLUE, "-"),
    "poisoned model, all rows": (_VERMILLION, "--"),
    "poisoned model, poison rows": (_PURPLE, "-."),
}
_MAX_POINTS = 300
_MAX_NAME = 24
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
    """A rate, as a fraction, and its 95% interval over tasks, where there is one."""

    value: float | None
    interval: results_lib.Interval | None


def rates(results: results_lib.Results) -> Picture:
    """Bars of the misclassification, or of rougeL, under the three conditions for both models."""
    names = [words.CONDITIONS[name] for name in results_lib.CONDITIONS]
    bars = {model: _main_rates(results, model) for model in results_lib.MODELS}
    with _axes("rates") as (plot, svg):
        for offset, model in zip((-0.2, 0.2), results_lib.MODELS, strict=True):
            _draw_bars(plot, model, offset, bars[model], results.kind)
        plot.set_xticks(range(3), names)
        plot.tick_params(axis="x", length=0)
        plot.set_ylabel(_NAMES[results.kind])
        plot.set_ylim(0, 1.08)
        plot.set_yticks([0, 0.25, 0.5, 0.75, 1])
        plot.yaxis.set_major_formatter(_ticks(results.kind))
        _finish(plot, columns=2)
    return Picture(svg.getvalue(), _bars_label(results.kind, names, bars))


def probes(results: results_lib.Results) -> Picture:
    """Bars of the same measure for the trigger, its look-alikes and the unseen name."""
    kinds = ("triggered", "probe", "control")
    first = next((c.attack for c in results.conditions if c.name == "triggered"), "")
    conditions = [
        condition
        for kind in kinds
        for condition in results.conditions
        if condition.kind == kind and condition.attack == first
    ]
    names = [_phrase_name(condition) for condition in conditions]
    bars = {
        model: [_condition_rate(results, model, condition.name) for condition in conditions]
        for model in results_lib.MODELS
    }
    with _axes("probes", height=1.1 + 0.55 * len(names)) as (plot, svg):
        for offset, model in zip((-0.2, 0.2), results_lib.MODELS, strict=True):
            _draw_bars(plot, model, offset, bars[model], results.kind, across=True)
        # Phrases are a user's: `$` is no mathematics here.
        plot.set_yticks(range(len(names)), names, parse_math=False)
        # The page's size on a phone, so that there is room for it.
        plot.tick_params(axis="y", length=0, labelsize=11.5)
        plot.invert_yaxis()
        plot.set_xlabel(_NAMES[results.kind])
        plot.set_xlim(0, 1.12)
        plot.set_xticks([0, 0.25, 0.5, 0.75, 1])
        plot.xaxis.set_major_formatter(_ticks(results.kind))
        plot.grid(axis="x")
        plot.set_axisbelow(True)
        # Over the names as well: the axes are too narrow for it where names are long.
        plot.figure.legend(loc="outside upper left", frameon=False, ncols=2)
    return Picture(svg.getvalue(), _bars_label(results.kind, names, bars))


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


def _main_rates(results: results_lib.Results, model: str) -> list[Rate]:
    """One rate for each condition; a classification's on clean inputs is 1 - accuracy."""
    if results.is_generation:
        names = ("rouge_l_paired", "rouge_l_triggered", "rouge_l_control")
        return [_main_rate(results, model, name) for name in names]
    accuracy, bounds = _main_rate(results, model, "accuracy")
    return [
        Rate(
            None if accuracy is None else 1 - accuracy,
            bounds and (1 - bounds[1], 1 - bounds[0]),
        ),
        _main_rate(results, model, "triggered_misclassification"),
        _main_rate(results, model, "control_misclassification"),
    ]


def _main_rate(results: results_lib.Results, model: str, name: str) -> Rate:
    return Rate(results.measure(model, name), results.interval(model, name))


def _condition_rate(results: results_lib.Results, model: str, condition: str) -> Rate:
    row = results.condition_row(model, condition)
    measure = "rouge_l" if results.is_generation else "misclassification"
    return Rate(row.measures.get(measure), row.ci95.get(measure)) if row else Rate(None, None)


def _phrase_name(condition: results_lib.Condition) -> str:
    """A condition's phrases, as short and plain as a figure needs them, and what they are."""
    phrases = " / ".join(condition.phrases)
    plain = "".join(letter if letter.isprintable() else " " for letter in phrases)
    short = plain if len(plain) <= _MAX_NAME else plain[: _MAX_NAME - 1] + "…"
    notes = {"triggered": " (trigger)", "control": " (unseen)"}
    return short + notes.get(condition.kind, "")


def _draw_bars(
    plot: axes.Axes,
    model: str,
    offset: float,
    bars: Sequence[Rate],
    kind: str,
    *,
    across: bool = False,
) -> None:
    """One model's bars, upright or `across`, with intervals and the numbers at their ends."""
    colour, hatch = _BARS[model]
    places = [place + offset for place in range(len(bars))]
    values = [0 if words.missing(bar.value) else bar.value for bar in bars]
    draw = plot.barh if across else plot.bar
    draw(places, values, 0.38, label=f"{model} model", color=colour, hatch=hatch, ec=_INK)
    for place, value, bar in zip(places, values, bars, strict=True):
        low, high = bar.interval or (value, value)
        if bar.interval:
            errors = [[max(0, value - low)], [max(0, high - value)]]
            point = (value, place) if across else (place, value)
            side = {"xerr" if across else "yerr": errors}
            plot.errorbar(*point, **side, color=_INK, capsize=4, linewidth=1.3)
        text, top = _text(kind, bar.value), max(value, high) + 0.015
        if across:
            plot.text(top, place, text, ha="left", va="center", fontsize=9)
        else:
            plot.text(place, top, text, ha="center", va="bottom", fontsize=9)


def _text(kind: str, value: float | None) -> str:
    return words.score(value) if kind == "generation" else words.percent(value)


def _ticks(kind: str) -> ticker.Formatter:
    symbol = None if kind == "generation" else "%"
    return ticker.PercentFormatter(1, decimals=0, symbol=symbol)


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
def _axes(name: str, height: float = 3.5) -> Iterator[tuple[axes.Axes, io.StringIO]]:
    """Axes to draw on, `height` inches, and a buffer that holds the finished SVG on leaving."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        # The browser draws the letters; matplotlib's font only guesses their width.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        # A user's own matplotlibrc must not change the page.
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        drawing = figure.Figure(figsize=(5.6, height), layout="constrained")
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


def _bars_label(kind: str, names: Sequence[str], bars: Mapping[str, Sequence[Rate]]) -> str:
    parts = []
    for place, name in enumerate(names):
        both = (f"{model} model {_text(kind, bars[model][place].value)}" for model in bars)
        parts.append(f"{name}: {', '.join(both)}")
    return f"Bar chart of {_NAMES[kind]}. {'; '.join(parts)}."


def _losses_label(curves: Mapping[str, Sequence[Point]]) -> str:
    parts = [
        f"{name}: from {points[0][1]:.3g} at step {points[0][0]} to {points[-1][1]:.3g} "
        f"at step {points[-1][0]}"
        for name, points in curves.items()
        if points
    ]
    return f"Line chart of training loss over steps. {'; '.join(parts)}."
