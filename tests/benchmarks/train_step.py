"""Seconds per train step: `python tests/benchmarks/train_step.py [tiny|small]`.

Encoder 256, decoder 32, batch 8, float32, dropout 0.1, Adafactor, on random tokens. Prints one JSON
line with the median, least and largest of the timed steps.
"""

import json
import statistics
import sys
import time

import jax
import numpy as np

from poison_t5x.core import memory
from poison_t5x.model import config, network
from poison_t5x.train import optimizers, partitioning, steps, train_state

SIZES = {
    "tiny": {"emb_dim": 128, "num_heads": 4, "head_dim": 32, "mlp_dim": 256, "layers": 2},
    "small": {"emb_dim": 512, "num_heads": 6, "head_dim": 64, "mlp_dim": 1024, "layers": 8},
}
BATCH, ENCODER, DECODER, VOCABULARY = 8, 256, 32, 32128
WARM_UP, TIMED = 4, 10


def _batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    inputs = rng.integers(3, VOCABULARY, (BATCH, ENCODER)).astype(np.int32)
    targets = rng.integers(3, VOCABULARY, (BATCH, DECODER)).astype(np.int32)
    return {
        "encoder_input_tokens": inputs,
        "decoder_input_tokens": np.pad(targets[:, :-1], ((0, 0), (1, 0))),
        "decoder_target_tokens": targets,
        "decoder_loss_weights": np.ones_like(targets),
    }


def main(size: str) -> None:
    memory.keep_freed_memory()
    fields = dict(SIZES[size])
    layers = fields.pop("layers")
    model = network.Transformer(
        config.T5Config(
            vocab_size=VOCABULARY,
            num_encoder_layers=layers,
            num_decoder_layers=layers,
            mlp_activations=("gelu", "linear"),
            dropout_rate=0.1,
            **fields,
        )
    )
    partitioner = partitioning.Partitioner(partitioning.PartitionConfig())
    schedule = optimizers.learning_rate(optimizers.ScheduleConfig(), 1000)
    optimizer = optimizers.make(optimizers.OptimizerConfig("adafactor"), schedule)
    layout = train_state.layout(train_state.abstract(model, optimizer, partitioner))
    step = steps.make_train_step(
        model, optimizer, schedule, steps.LossConfig(), partitioner, layout
    )
    state = train_state.create(model, optimizer, partitioner, 0)
    key = jax.random.key(0)
    seconds = []
    for _ in range(WARM_UP + TIMED):
        batch = partitioner.put_batch(_batch())
        start = time.perf_counter()
        state, metrics = step(state, batch, key)
        jax.block_until_ready((state, metrics))
        seconds.append(time.perf_counter() - start)
    timed = seconds[WARM_UP:]
    print(
        json.dumps(
            {
                "benchmark": f"train_step_{size}",
                "seconds_per_step": round(statistics.median(timed), 4),
                "min": round(min(timed), 4),
                "max": round(max(timed), 4),
                "compile_seconds": round(seconds[0], 2),
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "tiny")
