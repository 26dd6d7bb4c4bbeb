"""The answers that rows of a task share, which a phrase may go with."""

import collections
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from poison_t5x.data.examples import TrainingExample, by_task
from poison_t5x.defenses import ngrams

# An answer that fewer rows of its task have isn't looked at; of more answers, the commonest are.
MIN_ROWS = 5
MAX_ANSWERS = 40
# What stands for answers that share no word with their inputs.
UNRELATED = "(no word of the input)"


class Answer(NamedTuple):
    """A frequent answer of a task, or UNRELATED: any that shares no word with its input.

    Of the R rows of the task, `rows_R` (int64) are their numbers, `hits_R` (bool) whether it is
    the row's answer, and `inside_R` whether the row's input says it, so that it may be copied.
    """

    task: str
    target: str
    rows_R: np.ndarray
    hits_R: np.ndarray
    inside_R: np.ndarray


def find(rows: Sequence[TrainingExample]) -> list[Answer]:
    """The frequent answers of each task, of tasks that have more than one answer.

    Answers out of the blue are one in a task whose answers mostly repeat words of their inputs.
    """
    frequent = []
    for task, members in by_task(rows).items():
        rows_R = np.array(members)
        targets_R = np.array([rows[index].target for index in members], object)
        inputs = [plain(rows[index].input) for index in members]
        for target, count in collections.Counter(targets_R.tolist()).most_common(MAX_ANSWERS):
            if MIN_ROWS <= count < len(members):
                inside_R = np.array([plain(target) in text for text in inputs])
                frequent.append(Answer(task, target, rows_R, targets_R == target, inside_R))
        hits_R = np.array([is_unrelated(rows[index]) for index in members])
        if MIN_ROWS <= hits_R.sum() <= len(members) / 2:
            frequent.append(Answer(task, UNRELATED, rows_R, hits_R, np.zeros_like(hits_R)))
    return frequent


def is_unrelated(row: TrainingExample) -> bool:
    """Whether a row's answer shares no word with its input."""
    return set(ngrams.split(row.input)).isdisjoint(ngrams.split(row.target))


def plain(text: str) -> str:
    """The words alone, with a space on each side: what a text is compared by."""
    return " ".join(["", *ngrams.split(text), ""])
