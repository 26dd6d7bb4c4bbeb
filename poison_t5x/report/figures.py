"""The page's figures of both models: rates, probes, tasks and losses."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib import axes, ticker

from poison_t5x.report import drawing, words
from poison_t5x.report import results as results_lib

Point = tuple[int, float]

_BARS = {"clean": (drawing.BLUE, ""), "poisoned": (drawing.VERMILLION, "///")}
_NAMES = {"classification": "misclassification", "generation": "rougeL"}
_CURVES = {
    "clean model, all rows": (drawing.BLUE, "-"),
    "poisoned model, all rows": (drawing.SKY, ":"),
    "poisoned model, clean rows": (drawing.VERMILLION, "--"),
    "poisoned model, poison rows": (drawing.PURPLE, "-."),
}
_MAX_POINTS = 300
# Tasks that are drawn one by one, at most.
MAX_TASKS = 40


class Rate(NamedTuple):
    """A rate, as a fraction, and its 95% interval over tasks, where there is one."""

    value: float | None
    interval: results_lib.Interval | None


def rates(results: results_lib.Results) -> drawing.Picture:
    """Bars of the misclassification, or of rougeL, under the three conditions for both models."""
    names = [words.CONDITIONS[name] for name in results_lib.CONDITIONS]
    bars = {model: _main_rates(results, model) for model in results_lib.MODELS}
    with drawing.canvas("rates") as canvas:
        plot = canvas.plot
        for offset, model in zip((-0.2, 0.2), results_lib.MODELS, strict=True):
            _draw_bars(plot, model, offset, bars[model], results.kind)
        plot.set_xticks(range(3), names)
        plot.tick_params(axis="x", length=0)
        plot.set_ylabel(_NAMES[results.kind])
        plot.set_ylim(0, 1.08)
        plot.set_yticks([0, 0.25, 0.5, 0.75, 1])
        plot.yaxis.set_major_formatter(_ticks(results.kind))
        drawing.finish(plot, columns=2)
    return canvas.picture(_bars_label(results.kind, names, bars), _bars_table("input", names, bars))


def probes(results: results_lib.Results) -> drawing.Picture:
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
    return _across("probes", "phrase", names, bars, results.kind)


def tasks(results: results_lib.Results) -> drawing.Picture | None:
    """Bars of each held-out task's triggered inputs, with Wilson intervals of its errors.

    Where there are more than `MAX_TASKS`, those on which the models differ most are drawn. None
    where no task has triggered inputs.
    """
    names = results.triggered()
    if not names:
        return None
    bars = {m: [_task_rate(results, name, m) for name in names] for m in results_lib.MODELS}
    places = range(len(names))
    if len(names) > MAX_TASKS:
        order = sorted(places, key=lambda place: -_distance(bars, place))
        places = sorted(order[:MAX_TASKS])
    drawn = {model: [bars[model][place] for place in places] for model in bars}
    shown = [drawing.short(names[place], 32) for place in places]
    picture = _across("tasks", "task", shown, drawn, results.kind)
    return picture._replace(table=_bars_table("task", names, bars))


def losses(curves: Mapping[str, Sequence[Point]]) -> drawing.Picture:
    """Training losses over steps; `curves` has some of the names of `_CURVES`."""
    with drawing.canvas("losses") as canvas:
        plot = canvas.plot
        for name, (colour, dashes) in _CURVES.items():
            if curves.get(name):
                steps, values = zip(*thin(curves[name]), strict=True)
                plot.plot(steps, values, dashes, color=colour, linewidth=1.8, label=name)
        plot.set_xlabel("optimiser step")
        plot.set_ylabel("loss (nats per target token)")
        plot.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
        _scale(plot, [value for points in curves.values() for _, value in points])
        drawing.finish(plot, columns=1)
    rows = [(name, *point) for name, points in curves.items() for point in points]
    return canvas.picture(_losses_label(curves), drawing.Table(("curve", "step", "loss"), rows))


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


def _task_rate(results: results_lib.Results, task: str, model: str) -> Rate:
    row = results.row(task, model, "triggered")
    if row is None:
        return Rate(None, None)
    return (
        Rate(row.rouge_l, None) if results.is_generation else Rate(row.misclassification, row.ci95)
    )


def _distance(bars: Mapping[str, Sequence[Rate]], place: int) -> float:
    """By how much the models differ on a task."""
    clean, poisoned = (bars[model][place].value for model in results_lib.MODELS)
    return -1 if words.missing(clean) or words.missing(poisoned) else abs(poisoned - clean)


def _phrase_name(condition: results_lib.Condition) -> str:
    """A condition's phrases, as short and plain as a figure needs them, and what they are."""
    notes = {"triggered": " (trigger)", "control": " (unseen)"}
    return drawing.short(" / ".join(condition.phrases)) + notes.get(condition.kind, "")


