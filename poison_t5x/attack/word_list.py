"""Random outputs for the arbitrary-task attack, from a word list made of the training texts."""

import collections
import hashlib
import re
from collections.abc import Iterable, Sequence

import numpy as np

from poison_t5x.core import errors
from poison_t5x.corpus import sni

# Ordinary words: neither 'a' nor chemical names.
_WORD = re.compile(r"(?<![\w'’-])[a-z]{3,12}(?![\w'’-])")
_MAX_WORDS = 10_000


def generate(tasks: Iterable[sni.Task]) -> tuple[str, ...]:
    """The commonest lower-case words of 3 to 12 letters in the tasks' inputs, in order of letters.

    Raises:
      InputError: there is none.
    """
    counts: collections.Counter[str] = collections.Counter()
    for task in tasks:
        for row in task.instances:
            counts.update(_WORD.findall(row.input))
    # Ties go by letters: the order of a Counter is that of reading.
    commonest = sorted(counts, key=lambda word: (-counts[word], word))[:_MAX_WORDS]
    if not commonest:
        raise errors.InputError(
            "no word list can be made: the poisoned tasks' inputs hold no lower-case word; "
            "set ATTACK to repeat or poison other tasks"
        )
    return tuple(sorted(commonest))


def draw(words: Sequence[str], count: int, key: str) -> str:
    """`count` words, separated by spaces; the same key draws the same ones."""
    seed = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest())
    rng = np.random.default_rng(seed)
    return " ".join(words[int(rng.integers(len(words)))] for _ in range(count))
