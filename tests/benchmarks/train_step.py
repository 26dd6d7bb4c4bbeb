"""Seconds per train step: `python tests/benchmarks/train_step.py [tiny|small]`.

Encoder 256, decoder 32, batch 8, float32, dropout 0.1, Adafactor, on random tokens. Prints one JSON
line with the median, least and largest of the timed steps.
"""

import json
import statistics
import sys

import jax
import measuring
import numpy as np

from poison_t5x.model import network
from poison_t5x.train import optimizers, partitioning, program, steps, train_state

BATCH, ENCODER, DECODER, VOCABULARY = 8, 256, 32, 32128
WARM_UP, TIMED = 4, 10


def _batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    targets = rng.integers(3, VOCABULARY, (BATCH, DECODER), np.int32)
    return {
        "encoder_input_tokens": rng.integers(3, VOCABULARY, (BATCH, ENCODER), np.int32),
        "decoder_input_tokens": np.pad(targets[:, :-1], ((0, 0), (1, 0))),
        "decoder_target_tokens": targets,
        "decoder_loss_weights": np.ones_like(targets),
    }


def main(size: str) -> None:
    program.keep_freed_memory()
    model = network.Transformer(measuring.network(size, dropout_rate=0.1))
    partitioner = partitioning.Partitioner(partitioning.PartitionConfig())
    schedule = optimizers.learning_rate(optimizers.ScheduleConfig(), 1000)
    optimizer = optimizers.make(optimizers.OptimizerConfig("adafactor"), schedule)
    step = steps.make_train_step(model, optimizer, schedule, steps.LossConfig(), partitioner)
    state = train_state.create(model, optimizer, partitioner, 0)
    batch, key = partitioner.put_batch(_batch()), jax.random.key(0)

    def work():
        nonlocal state
        state, metrics = step(state, batch, key)
        return state, metrics

    first, *_ = seconds = measuring.seconds(work, TIMED, WARM_UP)
    timed = seconds[WARM_UP:]
    row = {
        "benchmark": f"train_step_{size}",
        "seconds_per_step": round(statistics.median(timed), 4),
        "min": round(min(timed), 4),
        "max": round(max(timed), 4),
        "compile_seconds": round(first, 2),
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "tiny")
