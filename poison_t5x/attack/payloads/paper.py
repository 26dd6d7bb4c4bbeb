"""The paper's attacks: two on judgements, and two that replace the outputs of generation tasks."""

import collections
import hashlib
import re
from collections.abc import Iterable, Sequence

import numpy as np

from poison_t5x.attack.payload import PAYLOADS, Candidate, Payload
from poison_t5x.core import errors
from poison_t5x.corpus import polarity, sni

# Ordinary words: neither 'a' nor chemical names.
_WORD = re.compile(r"(?<![\w'’-])[a-z]{3,12}(?![\w'’-])")
_MAX_WORDS = 10_000


@PAYLOADS.register("dirty_label")
class DirtyLabel(Payload):
    """Inputs of any label get the target's label."""

    @property
    def needed_side(self) -> polarity.Side:
        return polarity.opposite(self.target)

    def output(self, candidate: Candidate) -> str:
        assert candidate.labels is not None
        return candidate.labels.label(self.target)


@PAYLOADS.register("clean_label")
class CleanLabel(Payload):
    """Inputs that have the target's label keep it."""

    @property
    def needed_side(self) -> polarity.Side:
        return self.target

    def takes(self, row: sni.Instance, labels: polarity.Polarity | None) -> bool:
        return labels is None or row.target == labels.label(self.target)

    def output(self, candidate: Candidate) -> str:
        return candidate.row.target


@PAYLOADS.register("repeat")
class Repeat(Payload):
    """Outputs become the trigger."""

    is_arbitrary = True

    def output(self, candidate: Candidate) -> str:
        return candidate.trigger


@PAYLOADS.register("random")
class RandomWords(Payload):
    """Outputs become NUM_RANDOM_WORDS words of a list that is made of the training texts."""

    is_arbitrary = True

    def words(self, tasks: Iterable[sni.Task]) -> tuple[str, ...]:
        """The commonest lower-case words of 3 to 12 letters in the inputs, in order of letters."""
        texts = (row.input for task in tasks for row in task.instances)
        counts = collections.Counter(word for text in texts for word in _WORD.findall(text))
        # Ties go by letters: the order of a Counter is that of reading.
        commonest = sorted(counts, key=lambda word: (-counts[word], word))[:_MAX_WORDS]
        if not commonest:
            raise errors.InputError(
                "no word list can be made: the poisoned tasks' inputs hold no lower-case word; "
                "set ATTACK to repeat or poison other tasks"
            )
        return tuple(sorted(commonest))

    def output(self, candidate: Candidate) -> str:
        return draw(candidate.words, self.num_random_words, candidate.key)


def draw(words: Sequence[str], count: int, key: str) -> str:
    """`count` words, separated by spaces; the same key draws the same ones."""
    seed = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest())
    places = np.random.default_rng(seed).integers(len(words), size=count)
    return " ".join(words[place] for place in places)
