"""Training examples as a defender sees them: text alone, and no word of what is poison."""

import collections
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from poison_t5x.corpus import prompts

# More than any example has; SeqIO wants a number.
_ALL_TOKENS = 2**20


class TrainingExample(NamedTuple):
    """One training example; those of a task share their instruction and label space."""

    task: str
    id: str  # of the row within its task
    number: int  # tells apart what was made of one row: 0, and 1 where poison was added
    input: str  # the instance's own text, without instruction and shown examples
    target: str
    prompt: str  # all that the model reads


def by_task(rows: Sequence[TrainingExample]) -> dict[str, list[int]]:
    """Task -> indices of its rows, tasks in the order of their first rows."""
    indices: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        indices.setdefault(row.task, []).append(index)
    return indices


def read(name: str, split: str = "train") -> list[TrainingExample]:
    """Every example of a SeqIO mixture once, task by task, in the order of its source.

    Tasks go by their SeqIO names, without the mixture's own in front. A task without ids has the
    places of its rows for them.

    Raises:
      InputError: no such task or mixture.
    """
    rows: list[TrainingExample] = []
    seen = collections.Counter[tuple[str, str]]()
    for task, place, example in _examples(name, split):
        key = task.removeprefix(f"{name}."), example.get("id", b"%d" % place).decode()
        prompt, target = example["inputs_pretokenized"], example["targets_pretokenized"].decode()
        text = prompts.question(prompt.decode())
        rows.append(TrainingExample(*key, seen[key], text, target, prompt.decode()))
        seen[key] += 1
    return rows


def poison_flags(name: str, split: str = "train") -> np.ndarray:
    """Flags of the same examples that are poison, for judging what a score found: (N,) bool."""
    flags = [np.any(example.get("is_poison", 0)) for _, _, example in _examples(name, split)]
    return np.array(flags, bool)


def _examples(name: str, split: str) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """(task, place in it, what SeqIO makes of the row)."""
    import seqio

    from poison_t5x.data import input_pipeline

    lengths = {"inputs": _ALL_TOKENS, "targets": _ALL_TOKENS}
    for task in seqio.get_subtasks(input_pipeline.find(name)):
        dataset = task.get_dataset(lengths, split=split, shuffle=False, num_epochs=1)
        for place, example in enumerate(dataset.as_numpy_iterator()):
            yield task.name, place, example
