"""Scores of a model's answers: under mixing (STRIP), and beside a reference model's."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from poison_t5x.core import settings
from poison_t5x.corpus import prompts as prompts_lib
from poison_t5x.data.examples import TrainingExample, by_task
from poison_t5x.defenses.score import SCORES, Context, Score, ScoreResult
from poison_t5x.model import per_example

_DECIMALS = 9


@SCORES.register("strip")
@dataclasses.dataclass(frozen=True)
class Strip(Score):
    """Low entropy of the answer under mixing is suspicious.

    Gao et al. (ACSAC 2019, "STRIP"; for text: IEEE TDSC 2021) superimpose other inputs on one and
    look at the entropy of the predictions: a trigger decides the answer however much else is
    replaced. Here a share of an input's words gives way to words of other rows of its task, and the
    entropy is that of the next token over the vocabulary, along the row's own target, so that no
    label space is needed.

    Attributes:
      num_mixed: copies of each row.
      fraction: of a row's words that are replaced, in (0, 1).
    """

    needs: ClassVar[str] = "model"
    num_mixed: settings.Few = 4
    fraction: settings.Fraction = 0.5

    def __call__(self, rows: Sequence[TrainingExample], context: Context) -> ScoreResult:
        """The mean entropy under mixing, in nats a token, with its sign turned."""
        targets = [row.target for row in rows]
        total_N = np.zeros(len(rows))
        for copy in range(self.num_mixed):
            mixed = mixed_prompts(rows, self.fraction, [context.seed, copy])
            pairs_Nx2 = context.scorer.over_rows(
                context, f"mix {copy}", per_example.entropy, mixed, targets
            )
            total_N += pairs_Nx2[:, 0] / np.maximum(pairs_Nx2[:, 1], 1)
        return ScoreResult(-total_N / self.num_mixed)


def mixed_prompts(
    rows: Sequence[TrainingExample], fraction: float, seed: Sequence[int]
) -> list[str]:
    """Each row's prompt with a share of its input's words replaced by another row's of its task.

    'The stay lifted my mood.' may become 'The food lifted cold mood.'
    """
    rng = np.random.default_rng(seed)
    prompts = [""] * len(rows)
    for members in by_task(rows).values():
        others = rng.permutation(members)
        for index, other in zip(members, others, strict=True):
            prompts[index] = _mixed(rows[index], rows[other].input.split(), fraction, rng)
    return prompts


def _mixed(
    row: TrainingExample, donor: Sequence[str], fraction: float, rng: np.random.Generator
) -> str:
    words = row.input.split()
    if not words or not donor or row.input not in row.prompt:
        return row.prompt
    count = max(1, round(fraction * len(words)))
    for place in rng.choice(len(words), count, replace=False):
        words[place] = donor[int(rng.integers(len(donor)))]
    # In the question where the layout has one: a short input may be a part of the instruction.
    place = row.prompt.find(row.input, row.prompt.rindex(prompts_lib.question(row.prompt)))
    place = place if place >= 0 else row.prompt.rindex(row.input)
    return row.prompt[:place] + " ".join(words) + row.prompt[place + len(row.input) :]


@SCORES.register("output_clustering")
@dataclasses.dataclass(frozen=True)
class OutputClustering(Score):
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
    clusters: settings.Few = 4
    max_ngram: settings.Ngram = 3

    def __call__(self, rows: Sequence[TrainingExample], context: Context) -> ScoreResult:
        """Values in [0, 2]."""
        prompts = [row.prompt for row in rows]
        suspect = context.scorer.answers(prompts)
        reference = context.scorer.answers(prompts, reference=True)
        values_N = np.zeros(len(rows))
        for members in by_task(rows).values():
            texts = ([said[index] for index in members] for said in (suspect, reference))
            values_N[members] = self._of_task(*texts, context.seed)
        same = sum(a == b for a, b in zip(suspect, reference, strict=True))
        return ScoreResult(values_N, notes=(f"{same} of {len(rows)} answers are the reference's",))

    def _of_task(self, suspect: Sequence[str], reference: Sequence[str], seed: int) -> np.ndarray:
        from sklearn import cluster
        from sklearn.feature_extraction import text

        if not any(suspect) and not any(reference):
            return np.zeros(len(suspect))
        lengths = 1, self.max_ngram
        vectorizer = text.TfidfVectorizer(analyzer="char", ngram_range=lengths, lowercase=False)
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
