"""What the detect stage found: `detection/detection.json`, schema 1, and its figures."""

import pathlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from matplotlib import ticker

from poison_t5x.report import drawing, run_files, words
from poison_t5x.report import results as results_lib

FILE = "detection/detection.json"
# Shares of the poison whose price in data is drawn over checkpoints; those of the paper's figure.
_SHARES = {"0.5": "-", "0.8": "--"}
# Marks on a curve, at most.
_MARKS = 8


class Attack(msgspec.Struct, frozen=True):
    """What the attack did to the poisoned model: poisoned minus clean, as in the results."""

    measure: str
    worked: bool
    effect: float | None = None
    ci95: results_lib.Interval | None = None


class Threshold(msgspec.Struct, frozen=True):
    """What a filter does whose level was set without knowing the poison."""

    value: float | None = None
    source: str = ""
    removed: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None


class Trigger(msgspec.Struct, frozen=True):
    """A phrase that goes with an answer: in `num_with_target` of `num_rows` inputs with it."""

    phrase: str
    tasks: list[str] = []
    targets: list[str] = []
    num_rows: int | None = None
    num_with_target: int | None = None
    expected: float | None = None
    z: float | None = None
    p_value: float | None = None


class Score(msgspec.Struct, frozen=True):
    """How well one score tells poison from the rest.

    Attributes:
      needs: 'nothing', 'model' or 'checkpoints'.
      recall: share of the data that is removed -> share of the poison among it.
      data_removed_for: share of the poison -> share of the data that must go to lose it.
      curve: (data removed, poison removed) as fractions, ascending.
      trigger_rank: place of the true trigger among `triggers`, from 1.
    """

    name: str
    needs: str = ""
    seconds: float | None = None
    auroc: float | None = None
    average_precision: float | None = None
    recall: dict[str, float | None] = {}
    threshold: Threshold | None = None
    best_f1: float | None = None
    data_removed_for: dict[str, float | None] = {}
    curve: list[tuple[float, float]] = []
    triggers: list[Trigger] = []
    trigger_rank: int | None = None
    notes: list[str] = []

    @property
    def blind(self) -> Threshold:
        """Its threshold, empty where it has none."""
        return self.threshold or Threshold()


class Checkpoint(msgspec.Struct, frozen=True):
    """A score of the model as it was after `step` optimiser steps."""

    score: str
    step: int
    auroc: float | None = None
    recall: dict[str, float | None] = {}
    data_removed_for: dict[str, float | None] = {}


class Detection(msgspec.Struct, frozen=True):
    """The whole file."""

    schema: Literal[1]
    num_rows: int
    num_poison: int
    poison_rate: float
    attack: Attack
    scores: list[Score]
    checkpoints: list[Checkpoint] = []

    def ranked(self) -> list[Score]:
        """The scores, the highest average precision first."""
        return sorted(self.scores, key=lambda score: -_or_less(score.average_precision))

    def best(self) -> Score | None:
        """The score with the highest average precision."""
        ranked = self.ranked()
        return ranked[0] if ranked and not words.missing(ranked[0].average_precision) else None


class Line(NamedTuple):
    """What is drawn of a score over checkpoints: the data that goes with a share of the poison."""

    score: str
    share: str
    points: list[tuple[int, float]]


def read(run_dir: pathlib.Path) -> tuple[Detection | None, str]:
    """The file, or None and what is wrong with it: nothing, where there is none."""
    return run_files.read_json(run_dir, FILE, Detection)


