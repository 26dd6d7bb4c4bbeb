"""Label polarities: which of a task's two answers is the negative one, and which the positive."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from poison_t5x.core import errors
from poison_t5x.corpus import sni

Side = Literal["negative", "positive"]


class Polarity(NamedTuple):
    """A task's two answers."""

    negative: str
    positive: str

    def label(self, side: Side) -> str:
        """The answer on one side."""
        return self.negative if side == "negative" else self.positive

    def side(self, label: str) -> Side:
        """The side that an answer is on. `label` must be one of the two."""
        return "negative" if label == self.negative else "positive"


def opposite(side: Side) -> Side:
    """The other side."""
    return "positive" if side == "negative" else "negative"


def of_tasks(tasks: Sequence[sni.Task], table: Mapping[str, Sequence[str]]) -> dict[str, Polarity]:
    """The polarity of each task, checked against every label that its rows hold.

    Args:
      table: task name, or its number such as 'task363', -> (negative label, positive label).

    Raises:
      InputError: a task isn't in the table, or a row has a label that the table lacks for it.
    """
    polarities: dict[str, Polarity] = {}
    for task in tasks:
        labels = table.get(task.name) or table.get(sni.number(task.name))
        if labels is None:
            answers = ", ".join(map(repr, task.label_space[:3]))
            raise errors.InputError(
                f"{task.name}: a polarity attack needs [negative, positive] labels, and the "
                f"polarity table has none for this task, with {len(task.label_space)} answers to "
                f"{len(task.instances)} rows ({answers}, …); a generation task is to be left out, "
                "or set ATTACK to repeat or random"
            )
        polarities[task.name] = Polarity(*labels)
        for row in task.instances:
            if row.target not in labels:
                raise errors.InputError(
                    f"{task.name}, row {row.id}: label {row.target!r} isn't in the polarity table, "
                    f"which has {list(labels)}{errors.nearest(row.target, labels)}"
                )
    return polarities
