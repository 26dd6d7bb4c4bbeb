"""Settings of a training run, beyond its network, data and optimiser."""

import dataclasses

from poison_t5x.core import checks, errors


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """What a trained model follows from, beyond its network, data and optimiser.

    Attributes:
      total_steps: optimiser steps of this run. Steps of a starting checkpoint aren't counted in.
      seed: of the initial parameters and of dropout.
      num_microbatches: parts that each batch is cut into.
      initial_checkpoint_path: a checkpoint of ours, T5X's or Hugging Face's to take parameters
        from, see `checkpoint_io.detect.open_checkpoint`; None starts from random ones.
      keep_optimizer_state: take the optimiser's state from there too; its schedule begins anew.
    """

    total_steps: int
    seed: int = 0
    num_microbatches: int = 1
    initial_checkpoint_path: str | None = None
    keep_optimizer_state: bool = False

    def __post_init__(self):
        checks.whole_number("TRAIN_STEPS", self.total_steps)
        checks.whole_number("NUM_MICROBATCHES", self.num_microbatches)
        checks.whole_number("SEED", self.seed, minimum=0)
        checks.switch("KEEP_OPTIMIZER_STATE", self.keep_optimizer_state)
        if self.initial_checkpoint_path is not None:
            checks.path("INITIAL_CHECKPOINT_PATH", self.initial_checkpoint_path)
        elif self.keep_optimizer_state:
            raise errors.InputError("KEEP_OPTIMIZER_STATE: set INITIAL_CHECKPOINT_PATH too")


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """How often a run reports and saves, in optimiser steps; the result doesn't follow from it.

    Attributes:
      log_period: a line of metrics, averaged since the last one.
      save_period: a checkpoint; one is always written at the end.
      keep_checkpoints: the newest so many; None keeps all.
      eval_period: teacher-forced loss and accuracy on the evaluation data; 0 for never.
      eval_steps: batches of each such evaluation.
    """

    log_period: int = 20
    save_period: int = 500
    keep_checkpoints: int | None = 2
    eval_period: int = 0
    eval_steps: int = 20

    def __post_init__(self):
        checks.whole_number("LOG_PERIOD", self.log_period)
        checks.whole_number("SAVE_PERIOD", self.save_period)
        checks.whole_number("EVAL_PERIOD", self.eval_period, minimum=0)
        checks.whole_number("EVAL_STEPS", self.eval_steps)
        if self.keep_checkpoints is not None:
            checks.whole_number("KEEP_CHECKPOINTS", self.keep_checkpoints)
