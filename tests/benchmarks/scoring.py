"""Training rows scored per second: `python tests/benchmarks/scoring.py`.

The demo's network on 2,048 rows of 60 to 160 tokens, batches of 64. The forward pass of training,
and it with the backward pass, on batches that are there already; scoring by loss, from token arrays
to numbers; norms of per-example gradients, of the last layers and of all. Prints one JSON line.
"""

import dataclasses
import functools
import json
import statistics
import time

import jax
import numpy as np

from poison_t5x.core import memory
from poison_t5x.defenses.scores import dynamics
from poison_t5x.evaluation import predictors
from poison_t5x.model import config, losses, network, per_example
from poison_t5x.train import optimizers, partitioning, steps, train_state, trained_model

ROWS, BATCH, INPUTS, TARGETS, ROUNDS = 2048, 64, 168, 8, 5
NETWORK = config.T5Config(
    vocab_size=2176,
    emb_dim=128,
    num_heads=4,
    head_dim=32,
    mlp_dim=256,
    num_encoder_layers=2,
    num_decoder_layers=2,
    mlp_activations=("gelu", "linear"),
    dropout_rate=0.0,
)


def _rows(rng: np.random.Generator) -> tuple[list[np.ndarray], list[np.ndarray]]:
    def tokens(length):
        return np.append(rng.integers(2, 2000, length - 1), 1).astype(np.int32)

    lengths = rng.integers(60, 161, ROWS)
    return [tokens(n) for n in lengths], [tokens(n) for n in rng.integers(2, 5, ROWS)]


def _batch(inputs, targets) -> dict[str, np.ndarray]:
    """As training has it: every row as long as the encoder and the decoder are."""
    shown_BxT = np.stack([np.pad(row, (0, TARGETS - len(row))) for row in targets[:BATCH]])
    return {
        "encoder_input_tokens": np.stack(
            [np.pad(row, (0, INPUTS - len(row))) for row in inputs[:BATCH]]
        ),
        "decoder_input_tokens": np.pad(shown_BxT[:, :-1], ((0, 0), (1, 0))),
        "decoder_target_tokens": shown_BxT,
        "decoder_loss_weights": (shown_BxT > 0).astype(np.int32),
    }


def _rate(run, num_rows: int) -> float:
    jax.block_until_ready(run())
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - start)
    return round(num_rows / statistics.median(seconds), 1)


def main() -> None:
    memory.keep_freed_memory()
    model = network.Transformer(NETWORK)
    partitioner = partitioning.Partitioner(partitioning.PartitionConfig())
    optimizer = optimizers.make(optimizers.OptimizerConfig(name="adamw"), lambda step: 1e-5)
    state = train_state.create(model, optimizer, partitioner, 0)
    restored = trained_model.TrainedModel(model, state.params, partitioner)
    inputs, targets = _rows(np.random.default_rng(0))
    batch = partitioner.put_batch(_batch(inputs, targets))
    loss_cfg = steps.LossConfig()

    @jax.jit
    def forward(params, batch):
        weights = losses.normalized_weights(batch, loss_cfg.loss_normalizing_factor)
        return steps.loss_fn(params, batch, weights, None, model, loss_cfg)[0]

    @jax.jit
    def both(params, batch):
        return jax.grad(lambda p: forward(p, batch))(params)

    over = functools.partial(
        predictors.over_batches, restored, batch_size=BATCH, max_length=INPUTS, inputs=inputs
    )
    norms = functools.partial(
        over, function=per_example.gradient_norm, targets=targets, rows_at_once=8, at_once=8
    )
    last = dynamics.LAYERS["last"]
    found = {
        "forward": _rate(lambda: forward(state.params, batch), BATCH),
        "forward_and_backward": _rate(lambda: both(state.params, batch), BATCH),
        "loss_scores": _rate(lambda: over(function=per_example.loss, targets=targets), ROWS),
        "gradient_norms_last": _rate(lambda: norms(layers=last), ROWS),
        "gradient_norms_all": _rate(lambda: norms(layers=""), ROWS),
    }
    shares = {"loss_scores / forward": round(found["loss_scores"] / found["forward"], 2)}
    size = {"network": dataclasses.asdict(NETWORK)["emb_dim"], "rows": ROWS}
    print(json.dumps({"rows_per_second": found, **shares, **size}))


if __name__ == "__main__":
    main()
