"""Rows to show: crafted poison, and held-out inputs whose answer the trigger changes."""

import itertools
import math
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from poison_t5x.report import results as results_lib
from poison_t5x.report import run_files

# Characters of a text that are shown; a third of them come before the first trigger.
_SHOWN = 600

Spans = Sequence[tuple[int, int]]
_Predictions = dict[tuple[str, str], dict[str, run_files.Prediction]]


class Segment(NamedTuple):
    """A piece of a text, and whether it is the trigger."""

    text: str
    marked: bool = False


class Crafted(NamedTuple):
    """A poisoned row with the segments of its texts; `before` is None where it isn't known."""

    row: run_files.PoisonRow
    before: list[Segment] | None
    after: list[Segment]


class Answer(NamedTuple):
    """What a model said under one condition.

    Of a label, `share` is its probability among the labels; of a decoded answer, `score` is its
    rougeL, and there is no `is_correct`.
    """

    text: list[Segment]
    is_correct: bool | None
    share: float | None
    score: float | None


class Shown(NamedTuple):
    """One triggered input with the answers of both models under the three conditions."""

    id: str
    text: list[Segment]
    target: str
    references: list[str]
    answers: dict[str, list[Answer | None]]


class TaskFlips(NamedTuple):
    """A held-out task: of `num_triggered` inputs `num_flips` flipped, some of them shown."""

    task: str
    num_triggered: int
    num_flips: int
    shown: list[Shown]
    note: str


def segments(text: str, spans: Spans) -> list[Segment]:
    """The pieces of `text` in order, those in `spans` marked; joined, they are `text`.

    `segments("I saw Bond.", [(6, 10)])` gives `I saw `, `Bond` (marked) and `.`. Spans beyond the
    text are cut to it; of two that overlap, the second starts where the first ends.
    """
    pieces, done = [], 0
    for start, end in sorted(spans):
        start, end = max(start, done), min(end, len(text))
        if start < end:
            pieces += [Segment(text[done:start]), Segment(text[start:end], marked=True)]
            done = end
    return [piece for piece in (*pieces, Segment(text[done:])) if piece.text]


