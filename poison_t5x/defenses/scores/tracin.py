"""TracIn: examples that changed the model much for their own sake."""

import dataclasses
import re
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from poison_t5x.core import checks, errors
from poison_t5x.data.examples import TrainingExample
from poison_t5x.defenses.score import Context, ScoreResult
from poison_t5x.model import per_example
from poison_t5x.train import optimizers

# The parameters that each choice takes gradients of, as regular expressions over their paths.
LAYERS = {"last": r"^decoder/(logits_dense|decoder_norm|layers?_?\d*/mlp)", "all": ""}


@dataclasses.dataclass(frozen=True)
class TracIn:
    """High self-influence is suspicious.

    Pruthi et al. (NeurIPS 2020), equation 2 with the example itself as the test point: the sum over
    checkpoints of learning rate times the squared norm of the example's gradient. Rows that
    contradict the others keep large gradients, as mislabelled ones do (section 4.1). Gradients are
    made of a few examples at a time and only their norms kept.

    Attributes:
      layers: 'last' (of the decoder: its feed-forward layers, norm and output), 'all', or a regular
        expression over parameters' paths.
      num_checkpoints: evenly taken from those that are kept, the last included.
      rows_at_once: gradients that are in memory at once, of each device.
    """

    needs: ClassVar[str] = "checkpoints"
    layers: str = "last"
    num_checkpoints: int = 3
    rows_at_once: int = 8

    def __post_init__(self):
        if not isinstance(self.layers, str):
            raise errors.InputError(f"TracIn.layers: expected a text, found {self.layers!r}")
        try:
            re.compile(self.layers)
        except re.error as error:
            raise errors.InputError(f"TracIn.layers: {self.layers!r}: {error}") from None
        checks.whole_number("TracIn.num_checkpoints", self.num_checkpoints)
        checks.whole_number("TracIn.rows_at_once", self.rows_at_once)

    def __call__(self, rows: Sequence[TrainingExample], context: Context) -> ScoreResult:
        """Self-influence, in nats: what a step on the row alone takes off its loss, summed."""
        models = context.models
        inputs, targets = models.inputs([row.prompt for row in rows]), models.targets(rows)
        rate = _rate(models.settings)
        total_N = np.zeros(len(rows))
        steps = evenly(models.steps, self.num_checkpoints)
        at_once = self.rows_at_once * models.num_data
        for step in steps:
            norms_Nx1 = models.over_rows(
                context,
                f"gradients at step {step}",
                per_example.gradient_norm,
                inputs,
                targets,
                step,
                rows_at_once=self.rows_at_once,
                layers=LAYERS.get(self.layers, self.layers),
                at_once=at_once,
            )
            total_N += rate(step) * norms_Nx1[:, 0]
        note = f"checkpoints {', '.join(map(str, steps))}, {self.layers} layers"
        return ScoreResult(total_N, notes=(note,))


def _rate(settings):
    """The learning rate by which a checkpoint's last step was made, from the step."""
    schedule = optimizers.learning_rate(
        optimizers.ScheduleConfig(**settings["schedule"]), settings["train"]["total_steps"]
    )
    return lambda step: float(schedule(np.int32(max(step - 1, 0))))


def evenly(steps: Sequence[int], count: int) -> list[int]:
    """At most `count` of the steps, evenly, the last included.

    >>> evenly([100, 200, 300, 400, 500, 600], 3)
    [200, 400, 600]
    """
    places = np.ceil(np.arange(1, count + 1) * len(steps) / count).astype(int) - 1
    return [steps[place] for place in dict.fromkeys(places.clip(0).tolist())]
