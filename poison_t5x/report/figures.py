"""The run's figures: rates, probes, tasks, steps, losses, detection and defences."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from poison_t5x.core import metrics
from poison_t5x.core.metrics import DEFENDED, MODEL_WORDS, MODELS, missing
from poison_t5x.report import plots, run_files, tables
from poison_t5x.report import results as results_lib
from poison_t5x.report.plots import Picture, Point, Series

# Bars of tasks that are drawn, at most.
MAX_TASKS = 40
_LOSSES = {
    "clean model, all rows": {"color": "C0", "linestyle": "-"},
    "poisoned model, all rows": {"color": "C5", "linestyle": ":"},
    "poisoned model, clean rows": {"color": "C1", "linestyle": "--"},
    "poisoned model, poison rows": {"color": "C3", "linestyle": "-."},
}
# Shares of the poison whose price in data is drawn over checkpoints; those of the paper's figure.
_SHARES = {"0.5": {"linestyle": "-"}, "0.8": {"linestyle": "--", "mfc": "none"}}
# Marks on a curve, at most.
_MARKS = 8
_STEP = "optimiser step"


def rates(results: results_lib.Results) -> Picture:
    """Bars of the misclassification, or of rougeL, under the three conditions for both models."""
    judged = results.judged_by
    without = "rouge_l_paired" if results.is_generation else judged.clean
    measures = dict(zip(metrics.CONDITIONS, (without, judged.effect, judged.control), strict=True))

    def point(model: str, condition: str) -> Point:
        measure = measures[condition]
        value, bounds = results.measure(model, measure), results.interval(model, measure)
        if measure == "accuracy":  # errors are drawn beside errors
            value = None if missing(value) else 1 - value
            bounds = bounds and (1 - bounds[1], 1 - bounds[0])
        return Point(metrics.CONDITION_WORDS[condition], value, bounds, "tasks")

    return _of_models("rates", "input", metrics.CONDITIONS, point, results)


def probes(results: results_lib.Results) -> Picture | None:
    """Bars of the same rate for the trigger, its look-alikes and the unseen name."""
    if not any(one.kind == metrics.PROBE for one in results.conditions):
        return None
    first = next((c.attack for c in results.conditions if c.name == metrics.TRIGGERED), "")
    # In their order from above.
    notes = {metrics.TRIGGERED: " (trigger)", metrics.PROBE: "", metrics.CONTROL: " (unseen)"}
    own = [
        one
        for kind in notes
        for one in results.conditions
        if (one.kind, one.attack) == (kind, first)
    ]
    rate = results.judged_by.main_rate

    def point(model: str, condition: results_lib.MeasuredCondition) -> Point:
        name = plots.short(" / ".join(condition.phrases)) + notes[condition.kind]
        row = results.condition_row(model, condition.name)
        values = (row.measures.get(rate), row.ci95.get(rate)) if row else (None, None)
        return Point(name, *values, "tasks")

    return _of_models("probes", "phrase", own, point, results)


def tasks(results: results_lib.Results) -> Picture | None:
    """Bars of each held-out task's triggered inputs, with Wilson intervals of its errors.

    Where there are more than `MAX_TASKS`, those on which the models differ most are drawn. None
    where no task has triggered inputs.
    """
    names = results.triggered()
    if not names:
        return None

    def point(model: str, task: str) -> Point:
        row = results.row(task, model, metrics.TRIGGERED)
        value = row and getattr(row, results.judged_by.main_rate)
        bounds = None if row is None or results.is_generation else row.ci95
        return Point(task, value, bounds, "rows" if bounds else "")

    def distance(task: str) -> float:
        clean, poisoned = (point(model, task).value for model in MODELS)
        return -1 if missing(clean) or missing(poisoned) else abs(poisoned - clean)

    farthest = sorted(names, key=distance, reverse=True)[:MAX_TASKS]
    drawn = [name for name in names if name in farthest]
    whole = [Series(MODEL_WORDS[m], [point(m, name) for name in names]) for m in MODELS]
    picture = _of_models("tasks", "task", drawn, point, results)
    return picture._replace(records=plots.records("task", "value", whole))


def losses(curves: Mapping[str, Sequence[tuple[int, float]]]) -> Picture | None:
    """Training losses over steps; `curves` has some of the names of `_LOSSES`."""
    series = [
        Series(name, [Point(*pair) for pair in curves[name]], {**look, "marker": ""})
        for name, look in _LOSSES.items()
        if curves.get(name)
    ]
    values = [point.value for one in series for point in one.points]

    def adjust(plot: Any) -> None:
        """A logarithmic axis where the losses span a factor of ten; else one from 0."""
        if 0 < 10 * min(values) <= max(values):
            plot.set_yscale("log")
            plot.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        else:
            plot.set_ylim(bottom=0)

    y, unit = "loss (nats per target token)", tables.Unit(digits=3, style="g")
    return plots.lines("losses", _STEP, y, series, unit, log=False, adjust=adjust)


def steps(by_step: run_files.ByStep, results: results_lib.Results) -> Picture | None:
    """Lines of the main measures over the models' checkpoints; None where no step has any."""
    judged = results.judged_by
    looks = {
        judged.effect: {"color": "C1", "linestyle": "-", "marker": "o"},
        judged.control: {"color": "C0", "linestyle": "--", "marker": "s"},
        judged.clean: {"color": "C2", "linestyle": ":", "marker": "^"},
    }
    # Hollow marks and thin lines of the clean model, beside the poisoned one's.
    models = {"poisoned": {}, "clean": {"mfc": "none", "linewidth": 1}}
    ordered = sorted(by_step.checkpoints, key=lambda checkpoint: checkpoint.step)
    series = []
    for model, measure in itertools.product(models, looks):
        values = [(one.step, one.measure(model, measure)) for one in ordered]
        points = [Point(step, value) for step, value in values if not missing(value)]
        name = f"{MODEL_WORDS[model]}, {judged.measures[measure].words}"
        series += [Series(name, points, looks[measure] | models[model])] if points else []
    unit = tables.unit(judged.effect)
    return plots.lines("by_step", _STEP, results.axis, series, unit, log=False, adjust=plots.whole)


