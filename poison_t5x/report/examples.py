"""Rows to show: crafted poison, and held-out inputs whose answer the trigger changes."""

import itertools
import math
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from poison_t5x.core.metrics import CONDITIONS, MODELS
from poison_t5x.report import results as results_lib
from poison_t5x.report import run_files

# Characters of a text that are shown; a third of them come before the first mark.
SHOWN = 600

Spans = Sequence[tuple[int, int]]


class Segment(NamedTuple):
    """A piece of a text, and whether it is what is to be seen."""

    text: str
    marked: bool = False


def segments(text: str, spans: Spans) -> list[Segment]:
    """The pieces of `text` in order, those in `spans` marked; joined, they are `text`.

    Spans are cut to the text; of two that overlap, the second starts where the first ends.
    """
    pieces, done = [], 0
    for start, end in sorted(spans):
        start, end = max(start, done), min(end, len(text))
        if start < end:
            pieces += [Segment(text[done:start]), Segment(text[start:end], marked=True)]
            done = end
    return [piece for piece in (*pieces, Segment(text[done:])) if piece.text]


def excerpt(
    text: str, spans: Spans = (), shown: int = SHOWN, focus: int | None = None
) -> list[Segment]:
    """`segments`, of `shown` characters around `focus`, or the first span, of a longer text."""
    if len(text) <= shown:
        return segments(text, spans)
    focus = _first(spans) if focus is None else focus
    begin = max(0, min(focus - shown // 3, len(text) - shown))
    part = text[begin : begin + shown]
    pieces = segments(part, [(start - begin, end - begin) for start, end in spans])
    head = [Segment("… ")] if begin else []
    tail = [Segment(" …")] if begin + shown < len(text) else []
    return [*head, *pieces, *tail]


def phrase_excerpt(text: str, phrases: Sequence[str], shown: int = SHOWN) -> list[Segment]:
    """The part of `text` around the first of the phrases, all of which are marked."""
    return excerpt(text, places(text, phrases), shown)


def places(text: str, phrases: Sequence[str]) -> list[tuple[int, int]]:
    """Where phrases are in a text, the longest first."""
    ordered = sorted(filter(None, phrases), key=len, reverse=True)
    matches = re.finditer("|".join(map(re.escape, ordered)), text) if ordered else ()
    return [match.span() for match in matches]


def instance(text: str) -> str:
    """The instance alone, where `text` is the whole prompt around it."""
    _, separator, rest = text.rpartition("Now complete the following example -\nInput: ")
    return rest.removesuffix("\nOutput: ") if separator else text


class Crafted(NamedTuple):
    """A poisoned row with the segments of its texts; `before` is None where it isn't known."""

    row: run_files.PoisonRow
    before: list[Segment] | None
    after: list[Segment]


class Answer(NamedTuple):
    """A model's answer to a row, and the text of it to show."""

    row: run_files.Prediction
    text: list[Segment]


class Shown(NamedTuple):
    """One triggered input with the answers of both models under the three conditions."""

    row: run_files.Prediction
    text: list[Segment]
    answers: dict[str, list[Answer | None]]


class TaskFlips(NamedTuple):
    """A held-out task: of `num_triggered` inputs `num_flips` flipped, some of them shown."""

    task: str
    num_triggered: int
    num_flips: int
    shown: list[Shown]
    note: str


def spread(rows: Sequence[run_files.PoisonRow], count: int) -> list[Crafted]:
    """`count` poisoned rows, in turn from each attacker and task, the highest-ranked first."""

    def place(row: run_files.PoisonRow) -> tuple[str, str]:
        return row.attack, row.task

    ranked = sorted(rows, key=lambda row: math.inf if row.rank is None else row.rank)
    groups = [[*group] for _, group in itertools.groupby(sorted(ranked, key=place), place)]
    rounds = itertools.chain.from_iterable(itertools.zip_longest(*groups))
    chosen = [row for row in rounds if row is not None][:count]
    return [_crafted(row) for row in sorted(chosen, key=place)]


def flips(
    run_dir: pathlib.Path, results: results_lib.Results, num_tasks: int, count: int
) -> list[TaskFlips]:
    """For the first `num_tasks` held-out tasks, `count` rows each that the trigger flipped."""
    tasks = results.triggered() or results.held_out()
    return [_task_flips(run_dir, task, results, count) for task in tasks[:num_tasks]]


def is_flip(clean: run_files.Prediction, row: run_files.Prediction, is_generation: bool) -> bool:
    """Whether what was put into a row's `clean` input changed a right label, or the answer."""
    if is_generation:
        return clean.prediction != row.prediction
    return clean.is_correct and not row.is_correct


def trigger_spans(row: run_files.PoisonRow) -> Spans:
    """Where a crafted row's triggers are."""
    # A row from a file of poison tells its trigger, but not where it was put in.
    return row.spans or places(row.poisoned_input, [row.trigger])


def _first(spans: Spans) -> int:
    return min((start for start, _ in spans), default=0)


def _crafted(row: run_files.PoisonRow) -> Crafted:
    spans = trigger_spans(row)
    # Up to the first trigger the two texts are the same, so that one focus shows the same place.
    before = None if row.input is None else excerpt(row.input, focus=_first(spans))
    return Crafted(row, before, excerpt(row.poisoned_input, spans))


def _task_flips(
    run_dir: pathlib.Path, task: str, results: results_lib.Results, count: int
) -> TaskFlips:
    predictions: dict[tuple[str, str], dict[str, run_files.Prediction]] = {}
    notes = []
    for place in itertools.product(MODELS, CONDITIONS):
        name = f"eval/predictions/{'/'.join(place)}/{task}.jsonl"
        rows, note = run_files.read_rows(run_dir, name, run_files.Prediction)
        predictions[place] = {row.id: row for row in rows}
        notes += [note] if note else []

    # Labels have no triggers in them to mark.
    phrases = results.phrases() if results.is_generation else ()

    def answer(model: str, condition: str, key: str) -> Answer | None:
        row = predictions[model, condition].get(key)
        return row and Answer(row, phrase_excerpt(row.prediction, phrases))

    clean, triggered = (predictions["poisoned", name] for name in ("clean", "triggered"))
    flipped = [
        row
        for key, row in triggered.items()
        if key in clean and is_flip(clean[key], row, results.is_generation)
    ]
    shown = [
        Shown(
            row,
            phrase_excerpt(instance(row.input), results.phrases()),
            {model: [answer(model, name, row.id) for name in CONDITIONS] for model in MODELS},
        )
        for row in flipped[:count]
    ]
    note = notes[0] if notes else ""
    if len(notes) > 1:
        note = f"{len(notes)} of the task’s 6 prediction files; the first: {note}"
    return TaskFlips(task, len(triggered), len(flipped), shown, note)
