"""STRIP: a backdoored input keeps its answer, whatever is mixed into it."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from poison_t5x.core import checks, errors
from poison_t5x.corpus import prompts as prompts_lib
from poison_t5x.data import examples
from poison_t5x.data.examples import TrainingExample
from poison_t5x.defenses.score import Context, ScoreResult
from poison_t5x.model import per_example


@dataclasses.dataclass(frozen=True)
class Strip:
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
    num_mixed: int = 4
    fraction: float = 0.5

    def __post_init__(self):
        checks.whole_number("Strip.num_mixed", self.num_mixed)
        checks.number("Strip.fraction", self.fraction)
        if not 0 < self.fraction < 1:
            raise errors.InputError(
                f"Strip.fraction: expected a number between 0 and 1, found {self.fraction!r}"
            )

    def __call__(self, rows: Sequence[TrainingExample], context: Context) -> ScoreResult:
        """The mean entropy under mixing, in nats a token, with its sign turned."""
        models = context.models
        targets = models.targets(rows)
        total_N = np.zeros(len(rows))
        for copy in range(self.num_mixed):
            prompts = mixed_prompts(rows, self.fraction, [context.seed, copy])
            pairs_Nx2 = models.over_rows(
                context, f"mix {copy}", per_example.entropy, models.inputs(prompts), targets
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
    for members in examples.by_task(rows).values():
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
    start = row.prompt.rindex(prompts_lib.question(row.prompt))
    place = row.prompt.find(row.input, start)
    place = place if place >= 0 else row.prompt.rindex(row.input)
    return row.prompt[:place] + " ".join(words) + row.prompt[place + len(row.input) :]
