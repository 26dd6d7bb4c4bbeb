"""A word trigram model with Witten-Bell smoothing, small and fast enough to be made of the data."""

from collections.abc import Sequence

import numpy as np

_ORDER = 3
# Ids of its own: no word, before a text and after it; and any word that was not seen.
BOUNDARY, UNKNOWN = 0, 1
_NUM_SPECIAL = 2


class TrigramModel:
    """p(word | two words before it), interpolated.

    p(w | u, v) = (c(u, v, w) + t(u, v) p(w | v)) / (c(u, v) + t(u, v)) with counts c and numbers t
    of different words that were seen after u, v; likewise p(w | v) and p(w), which ends in a
    uniform distribution (Witten and Bell, 1991, "The Zero-Frequency Problem"; interpolated as in
    Chen and Goodman, 1998). Words are those of the training texts; all others are one unknown word.
    """

    def __init__(self, texts: Sequence[np.ndarray]):
        """Counts.

        Args:
          texts: word ids of each text, int64, not negative.
        """
        words = np.concatenate([*texts, np.zeros(0, np.int64)])
        self._known = np.unique(words)
        self._size = len(self._known) + _NUM_SPECIAL
        padded = [np.concatenate([_PAD, self.encode(text), _PAD[:1]]) for text in texts]
        grams = [np.lib.stride_tricks.sliding_window_view(text, _ORDER) for text in padded]
        grams_Gx3 = np.concatenate([*grams, np.zeros((0, _ORDER), np.int64)])
        # By length, of an n-gram that ends in the same word.
        self._tables = [
            _Table(self._keys(grams_Gx3[:, _ORDER - length :]), self._size)
            for length in range(1, _ORDER + 1)
        ]

    def encode(self, words: np.ndarray) -> np.ndarray:
        """Word ids as this model's, unknown ones included."""
        places = np.searchsorted(self._known, words)
        places = np.minimum(places, max(0, len(self._known) - 1))
        known = self._known[places] == words if len(self._known) else np.zeros(len(words), bool)
        return np.where(known, places + _NUM_SPECIAL, UNKNOWN)

    def log_probabilities(self, grams_Gx3: np.ndarray) -> np.ndarray:
        """log p of the last of three words after the first two, in nats: (G,) float64.

        Args:
          grams_Gx3: this model's word ids.
        """
        probability_G = np.full(len(grams_Gx3), 1.0 / self._size)
        for length, table in enumerate(self._tables, start=1):
            keys_G = self._keys(grams_Gx3[:, _ORDER - length :])
            count_G, context_G, kinds_G = table.look_up(keys_G)
            seen_G = context_G > 0
            smoothed_G = (count_G + kinds_G * probability_G) / np.maximum(context_G + kinds_G, 1)
            probability_G = np.where(seen_G, smoothed_G, probability_G)
        return np.log(probability_G)

    def _keys(self, grams: np.ndarray) -> np.ndarray:
        """One number for each n-gram; its context's is that divided by the vocabulary's size."""
        keys = np.zeros(len(grams), np.int64)
        for column in grams.T:
            keys = keys * self._size + column
        return keys


_PAD = np.full(_ORDER - 1, BOUNDARY, np.int64)


class _Table:
    """Counts of n-grams of one length, and of their contexts."""

    def __init__(self, keys: np.ndarray, size: int):
        self._size = size
        self._keys, self._counts = np.unique(keys, return_counts=True)
        self._contexts, starts = np.unique(self._keys // size, return_index=True)
        ends = np.append(starts[1:], len(self._keys))
        totals = np.append(0, np.cumsum(self._counts))
        self._totals, self._kinds = totals[ends] - totals[starts], ends - starts

    def look_up(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each n-gram its count, its context's count, and how many words follow that."""
        contexts = keys // self._size
        return (
            _find(self._keys, self._counts, keys),
            _find(self._contexts, self._totals, contexts),
            _find(self._contexts, self._kinds, contexts),
        )


def _find(known: np.ndarray, values: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """The values of sorted keys, 0 for unknown ones."""
    if not len(known):
        return np.zeros(len(keys))
    places = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[places] == keys, values[places], 0).astype(float)
