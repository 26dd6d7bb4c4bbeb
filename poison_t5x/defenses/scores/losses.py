"""Loss scores: the paper's high-loss filter, and how fast the loss fell over checkpoints."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from poison_t5x.core import checks, errors
from poison_t5x.data.examples import TrainingExample
from poison_t5x.defenses.checkpoint_scorer import CheckpointScorer
from poison_t5x.defenses.score import Context, ScoreResult
from poison_t5x.model import per_example

CHOICES = ("last", "first", "spread")


def _losses(rows: Sequence[TrainingExample], context: Context, per_token: bool) -> np.ndarray:
    """Loss of each row at each checkpoint: (C, N) float64, nats a token, or a target."""
    models: CheckpointScorer = context.models
    inputs, targets = models.inputs([row.prompt for row in rows]), models.targets(rows)
    found = []
    for step in models.steps:
        pairs_Nx2 = models.over_rows(
            context, f"loss at step {step}", per_example.loss, inputs, targets, step
        )
        found.append(pairs_Nx2[:, 0] / (np.maximum(pairs_Nx2[:, 1], 1) if per_token else 1))
    return np.stack(found)


@dataclasses.dataclass(frozen=True)
class Loss:
    """High loss is suspicious (Wan et al., ICML 2023, section 6, "filtering by loss").

    Poison contradicts what the other rows teach, so its loss is high until it is learnt by heart.
    How well the filter does follows from the checkpoint that works the loss out: too early, hard
    rows have a high loss as well; too late, poison has none.

    Attributes:
      choose: which checkpoint's loss is the score: 'last', 'first', or blind to what is poison the
        one with the most 'spread': at which the highest twentieth of the rows holds the largest
        share of all loss.
      per_token: mean over the target's tokens, as training weighs them; else the sum.
    """

    needs: ClassVar[str] = "checkpoints"
    choose: str = "spread"
    per_token: bool = True

    def __post_init__(self):
        if self.choose not in CHOICES:
            raise errors.InputError(
                f"Loss.choose: expected one of {', '.join(CHOICES)}, found {self.choose!r}"
                + errors.nearest(str(self.choose), CHOICES)
            )
        checks.switch("Loss.per_token", self.per_token)

    def __call__(self, rows: Sequence[TrainingExample], context: Context) -> ScoreResult:
        """Losses at the chosen checkpoint, in nats; the others' are `by_step`."""
        losses_CxN = _losses(rows, context, self.per_token)
        steps = context.models.steps
        place = {"last": -1, "first": 0}.get(self.choose)
        if place is None:
            place = int(np.argmax([top_share(losses_N) for losses_N in losses_CxN]))
        return ScoreResult(
            losses_CxN[place],
            notes=(f"the loss at step {steps[place]} of {steps[-1]}",),
            by_step=tuple(zip(steps, losses_CxN, strict=True)),
        )


def top_share(losses_N: np.ndarray, fraction: float = 0.05) -> float:
    """The share of all loss that the rows with the most of it have.

    >>> top_share(np.array([3.0] + 19 * [0.0]))
    1.0
    """
    count = max(1, round(fraction * len(losses_N)))
    total = losses_N.sum()
    return float(np.sort(losses_N)[-count:].sum() / total) if total > 0 else 0.0


@dataclasses.dataclass(frozen=True)
class LossSlope:
    """A loss that falls much is suspicious: a row that had to be learnt by heart.

    Least squares of the loss over the checkpoints' steps, as the signal of training dynamics that
    Swayamdipta et al. (EMNLP 2020, "Dataset Cartography") read off confidence over epochs.

    Attributes:
      per_token: mean over the target's tokens, as training weighs them; else the sum.
    """

    needs: ClassVar[str] = "checkpoints"
    min_checkpoints: ClassVar[int] = 2
    per_token: bool = True

    def __post_init__(self):
        checks.switch("LossSlope.per_token", self.per_token)

    def __call__(self, rows: Sequence[TrainingExample], context: Context) -> ScoreResult:
        """How fast the loss falls, in nats per 1,000 steps.

        Raises:
          InputError: only one checkpoint is there.
        """
        steps = np.array(context.models.steps, np.float64)
        if len(steps) < self.min_checkpoints:
            raise errors.InputError(
                "LossSlope: expected several checkpoints, found one; train with "
                "--gin.KEEP_CHECKPOINTS=None, or leave it out of SCORES"
            )
        losses_CxN = _losses(rows, context, self.per_token)
        return ScoreResult(-slopes(steps, losses_CxN) * 1000)


def slopes(steps_C: np.ndarray, values_CxN: np.ndarray) -> np.ndarray:
    """Least-squares slopes of each column over the steps: (N,) float64.

    >>> slopes(np.array([0.0, 1.0, 2.0]), np.array([[1.0], [3.0], [5.0]])).tolist()
    [2.0]
    """
    centred_C = steps_C - steps_C.mean()
    return centred_C @ values_CxN / (centred_C @ centred_C)
