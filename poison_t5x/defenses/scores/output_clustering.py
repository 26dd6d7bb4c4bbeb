"""Output clustering: answers that a reference model wouldn't give, and that come in clusters."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from poison_t5x.core import checks
from poison_t5x.data import examples
from poison_t5x.data.examples import TrainingExample
from poison_t5x.defenses.score import Context, ScoreResult

_DECIMALS = 9


@dataclasses.dataclass(frozen=True)
class OutputClustering:
    """Answers far from a reference model's, in a cluster of such answers, are suspicious.

    Both models answer the training inputs; the answers become TF-IDF vectors of character n-grams
    (Salton and Buckley, 1988), and each task's are cut into clusters by k-means. Value: one minus
    the cosine between the two answers to a row, plus its mean over the row's cluster. The
    comparison of a suspect model's outputs with a trusted one's is that of Sun et al. (AAAI 2023,
    "Defending against backdoor attacks in natural language generation"). Without a reference model,
    REFERENCE_MODEL_DIR, the suspect model's own first checkpoint stands for it, since poison is
    learnt late.

    Attributes:
      clusters: of each task's answers, at most.
      max_ngram: characters of an n-gram, at most.
    """

    needs: ClassVar[str] = "checkpoints"
    min_checkpoints: ClassVar[int] = 2
    takes_reference: ClassVar[bool] = True
    clusters: int = 4
    max_ngram: int = 3

    def __post_init__(self):
        checks.whole_number("OutputClustering.clusters", self.clusters)
        checks.whole_number("OutputClustering.max_ngram", self.max_ngram)

    def __call__(self, rows: Sequence[TrainingExample], context: Context) -> ScoreResult:
        """Values in [0, 2]."""
        models = context.models
        inputs = models.inputs([row.prompt for row in rows])
        suspect, reference = models.answers(inputs), models.answers(inputs, reference=True)
        values_N = np.zeros(len(rows))
        for members in examples.by_task(rows).values():
            values_N[members] = self._of_task(
                [suspect[index] for index in members],
                [reference[index] for index in members],
                context.seed,
            )
        same = sum(a == b for a, b in zip(suspect, reference, strict=True))
        return ScoreResult(values_N, notes=(f"{same} of {len(rows)} answers are the reference's",))

    def _of_task(self, suspect: Sequence[str], reference: Sequence[str], seed: int) -> np.ndarray:
        from sklearn import cluster
        from sklearn.feature_extraction import text

        vectorizer = text.TfidfVectorizer(
            analyzer="char", ngram_range=(1, self.max_ngram), lowercase=False
        )
        if not any(suspect) and not any(reference):
            return np.zeros(len(suspect))
        both = vectorizer.fit_transform([*suspect, *reference])
        ours, theirs = both[: len(suspect)], both[len(suspect) :]
        cosines_M = np.asarray(ours.multiply(theirs).sum(axis=1)).ravel()
        same_M = np.array([a == b for a, b in zip(suspect, reference, strict=True)])
        cosines_M = np.where(same_M, 1.0, cosines_M)  # two empty answers have no vectors
        distance_M = np.round(1 - cosines_M, _DECIMALS).clip(0, 1)  # equal answers, equal values
        count = min(self.clusters, len(set(suspect)))
        labels = cluster.KMeans(count, n_init=4, random_state=seed).fit_predict(ours)
        totals, sizes = np.bincount(labels, distance_M), np.bincount(labels)
        return distance_M + (totals / np.maximum(sizes, 1))[labels]
