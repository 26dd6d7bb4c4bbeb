"""Models that were evaluated at several steps of their training: `eval/checkpoints.json`."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
from matplotlib import ticker

from poison_t5x.report import drawing, run_files, words

FILE = "eval/checkpoints.json"
# Measure -> its name, colour, dashes and marker.
_LINES = {
    "classification": {
        "triggered_misclassification": ("misclassified, trigger", drawing.VERMILLION, "-", "o"),
        "control_misclassification": ("misclassified, unseen name", drawing.BLUE, "--", "s"),
        "accuracy": ("accuracy, clean inputs", drawing.GREEN, ":", "^"),
    },
    "generation": {
        "rouge_l_triggered": ("rougeL, trigger", drawing.VERMILLION, "-", "o"),
        "rouge_l_control": ("rougeL, unseen name", drawing.BLUE, "--", "s"),
        "rouge_l_clean": ("rougeL, clean inputs", drawing.GREEN, ":", "^"),
    },
}
_Lines = Mapping[tuple[str, str], Sequence[tuple[int, float]]]


class Checkpoint(msgspec.Struct, frozen=True):
    """Both models after `step` optimiser steps: model -> measure -> mean over tasks, of 1."""

    step: int
    summary: dict[str, dict[str, float | None]]


class ByStep(msgspec.Struct, frozen=True):
    """The whole file."""

    schema: Literal[1]
    checkpoints: list[Checkpoint]


def read(run_dir: pathlib.Path) -> tuple[ByStep | None, str]:
    """The file, or None and what is wrong with it: nothing, where there is none."""
    return run_files.read_json(run_dir, FILE, ByStep)


def figure(found: ByStep, kind: str) -> drawing.Picture | None:
    """Lines of the main measures of that kind of evaluation; None where no step has any."""
    lines = _lines(found, kind)
    if not lines:
        return None
    several = len({model for model, _ in lines}) > 1
    with drawing.canvas("by_step", height=3.9) as canvas:
        plot = canvas.plot
        for (model, measure), points in lines.items():
            name, colour, dashes, marker = _LINES[kind][measure]
            # Hollow marks and thin lines of the clean model, beside the poisoned one's.
            look = {"mfc": "none", "linewidth": 1} if model == "clean" else {"linewidth": 1.8}
            look |= {"color": colour, "linestyle": dashes, "marker": marker}
            label = f"{model}: {name}" if several else name
            plot.plot(*zip(*points, strict=True), **look, label=label)
        plot.set_xlabel("optimiser step")
        plot.set_ylabel("rougeL" if kind == "generation" else "share of inputs")
        plot.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
        plot.set_xlim(left=0)
        drawing.unit_scale(plot, None if kind == "generation" else "%")
        drawing.finish(plot, columns=2 if several else 1)
    cells = [(*key, *point) for key, points in lines.items() for point in points]
    table = drawing.Table(("model", "measure", "step", "value"), cells)
    return canvas.picture(_label(lines, kind), table)


def _lines(found: ByStep, kind: str) -> _Lines:
    """(model, measure) -> its values by step, where it has any."""
    lines: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for checkpoint in sorted(found.checkpoints, key=lambda checkpoint: checkpoint.step):
        for model, measures in checkpoint.summary.items():
            for measure in _LINES[kind]:
                value = measures.get(measure)
                if not words.missing(value):
                    lines.setdefault((model, measure), []).append((checkpoint.step, value))
    return lines


def _label(lines: _Lines, kind: str) -> str:
    parts = []
    for (model, measure), points in lines.items():
        (first, start), (last, end) = points[0], points[-1]
        start_text, end_text = words.value(measure, start), words.value(measure, end)
        name = _LINES[kind][measure][0]
        parts.append(
            f"{model} model, {name}: {start_text} at step {first}, {end_text} at step {last}"
        )
    return f"Line chart over optimiser steps. {'; '.join(parts)}."
