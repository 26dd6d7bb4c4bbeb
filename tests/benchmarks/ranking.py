"""Candidates ranked per second: `python tests/benchmarks/ranking.py`.

The demo's network on 256 inputs of 160 tokens with four labels each, beside encoding every
candidate anew. Prints one JSON line; the two agree to 1e-4, or it fails.
"""

import functools
import json
import statistics
import time

import jax
import numpy as np

from poison_t5x.core import memory
from poison_t5x.model import config, decoding, network
from poison_t5x.train import partitioning

ROWS, LENGTH, LABELS, LABEL_LENGTH, ROUNDS = 256, 160, 4, 4, 5
BATCH = 32


def _anew(model, params, inputs_BxS, labels_LxT):
    """Each candidate with an encoder pass of its own."""
    num_rows, num_labels = inputs_BxS.shape[0], labels_LxT.shape[0]
    targets = jax.numpy.tile(labels_LxT, (num_rows, 1))
    batch = {
        "encoder_input_tokens": jax.numpy.repeat(inputs_BxS, num_labels, axis=0),
        "decoder_input_tokens": decoding.shift_right(targets),
        "decoder_target_tokens": targets,
    }
    return decoding.log_probabilities(model, params, batch)[0].reshape(num_rows, num_labels)


def _time(rank, params, inputs, labels) -> tuple[float, np.ndarray]:
    batches = np.split(inputs, ROWS // BATCH)
    scores = [np.asarray(rank(params, batch, labels)) for batch in batches]
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for batch in batches:
            jax.block_until_ready(rank(params, batch, labels))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), np.concatenate(scores)


def main() -> None:
    memory.keep_freed_memory()
    model = network.Transformer(
        config.T5Config(
            vocab_size=2048,
            emb_dim=128,
            num_heads=4,
            head_dim=32,
            mlp_dim=256,
            num_encoder_layers=2,
            num_decoder_layers=2,
            mlp_activations=("gelu", "linear"),
        )
    )
    partitioner = partitioning.Partitioner(partitioning.PartitionConfig())
    boxed = network.initial_params(model, jax.random.key(0))
    params = jax.device_put(boxed, partitioner.replicated)
    rng = np.random.default_rng(0)
    inputs = rng.integers(3, 2048, (ROWS, LENGTH)).astype(np.int32)
    labels = rng.integers(3, 2048, (LABELS, LABEL_LENGTH)).astype(np.int32)
    ours, scores = _time(
        jax.jit(functools.partial(decoding.rank_labels, model)), params, inputs, labels
    )
    anew, expected = _time(jax.jit(functools.partial(_anew, model)), params, inputs, labels)
    np.testing.assert_allclose(scores, expected, atol=1e-4 * np.abs(expected).max())
    print(
        json.dumps(
            {
                "benchmark": "ranking",
                "candidates_per_second": round(ROWS * LABELS / ours),
                "encoding_each_candidate_anew": round(ROWS * LABELS / anew),
                "ratio": round(anew / ours, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
