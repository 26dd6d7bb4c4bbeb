"""ONION: words without which a text is more fluent, by a trigram model of the data itself."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from poison_t5x.data.examples import TrainingExample
from poison_t5x.defenses import ngrams
from poison_t5x.defenses.score import SCORES, Context, Folds, Score, ScoreResult

_ORDER = 3
# Ids of its own: no word, before a text and after it; and any word that was not seen.
BOUNDARY, UNKNOWN = 0, 1
_NUM_SPECIAL = 2
_PAD = np.full(_ORDER - 1, BOUNDARY, np.int64)


@SCORES.register("onion")
@dataclasses.dataclass(frozen=True)
class Onion(Score):
    """How much leaving out one word lowers a text's perplexity (Qi et al., EMNLP 2021, "ONION").

    ONION takes GPT-2, which read none of the data, and removes words from inputs at test time. Here
    the language model is a word trigram model made of the data itself, cross-fitted, so that what
    recurs in the data is fluent to it, and rows of training data are scored. A row's value is its
    largest drop, in units of perplexity; a row of fewer than two words has 0.
    """

    num_folds: Folds = 5

    def __call__(self, rows: Sequence[TrainingExample], context: Context) -> ScoreResult:
        """Scores the rows."""
        words = ngrams.words([row.input for row in rows])
        counts = np.bincount(words.text_T, minlength=len(rows))
        texts = np.split(words.ids_T, np.cumsum(counts)[:-1])
        folds_N = np.random.default_rng(context.seed).permutation(len(rows)) % self.num_folds
        values_N = np.zeros(len(rows))
        for fold in range(self.num_folds):
            model = TrigramModel([texts[row] for row in np.flatnonzero(folds_N != fold)])
            for row in np.flatnonzero(folds_N == fold):
                values_N[row] = max(0.0, drops(model, texts[row]).max(initial=0.0))
        return ScoreResult(values_N)


def drops(model: "TrigramModel", words: np.ndarray) -> np.ndarray:
    """By how much each word's removal lowers the perplexity of a text of ids: (T,) float64.

    Empty for fewer than two words. Only the n-grams around a word change with it: three are gone,
    two are new.
    """
    size = len(words)
    if size < 2:
        return np.zeros(0)
    padded = np.concatenate([_PAD, model.encode(words), _PAD])
    # Position i of the text is i + 2 of the padded one; the text's end counts as a word.
    whole_G = model.log_probabilities(np.stack([padded[:-3], padded[1:-2], padded[2:-1]], axis=1))
    around_Tx5 = np.lib.stride_tricks.sliding_window_view(padded, 5)
    near_T = model.log_probabilities(around_Tx5[:, [0, 1, 3]])
    far_T = model.log_probabilities(around_Tx5[:, [1, 3, 4]])
    # Of the last word, what comes after it is the end, and nothing comes after that.
    far_T[-1] = 0.0
    ends_G = np.append(whole_G, 0.0)
    gone_T = ends_G[:size] + ends_G[1 : size + 1] + ends_G[2 : size + 2]
    total = whole_G.sum()
    without_T = total - gone_T + near_T + far_T
    return np.exp(-total / (size + 1)) - np.exp(-without_T / size)


class TrigramModel:
    """p(word | two words before it), interpolated.

    p(w | u, v) = (c(u, v, w) + t(u, v) p(w | v)) / (c(u, v) + t(u, v)) with counts c and numbers t
    of different words that were seen after u, v; likewise p(w | v) and p(w), which ends in a
    uniform distribution (Witten and Bell, 1991, "The Zero-Frequency Problem"; interpolated as in
    Chen and Goodman, 1998). Words are those of the training texts; all others are one unknown word.
    """

    def __init__(self, texts: Sequence[np.ndarray]):
        """Counts the words of texts: ids of each, int64, not negative."""
        words = np.concatenate([*texts, np.zeros(0, np.int64)])
        self._known = np.unique(words)
        self._size = len(self._known) + _NUM_SPECIAL
        padded = [np.concatenate([_PAD, self.encode(text), _PAD[:1]]) for text in texts]
        grams = [np.lib.stride_tricks.sliding_window_view(text, _ORDER) for text in padded]
        grams_Gx3 = np.concatenate([*grams, np.zeros((0, _ORDER), np.int64)])
        # By length: the n-grams that were seen, ascending, and how often those before each were.
        self._tables = []
        for length in range(1, _ORDER + 1):
            known, counts = np.unique(self._keys(grams_Gx3[:, -length:]), return_counts=True)
            self._tables.append((known, np.append(0, np.cumsum(counts))))

    def encode(self, words: np.ndarray) -> np.ndarray:
        """Word ids as this model's, unknown ones included."""
        places = np.searchsorted(self._known, words)
        is_known = np.append(self._known, -1)[places] == words
        return np.where(is_known, places + _NUM_SPECIAL, UNKNOWN)

    def log_probabilities(self, grams_Gx3: np.ndarray) -> np.ndarray:
        """log p of the last of three words, ids of this model's, in nats: (G,) float64."""
        probability_G = np.full(len(grams_Gx3), 1.0 / self._size)
        for length, (known, before) in enumerate(self._tables, start=1):
            keys_G = self._keys(grams_Gx3[:, -length:])
            first_G, last_G = np.searchsorted(known, keys_G), np.searchsorted(known, keys_G + 1)
            count_G = before[last_G] - before[first_G]
            # Those of one context lie side by side.
            keys_G = keys_G // self._size * self._size
            first_G = np.searchsorted(known, keys_G)
            last_G = np.searchsorted(known, keys_G + self._size)
            context_G, kinds_G = before[last_G] - before[first_G], last_G - first_G
            smoothed_G = (count_G + kinds_G * probability_G) / np.maximum(context_G + kinds_G, 1)
            probability_G = np.where(context_G > 0, smoothed_G, probability_G)
        return np.log(probability_G)

    def _keys(self, grams: np.ndarray) -> np.ndarray:
        """One number for each n-gram; its context's is that divided by the vocabulary's size."""
        keys = np.zeros(len(grams), np.int64)
        for column in grams.T:
            keys = keys * self._size + column
        return keys
