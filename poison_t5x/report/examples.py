"""Rows to show: crafted poison, and held-out inputs whose answer the trigger changes."""

import itertools
import math
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from poison_t5x.core.metrics import CONDITIONS, MODELS
from poison_t5x.report import results as results_lib
from poison_t5x.report.run_files import CraftedRow, Prediction, read_rows

# Characters of a text that are shown; a third of them come before the first mark.
SHOWN = 600

Spans = Sequence[tuple[int, int]]


class Segment(NamedTuple):
    """A piece of a text, and whether it is what is to be seen."""

    text: str
    marked: bool = False


class ReadAnswers(NamedTuple):
    """All predictions of a run: (task, model, condition) -> row -> prediction, or a note."""

    models: list[str]
    conditions: list[results_lib.MeasuredCondition]
    rows: dict[tuple[str, str, str], dict[str, Prediction]]
    notes: dict[tuple[str, str, str], str]


class TaskFlips(NamedTuple):
    """A held-out task, of whose triggered inputs some `flipped`; `note` says what is missing."""

    task: str
    num_triggered: int
    flipped: list[Prediction]
    note: str


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


def spread(rows: Sequence[CraftedRow], count: int) -> list[CraftedRow]:
    """`count` poisoned rows, in turn from each attacker and task, the highest-ranked first."""

    def place(row: CraftedRow) -> tuple[str, str]:
        return row.attack, row.task

    ranked = sorted(rows, key=lambda row: math.inf if row.rank is None else row.rank)
    groups = [[*group] for _, group in itertools.groupby(sorted(ranked, key=place), place)]
    rounds = itertools.chain.from_iterable(itertools.zip_longest(*groups))
    return sorted([row for row in rounds if row is not None][:count], key=place)


def before(row: CraftedRow) -> list[Segment] | None:
    """A poisoned row's text as it was; None where that isn't known."""
    # Up to the first trigger the two texts are the same, so that one focus shows the same place.
    return None if row.input is None else excerpt(row.input, focus=_first(trigger_spans(row)))


def after(row: CraftedRow, shown: int = SHOWN) -> list[Segment]:
    """A poisoned row's text, its triggers marked."""
    return excerpt(row.poisoned_input, trigger_spans(row), shown)


def trigger_spans(row: CraftedRow) -> Spans:
    """Where a crafted row's triggers are."""
    # A row from a file of poison tells its trigger, but not where it was put in.
    return row.spans or places(row.poisoned_input, [row.trigger])


def read_answers(run_dir: pathlib.Path, results: results_lib.Results) -> ReadAnswers:
    """The predictions of both models, and of those with a defence, on all held-out tasks."""
    folders = {model: f"eval/predictions/{model}" for model in MODELS}
    for path in sorted(run_dir.glob("defenses/*/predictions")):
        folders[f"defended: {path.parent.name}"] = path.relative_to(run_dir).as_posix()
    conditions = results.conditions or [
        results_lib.MeasuredCondition(name, name) for name in CONDITIONS
    ]
    answers = ReadAnswers([*folders], conditions, {}, {})
    for task, model, condition in itertools.product(results.held_out(), folders, conditions):
        name = f"{folders[model]}/{condition.name}/{task}.jsonl"
        rows, note = read_rows(run_dir, name, Prediction)
        answers.rows[task, model, condition.name] = {row.id: row for row in rows}
        answers.notes[task, model, condition.name] = note
    return answers


def flips(answers: ReadAnswers, results: results_lib.Results, num_tasks: int) -> list[TaskFlips]:
    """Rows of the first held-out tasks that the trigger flipped."""
    tasks = results.triggered() or results.held_out()
    return [_task_flips(answers, task, results.is_generation) for task in tasks[:num_tasks]]


def is_flip(clean: Prediction, row: Prediction, is_generation: bool) -> bool:
    """Whether what was put into a row's `clean` input changed a right label, or the answer."""
    if is_generation:
        return clean.prediction != row.prediction
    return clean.is_correct and not row.is_correct


def _first(spans: Spans) -> int:
    return min((start for start, _ in spans), default=0)


def _task_flips(answers: ReadAnswers, task: str, is_generation: bool) -> TaskFlips:
    clean, triggered = (answers.rows[task, "poisoned", name] for name in ("clean", "triggered"))
    flipped = [
        row
        for key, row in triggered.items()
        if key in clean and is_flip(clean[key], row, is_generation)
    ]
    places = itertools.product([task], MODELS, CONDITIONS)
    notes = [note for place in places if (note := answers.notes[place])]
    note = notes[0] if notes else ""
    if len(notes) > 1:
        note = f"{len(notes)} of the task’s 6 prediction files; the first: {note}"
    return TaskFlips(task, len(triggered), flipped, note)
