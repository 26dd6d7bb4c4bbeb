"""ONION: words without which a text is more fluent."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from poison_t5x.core import checks
from poison_t5x.data.examples import TrainingExample
from poison_t5x.defenses import language_model, ngrams
from poison_t5x.defenses.score import Context, ScoreResult


@dataclasses.dataclass(frozen=True)
class Onion:
    """How much leaving out one word lowers a text's perplexity (Qi et al., EMNLP 2021, "ONION").

    ONION takes GPT-2, which read none of the data, and removes words from inputs at test time. Here
    the language model is a word trigram model made of the data itself, cross-fitted, so that what
    recurs in the data is fluent to it, and rows of training data are scored. A row's value is its
    largest drop, in units of perplexity; a row of fewer than two words has 0.

    Attributes:
      num_folds: of the cross-fitting.
    """

    num_folds: int = 5

    needs: ClassVar[str] = "nothing"

    def __post_init__(self):
        checks.whole_number("Onion.num_folds", self.num_folds, minimum=2)

    def __call__(self, rows: Sequence[TrainingExample], context: Context) -> ScoreResult:
        """Scores the rows."""
        found = ngrams.words([row.input for row in rows])
        texts = np.split(found.ids_T, np.cumsum(found.counts())[:-1])
        folds = np.random.default_rng(context.seed).permutation(len(rows)) % self.num_folds
        values = np.zeros(len(rows))
        for fold in range(self.num_folds):
            rest = np.flatnonzero(folds != fold)
            model = language_model.TrigramModel([texts[row] for row in rest])
            for row in np.flatnonzero(folds == fold):
                values[row] = max(0.0, drops(model, texts[row]).max(initial=0.0))
        return ScoreResult(values)


def drops(model: language_model.TrigramModel, words: np.ndarray) -> np.ndarray:
    """By how much each word's removal lowers the perplexity of a text.

    Only the n-grams around a word change with it: three are gone, two are new.

    Args:
      model: the language model.
      words: (T,) ids of the text's words, as given to the model's texts.

    Returns:
      (T,) float64; empty for fewer than two words.
    """
    size = len(words)
    if size < 2:
        return np.zeros(0)
    edge = np.full(2, language_model.BOUNDARY)
    padded = np.concatenate([edge, model.encode(words), edge])
    # Position i of the text is i + 2 of the padded one; the text's end counts as a word.
    whole_G = model.log_probabilities(np.stack([padded[:-3], padded[1:-2], padded[2:-1]], axis=1))
    first, second = padded[:size], padded[1 : size + 1]
    after, next_after = padded[3 : size + 3], padded[4 : size + 4]
    near_T = model.log_probabilities(np.stack([first, second, after], axis=1))
    far_T = model.log_probabilities(np.stack([second, after, next_after], axis=1))
    # Of the last word, what comes after it is the end, and nothing comes after that.
    far_T[-1] = 0.0
    ends_G = np.append(whole_G, 0.0)
    gone_T = ends_G[:size] + ends_G[1 : size + 1] + ends_G[2 : size + 2]
    total = whole_G.sum()
    without_T = total - gone_T + near_T + far_T
    return np.exp(-total / (size + 1)) - np.exp(-without_T / size)