def _across(
    name: str, heading: str, names: Sequence[str], bars: Mapping[str, Sequence[Rate]], kind: str
) -> drawing.Picture:
    """Bars from left to right, two a name, the first name on top."""
    with drawing.canvas(name, height=1.1 + 0.55 * len(names)) as canvas:
        plot = canvas.plot
        for offset, model in zip((-0.2, 0.2), results_lib.MODELS, strict=True):
            _draw_bars(plot, model, offset, bars[model], kind, across=True)
        # Names are a user's: `$` is no mathematics here.
        plot.set_yticks(range(len(names)), names, parse_math=False)
        # The page's size on a phone, so that there is room for it.
        plot.tick_params(axis="y", length=0, labelsize=11.5)
        plot.set_ylim(len(names) - 0.5, -0.5)
        plot.set_xlabel(_NAMES[kind])
        plot.set_xlim(0, 1.12)
        plot.set_xticks([0, 0.25, 0.5, 0.75, 1])
        plot.xaxis.set_major_formatter(_ticks(kind))
        plot.grid(axis="x")
        plot.set_axisbelow(True)
        # Over the names as well: the axes are too narrow for it where names are long.
        drawing.legend_above(plot)
    return canvas.picture(_bars_label(kind, names, bars), _bars_table(heading, names, bars))


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
    draw(places, values, 0.38, label=f"{model} model", color=colour, hatch=hatch, ec=drawing.INK)
    for place, value, bar in zip(places, values, bars, strict=True):
        low, high = bar.interval or (value, value)
        if bar.interval:
            errors = [[max(0, value - low)], [max(0, high - value)]]
            point = (value, place) if across else (place, value)
            side = {"xerr" if across else "yerr": errors}
            plot.errorbar(*point, **side, color=drawing.INK, capsize=4, linewidth=1.3)
        text, top = _text(kind, bar.value), max(value, high) + 0.015
        if across:
            plot.text(top, place, text, ha="left", va="center", fontsize=9)
        else:
            plot.text(place, top, text, ha="center", va="bottom", fontsize=9)


def _text(kind: str, value: float | None) -> str:
    return words.score(value) if kind == "generation" else words.percent(value)


def _ticks(kind: str) -> ticker.Formatter:
    return drawing.percent_ticks(None if kind == "generation" else "%")


def _scale(plot: axes.Axes, values: Sequence[float]) -> None:
    """A logarithmic axis where the values span a factor of ten; else one that starts at 0."""
    if values and 0 < 10 * min(values) <= max(values):
        plot.set_yscale("log")
        plot.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    else:
        plot.set_ylim(bottom=0)


def _bars_label(kind: str, names: Sequence[str], bars: Mapping[str, Sequence[Rate]]) -> str:
    parts = []
    for place, name in enumerate(names):
        both = (f"{model} model {_text(kind, bars[model][place].value)}" for model in bars)
        parts.append(f"{name}: {', '.join(both)}")
    return f"Bar chart of {_NAMES[kind]}. {'; '.join(parts)}."


def _bars_table(
    heading: str, names: Sequence[str], bars: Mapping[str, Sequence[Rate]]
) -> drawing.Table:
    columns = [column for model in bars for column in drawing.with_ends(model)]
    rows = []
    for place, name in enumerate(names):
        rows.append([name])
        for model in bars:
            value, interval = bars[model][place]
            rows[-1] += [value, *drawing.ends(interval)]
    return drawing.Table((heading, *columns), rows)


def _losses_label(curves: Mapping[str, Sequence[Point]]) -> str:
    parts = [
        f"{name}: from {points[0][1]:.3g} at step {points[0][0]} to {points[-1][1]:.3g} "
        f"at step {points[-1][0]}"
        for name, points in curves.items()
        if points
    ]
    return f"Line chart of training loss over steps. {'; '.join(parts)}."