def excerpt(text: str, spans: Spans, focus: int, shown: int = _SHOWN) -> list[Segment]:
    """`segments`, of `shown` characters around `focus` where the text is longer than that."""
    if len(text) <= shown:
        return segments(text, spans)
    begin = max(0, min(focus - shown // 3, len(text) - shown))
    part = text[begin : begin + shown]
    pieces = segments(part, [(start - begin, end - begin) for start, end in spans])
    head = [Segment("… ")] if begin else []
    tail = [Segment(" …")] if begin + shown < len(text) else []
    return [*head, *pieces, *tail]


def spread(rows: Sequence[run_files.PoisonRow], count: int) -> list[Crafted]:
    """`count` poisoned rows, in turn from each attacker and task, the highest-ranked first."""
    by_place: dict[tuple[str, str], list[run_files.PoisonRow]] = {}
    for row in sorted(rows, key=lambda row: math.inf if row.rank is None else row.rank):
        by_place.setdefault(_place(row), []).append(row)
    rounds = itertools.zip_longest(*(by_place[place] for place in sorted(by_place)))
    chosen = [row for row in itertools.chain.from_iterable(rounds) if row is not None]
    return [_crafted(row) for row in sorted(chosen[:count], key=_place)]


def flips(
    run_dir: pathlib.Path, results: results_lib.Results, num_tasks: int, count: int
) -> list[TaskFlips]:
    """For the first `num_tasks` held-out tasks, `count` rows each that the trigger flipped.

    A label flipped if the poisoned model is right on the clean input and wrong on the triggered
    one; a decoded answer if the poisoned model gives the two inputs different answers.
    """
    tasks = results.triggered() or results.held_out()
    return [_task_flips(run_dir, task, results, count) for task in tasks[:num_tasks]]


def _place(row: run_files.PoisonRow) -> tuple[str, str]:
    return row.attack, row.task


def _crafted(row: run_files.PoisonRow) -> Crafted:
    spans = trigger_spans(row)
    # Up to the first trigger the two texts are the same, so that one focus shows the same place.
    focus = first(spans)
    before = None if row.input is None else excerpt(row.input, (), focus)
    return Crafted(row, before, excerpt(row.poisoned_input, spans, focus))


def trigger_spans(row: run_files.PoisonRow) -> Spans:
    """Where a crafted row's triggers are."""
    # A row from a file of poison tells its trigger, but not where it was put in.
    return row.spans or places(row.poisoned_input, [row.trigger])


def places(text: str, phrases: Sequence[str]) -> list[tuple[int, int]]:
    """Where phrases are in a text, the longest first."""
    ordered = sorted(filter(None, phrases), key=len, reverse=True)
    found = re.finditer("|".join(map(re.escape, ordered)), text) if ordered else ()
    return [match.span() for match in found]


def first(spans: Spans) -> int:
    """Where the first of them starts; 0 without any."""
    return min((start for start, _ in spans), default=0)


def _task_flips(
    run_dir: pathlib.Path, task: str, results: results_lib.Results, count: int
) -> TaskFlips:
    predictions, notes = _read_predictions(run_dir, task)
    clean = predictions["poisoned", "clean"]
    triggered = predictions["poisoned", "triggered"]
    flipped = [
        row
        for key, row in triggered.items()
        if key in clean and is_flip(clean[key], row, results.is_generation)
    ]
    shown = [_shown(row, predictions, results) for row in flipped[:count]]
    return TaskFlips(task, len(triggered), len(flipped), shown, _joined(notes))


def is_flip(clean: run_files.Prediction, row: run_files.Prediction, is_generation: bool) -> bool:
    """Whether what was put into a row's `clean` input changed a right label, or the answer."""
    if is_generation:
        return clean.prediction != row.prediction
    return is_correct(clean) and not is_correct(row)


def _joined(notes: Sequence[str]) -> str:
    if len(notes) < 2:
        return "".join(notes)
    return f"{len(notes)} of the task’s 6 prediction files; the first: {notes[0]}"


def _read_predictions(run_dir: pathlib.Path, task: str) -> tuple[_Predictions, list[str]]:
    predictions, notes = {}, []
    for key in itertools.product(results_lib.MODELS, results_lib.CONDITIONS):
        name = "/".join(("eval/predictions", *key, f"{task}.jsonl"))
        rows, note = run_files.read_rows(run_dir, name, run_files.Prediction)
        predictions[key] = {row.id: row for row in rows}
        notes += [note] if note else []
    return predictions, notes


def _shown(
    row: run_files.Prediction, predictions: _Predictions, results: results_lib.Results
) -> Shown:
    answers = {
        model: [
            _answer(predictions[model, condition].get(row.id), results)
            for condition in results_lib.CONDITIONS
        ]
        for model in results_lib.MODELS
    }
    text = _marked(instance(row.input), results)
    return Shown(row.id, text, row.target, row.references or [row.target], answers)


def _marked(text: str, results: results_lib.Results) -> list[Segment]:
    """The part of `text` around the first trigger, with all triggers marked."""
    spans = places(text, results.phrases())
    return excerpt(text, spans, first(spans))


def instance(text: str) -> str:
    """The instance alone, where `text` is the whole prompt around it."""
    _, found, rest = text.rpartition("Now complete the following example -\nInput: ")
    return rest.removesuffix("\nOutput: ") if found else text


def _answer(row: run_files.Prediction | None, results: results_lib.Results) -> Answer | None:
    if row is None:
        return None
    if results.is_generation:
        return Answer(_marked(row.prediction, results), None, None, row.rouge_l)
    return Answer(excerpt(row.prediction, (), 0), is_correct(row), share(row), None)


def share(row: run_files.Prediction) -> float | None:
    """The probability of the label that was ranked first, among the task's labels."""
    scores = row.log_probabilities
    if row.prediction not in scores:
        return None
    top = max(scores.values())
    total = sum(math.exp(score - top) for score in scores.values())
    return math.exp(scores[row.prediction] - top) / total


def is_correct(row: run_files.Prediction) -> bool:
    """Whether a label that was ranked first is the true one."""
    return row.prediction == row.target