def curves(detection: run_files.Detection) -> Picture | None:
    """Poison removed against data removed, of every score that has a curve."""
    scores = [score for score in detection.ranked() if len(score.curve) > 1]
    smallest = 0.5 / max(detection.num_rows, 1)
    # What is straight between a curve's points is not so on a logarithmic axis.
    places = np.geomspace(1, smallest, 101).tolist()

    def curve(score: run_files.JudgedScore) -> Series:
        removed = sorted({*places, *(max(place, smallest) for place, _ in score.curve)})
        poison = np.interp(removed, *zip(*score.curve, strict=True))
        points = [Point(*pair) for pair in zip(removed, poison.tolist(), strict=True)]
        return Series(score.name, points, {"markevery": max(1, len(removed) // _MARKS), "ms": 5})

    def adjust(plot: Any) -> None:
        plots.whole(plot)
        look = {"color": plots.INK, "linewidth": 0.8}
        plot.plot(places, places, **look, linestyle=":", marker="", label="at random")
        if 0 < detection.poison_rate < 1:
            plot.axvline(detection.poison_rate, **look, linestyle=(0, (1, 2)))
        plot.set_xlim(smallest, 1.1)
        plot.xaxis.set_major_formatter(lambda x, _: f"{100 * x:g}%")

    told = "; ".join(
        f"{score.name}: "
        + ", ".join(
            f"{float(share):.0%} of the poison with {tables.percent(price)} of the data"
            for share, price in score.data_removed_for.items()
        )
        for score in scores
    )
    x, series = "data removed, the most suspicious first", [curve(score) for score in scores]
    picture = plots.lines("detection", x, "poison removed", series, log=True, adjust=adjust)
    named = [Series(score.name, [Point(*pair) for pair in score.curve]) for score in scores]
    return picture and picture._replace(
        label=f"Line chart of poison removed against data removed. {told}.",
        records=plots.records("data_removed", "poison_removed", named),
    )


def scored_steps(detection: run_files.Detection) -> Picture | None:
    """Data that must go to lose half and four fifths of the poison, by the score's checkpoint."""
    series = []
    for number, (name, rows) in enumerate(
        tables.grouped(detection.checkpoints, lambda row: row.score).items()
    ):
        for share, look in _SHARES.items():
            prices = sorted((row.step, row.data_removed_for.get(share)) for row in rows)
            points = [Point(step, price) for step, price in prices if not missing(price)]
            label = f"{plots.short(name)}: to lose {float(share):.0%}"
            look = {"color": f"C{number}", "marker": "osD^vPX*<>hp"[number % 12], **look}
            series += [Series(label, points, look)] if points else []
    return plots.lines(
        "detection_checkpoints",
        "checkpoint, optimiser step",
        "data removed to lose poison",
        series,
        log=False,
        adjust=lambda plot: plot.set_ylim(bottom=0),
    )


def defenses(
    results: results_lib.Results, defended: Sequence[run_files.DefendedRun]
) -> Picture | None:
    """The main measures of the models without and with a defence."""
    if not defended:
        return None
    models = [(MODEL_WORDS[model], model, results) for model in MODELS]
    models += [(one.name, DEFENDED, one) for one in defended]
    series = [
        Series(
            words,
            [
                Point(name, one.measure(model, measure), bounds, "tasks" if bounds else "")
                for name, model, one in models
                for bounds in [one.interval(model, measure)]
            ],
        )
        for measure, words in results.main_measures.items()
    ]
    unit = tables.unit(results.judged_by.effect)
    return plots.across(
        "defenses", "model", results.axis, series, unit, marks=True, apart=len(MODELS)
    )


def _of_models(
    name: str,
    x: str,
    places: Sequence[Any],
    point: Callable[[str, Any], Point],
    results: results_lib.Results,
) -> Picture:
    """Bars of both models; `point` is of a model and one of `places`."""
    series = [Series(MODEL_WORDS[m], [point(m, place) for place in places]) for m in MODELS]
    rate = results.judged_by.main_rate
    return plots.across(name, x, metrics.rate_words(rate), series, tables.unit(rate))
