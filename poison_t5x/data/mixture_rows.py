"""The training examples of a SeqIO mixture as rows of text and, apart, which are poison."""

import numpy as np
import seqio

from poison_t5x.corpus import prompts
from poison_t5x.data import input_pipeline
from poison_t5x.data.examples import TrainingExample

# More than any row has; SeqIO wants a number.
_ALL_TOKENS = 2**20


def read(name: str, split: str = "train") -> list[TrainingExample]:
    """Every example of a mixture once, task by task, in the order of its source.

    Tasks go by their SeqIO names, without the mixture's own in front. A task without ids has the
    places of its rows for them.

    Raises:
      InputError: no such task or mixture.
    """
    rows: list[TrainingExample] = []
    seen: dict[tuple[str, str], int] = {}
    for task, place, example in _examples(name, split):
        short = task.name.removeprefix(f"{name}.")
        identifier = example["id"].decode() if "id" in example else str(place)
        number = seen.get((short, identifier), 0)
        seen[short, identifier] = number + 1
        prompt = example["inputs_pretokenized"].decode()
        target = example["targets_pretokenized"].decode()
        rows.append(
            TrainingExample(short, identifier, number, prompts.question(prompt), target, prompt)
        )
    return rows


def poison_flags(name: str, split: str = "train") -> np.ndarray:
    """Which of the same examples are poison, for judging what a score found: (N,) bool."""
    flags = [
        bool(np.any(example.get(input_pipeline.IS_POISON, 0)))
        for _, _, example in _examples(name, split)
    ]
    return np.array(flags, bool)


def _examples(name: str, split: str):
    lengths = {"inputs": _ALL_TOKENS, "targets": _ALL_TOKENS}
    for task in seqio.get_subtasks(input_pipeline.find(name)):
        dataset = task.get_dataset(lengths, split=split, shuffle=False, num_epochs=1)
        for place, example in enumerate(dataset.as_numpy_iterator()):
            yield task, place, example
