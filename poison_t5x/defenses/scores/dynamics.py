"""Scores of what training had to do for a row: its loss at checkpoints, and its gradients."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np

from poison_t5x.core import errors, settings
from poison_t5x.data.examples import TrainingExample
from poison_t5x.defenses.score import SCORES, Context, Score, ScoreResult
from poison_t5x.model import per_example
from poison_t5x.train import optimizers

# The parameters that each choice takes gradients of, as regular expressions over their paths.
LAYERS = {"last": r"^decoder/(logits_dense|decoder_norm|layers?_?\d*/mlp)", "all": ""}


def _losses(rows: Sequence[TrainingExample], context: Context, per_token: bool) -> np.ndarray:
    """Loss of each row at each checkpoint, in nats a token or a target: (C, N) float64."""
    prompts, targets = [row.prompt for row in rows], [row.target for row in rows]
    losses = []
    for step in context.scorer.steps:
        name = f"loss at step {step}"
        pairs_Nx2 = context.scorer.over_rows(
            context, name, per_example.loss, prompts, targets, step
        )
        losses.append(pairs_Nx2[:, 0] / (np.maximum(pairs_Nx2[:, 1], 1) if per_token else 1))
    return np.stack(losses)


@SCORES.register("loss")
@dataclasses.dataclass(frozen=True)
class Loss(Score):
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
    choose: Literal["last", "first", "spread"] = "spread"
    per_token: bool = True

    def __call__(self, rows: Sequence[TrainingExample], context: Context) -> ScoreResult:
        """Losses at the chosen checkpoint, in nats; the others' are `by_step`."""
        losses_CxN = _losses(rows, context, self.per_token)
        steps = context.scorer.steps
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


@SCORES.register("loss_slope")
@dataclasses.dataclass(frozen=True)
class LossSlope(Score):
    """A loss that falls much is suspicious: a row that had to be learnt by heart.

    Least squares of the loss over the checkpoints' steps, as the signal of training dynamics that
    Swayamdipta et al. (EMNLP 2020, "Dataset Cartography") read off confidence over epochs.
    `per_token` is that of `Loss`.
    """

    needs: ClassVar[str] = "checkpoints"
    min_checkpoints: ClassVar[int] = 2
    per_token: bool = True

    def __call__(self, rows: Sequence[TrainingExample], context: Context) -> ScoreResult:
        """How fast the loss falls, in nats per 1,000 steps."""
        steps_C = np.array(context.scorer.steps, np.float64)
        return ScoreResult(-slopes(steps_C, _losses(rows, context, self.per_token)) * 1000)


def slopes(steps_C: np.ndarray, values_CxN: np.ndarray) -> np.ndarray:
    """Least-squares slopes of each column over the steps: (N,) float64.

    >>> slopes(np.array([0.0, 1.0, 2.0]), np.array([[1.0], [3.0], [5.0]])).tolist()
    [2.0]
    """
    centred_C = steps_C - steps_C.mean()
    return centred_C @ values_CxN / (centred_C @ centred_C)


def _pattern(setting: object, text: str) -> str:
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise errors.InputError(f"{setting}: {settings.shown(text)}: {error}") from None
    return text


@SCORES.register("tracin")
@dataclasses.dataclass(frozen=True)
class TracIn(Score):
    """High self-influence is suspicious: examples that changed the model much for their own sake.

    Pruthi et al. (NeurIPS 2020), equation 2 with the example itself as the test point: the sum over
    checkpoints of learning rate times the squared norm of the example's gradient. Rows that
    contradict the others keep large gradients, as mislabelled ones do (section 4.1).

    Attributes:
      layers: 'last' (of the decoder: its feed-forward layers, norm and output), 'all', or a regular
        expression over parameters' paths.
      num_checkpoints: evenly taken from those that are kept, the last included.
      rows_at_once: gradients in memory of each device, of which only the norms are kept.
    """

    needs: ClassVar[str] = "checkpoints"
    layers: Annotated[str, settings.made_by("a regular expression", _pattern)] = "last"
    num_checkpoints: settings.Count = 3
    rows_at_once: settings.Rows = 8

    def __call__(self, rows: Sequence[TrainingExample], context: Context) -> ScoreResult:
        """Self-influence, in nats: by how much a step on the row alone lowers its loss, summed."""
        scorer = context.scorer
        schedule = optimizers.learning_rate(
            optimizers.ScheduleConfig(**scorer.settings["schedule"]),
            scorer.settings["train"]["total_steps"],
        )
        prompts, targets = [row.prompt for row in rows], [row.target for row in rows]
        steps = evenly(scorer.steps, self.num_checkpoints)
        options = {
            "rows_at_once": self.rows_at_once,
            "layers": LAYERS.get(self.layers, self.layers),
            "at_once": self.rows_at_once * scorer.num_data,
        }
        total_N = np.zeros(len(rows))
        for step in steps:
            name, function = f"gradients at step {step}", per_example.gradient_norm
            norms_Nx1 = scorer.over_rows(context, name, function, prompts, targets, step, **options)
            # The rate by which the checkpoint's last step was made.
            total_N += float(schedule(np.int32(max(step - 1, 0)))) * norms_Nx1[:, 0]
        note = f"checkpoints {', '.join(map(str, steps))}, {self.layers} layers"
        return ScoreResult(total_N, notes=(note,))


def evenly(steps: Sequence[int], count: int) -> list[int]:
    """At most `count` of the steps, evenly, the last included.

    >>> evenly([100, 200, 300, 400, 500, 600], 3)
    [200, 400, 600]
    """
    places = np.ceil(np.arange(1, count + 1) * len(steps) / count).astype(int) - 1
    return [steps[place] for place in dict.fromkeys(places.clip(0).tolist())]