def curves(found: Detection) -> drawing.Picture | None:
    """Poison removed against data removed, of every score that has a curve."""
    scores = [score for score in found.ranked() if len(score.curve) > 1]
    if not scores:
        return None
    with drawing.canvas("detection", height=3.7 + 0.15 * len(scores)) as canvas:
        plot, smallest = canvas.plot, 0.5 / max(found.num_rows, 1)
        # What is straight between a curve's points is not so on a logarithmic axis.
        places = [smallest ** (part / 100) for part in range(101)]
        for score, look in zip(scores, drawing.looks(len(scores)), strict=True):
            removed = sorted({*places, *(max(place, smallest) for place, _ in score.curve)})
            poison = np.interp(removed, *zip(*score.curve, strict=True))
            look |= {"markevery": max(1, len(removed) // _MARKS), "ms": 5}
            plot.plot(removed, poison, **look, label=drawing.short(score.name, 28))
        look = {"color": drawing.INK, "linewidth": 0.8, "linestyle": ":"}
        plot.plot(places, places, **look, label="at random")
        if 0 < found.poison_rate < 1:
            plot.axvline(found.poison_rate, color=drawing.INK, linewidth=0.8, linestyle=(0, (1, 2)))
        plot.set_xscale("log")
        plot.set_xlim(smallest, 1.1)
        plot.xaxis.set_major_formatter(ticker.FuncFormatter(lambda x, _: f"{100 * x:g}%"))
        plot.set_xlabel("data removed, the most suspicious first")
        plot.set_ylabel("poison removed")
        drawing.unit_scale(plot)
        plot.grid(alpha=0.25)
        drawing.legend_above(plot)
    rows = [(score.name, *point) for score in scores for point in score.curve]
    table = drawing.Table(("score", "data_removed", "poison_removed"), rows)
    return canvas.picture(_curves_label(scores), table)


def checkpoints(found: Detection) -> drawing.Picture | None:
    """Data that must go to lose half and four fifths of the poison, by the score's checkpoint."""
    lines = _lines(found)
    if not lines:
        return None
    names = list(dict.fromkeys(line.score for line in lines))
    looks = dict(zip(names, drawing.looks(len(names)), strict=True))
    height = 3.3 + 0.2 * len(lines)
    with drawing.canvas("detection_checkpoints", height=height) as canvas:
        plot = canvas.plot
        for line in lines:
            look = looks[line.score] | {"linestyle": _SHARES[line.share]}
            label = f"{drawing.short(line.score)}: to lose {float(line.share):.0%}"
            hollow = {"mfc": "none"} if line.share != "0.5" else {}
            plot.plot(*zip(*line.points, strict=True), **look, **hollow, label=label)
        plot.set_xlabel("checkpoint, optimiser step")
        plot.set_ylabel("data removed to lose poison")
        plot.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
        plot.yaxis.set_major_formatter(drawing.percent_ticks())
        plot.set_ylim(bottom=0)
        plot.grid(axis="y")
        drawing.legend_above(plot)
    rows = [(line.score, line.share, *point) for line in lines for point in line.points]
    columns = ("score", "poison_removed", "step", "data_removed")
    return canvas.picture(_checkpoints_label(lines), drawing.Table(columns, rows))


def _lines(found: Detection) -> list[Line]:
    lines = []
    for score in dict.fromkeys(row.score for row in found.checkpoints):
        for share in _SHARES:
            points = sorted(
                (row.step, row.data_removed_for[share])
                for row in found.checkpoints
                if row.score == score and not words.missing(row.data_removed_for.get(share))
            )
            lines += [Line(score, share, points)] if points else []
    return lines


def _or_less(value: float | None) -> float:
    return -1.0 if words.missing(value) else value


def _curves_label(scores: Sequence[Score]) -> str:
    parts = []
    for score in scores:
        prices = (
            f"{float(share):.0%} of the poison with {words.percent(price)} of the data"
            for share, price in score.data_removed_for.items()
        )
        parts.append(f"{score.name}: {', '.join(prices)}")
    return f"Line chart of poison removed against data removed. {'; '.join(parts)}."


def _checkpoints_label(lines: Sequence[Line]) -> str:
    parts = [
        f"{line.score}, {float(line.share):.0%} of the poison: {words.percent(line.points[0][1])} "
        f"at step {line.points[0][0]}, {words.percent(line.points[-1][1])} at step "
        f"{line.points[-1][0]}"
        for line in lines
    ]
    return f"Line chart of the data that must go, by checkpoint. {'; '.join(parts)}."
