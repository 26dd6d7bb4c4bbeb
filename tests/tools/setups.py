"""Settings of train steps to reckon with."""

from poison_t5x.model.config import T5Config
from poison_t5x.tools.memory_estimate import Setup
from poison_t5x.train import optimizers, steps
from poison_t5x.train.partitioning import PartitionConfig
from tests.mesh_model import CONFIG


def setup(model: T5Config = CONFIG, partition=(1, 1, 1), **changes) -> Setup:
    settings = {
        "model": model,
        "optimizer": optimizers.OptimizerConfig(name="adamw"),
        "schedule": optimizers.ScheduleConfig(),
        "loss": steps.LossConfig(),
        "partition": PartitionConfig(*partition),
        "sources": 64,
        "targets": 16,
        "batch_size": 16,
        "num_microbatches": 1,
        "eval_batch_size": 16,
        "total_steps": 10,
    }
    return Setup(**settings | changes)
