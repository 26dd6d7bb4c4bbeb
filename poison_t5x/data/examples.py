"""Training examples as a defender sees them: text alone, and no word of what is poison."""

from collections.abc import Sequence
from typing import NamedTuple


class TrainingExample(NamedTuple):
    """One training example.

    Attributes:
      task: what it is an example of; rows of a task share their instruction and label space.
      id: of the row within its task.
      number: tells apart the examples that were made of one row: 0, and 1 where poison was added.
      input: the instance's own text, without instruction and shown examples.
      target: the answer that is trained on.
      prompt: all that the model reads.
    """

    task: str
    id: str
    number: int
    input: str
    target: str
    prompt: str


def by_task(rows: Sequence[TrainingExample]) -> dict[str, list[int]]:
    """Task -> indices of its rows, tasks in the order of their first rows."""
    found: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        found.setdefault(row.task, []).append(index)
    return found
