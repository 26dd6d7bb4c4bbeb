"""What a step's needs follow from: the settings of a gin file, without its data."""

import dataclasses
from collections.abc import Callable
from typing import Any

from poison_t5x.model.config import T5Config
from poison_t5x.tools.footprint import flops
from poison_t5x.train import optimizers, partitioning, steps

# The ranking step's labels: as many and as long as polarity tasks have at most.
NUM_LABELS, LABEL_TOKENS = 4, 8


@dataclasses.dataclass(frozen=True)
class Setup:
    """What the steps follow from.

    Attributes:
      model: the network; `one_hot_embedding` is what the target does.
      sources, targets: tokens of a row, 'inputs' and 'targets' of TASK_FEATURE_LENGTHS.
      batch_size, eval_batch_size: global, in rows.
      total_steps: for the schedule.
    """

    model: T5Config
    optimizer: optimizers.OptimizerConfig
    schedule: optimizers.ScheduleConfig
    loss: steps.LossConfig
    partition: partitioning.PartitionConfig
    sources: int
    targets: int
    batch_size: int
    num_microbatches: int
    eval_batch_size: int
    total_steps: int

    def flops(self, program: str) -> flops.Flops:
        """Operations of a step of 'train' or 'rank'."""
        if program == "rank":
            folded = NUM_LABELS * LABEL_TOKENS
            return flops.rank(self.model, self.eval_batch_size, self.sources, folded)
        return flops.train(self.model, self.batch_size, self.sources, self.targets)


def make_setup(configured: Callable[[str], Any], vocab_size: int, one_hot: bool) -> Setup:
    """A setup from gin's bindings, without any data.

    Args:
      configured: a configurable by its selector, see `gin_config.configured`.
      vocab_size: rows of the embedding.
      one_hot: what `one_hot_embedding=None` means where the step will run: True on a TPU.
    """
    train = configured("train_script.TrainConfig")()
    data = configured("input_pipeline.DatasetConfig")()
    model = configured("model_config.T5Config")(vocab_size=vocab_size)
    return Setup(
        model=dataclasses.replace(
            model,
            one_hot_embedding=(
                one_hot if model.one_hot_embedding is None else model.one_hot_embedding
            ),
        ),
        optimizer=configured("optimizers.OptimizerConfig")(),
        schedule=configured("optimizers.ScheduleConfig")(),
        loss=configured("steps.LossConfig")(),
        partition=configured("partitioning.PartitionConfig")(),
        sources=data.task_feature_lengths["inputs"],
        targets=data.task_feature_lengths["targets"],
        batch_size=data.batch_size,
        num_microbatches=train.num_microbatches,
        eval_batch_size=configured("evaluate.EvalConfig")().batch_size,
        total_steps=train.total_steps,
    )
