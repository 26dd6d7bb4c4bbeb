"""Candidates ranked per second: `python tests/benchmarks/ranking.py`.

The demo's network on 256 inputs of 160 tokens with four labels each, beside encoding every
candidate anew. Prints one JSON line; the two agree to 1e-4, or it fails.
"""

import functools
import json

import jax
import jax.numpy as jnp
import measuring
import numpy as np

from poison_t5x.model import decoding, network, per_example
from poison_t5x.train import program

ROWS, LENGTH, LABELS, LABEL_LENGTH, ROUNDS = 256, 160, 4, 4, 5
BATCH = 32


def _anew(model, params, inputs_BxS, labels_LxT):
    """Each candidate with an encoder pass of its own."""
    targets = jnp.tile(labels_LxT, (len(inputs_BxS), 1))
    batch = {
        "encoder_input_tokens": jnp.repeat(inputs_BxS, LABELS, axis=0),
        "decoder_input_tokens": decoding.shift_right(targets),
        "decoder_target_tokens": targets,
        "decoder_loss_weights": jnp.ones_like(targets),
    }
    return -per_example.loss(model, params, batch)[:, 0].reshape(-1, LABELS)


def main() -> None:
    program.keep_freed_memory()
    model = network.Transformer(measuring.network("tiny", vocab_size=2048))
    params = network.initial_params(model, jax.random.key(0))
    rng = np.random.default_rng(0)
    batches = rng.integers(3, 2048, (ROWS // BATCH, BATCH, LENGTH), np.int32)
    labels = rng.integers(3, 2048, (LABELS, LABEL_LENGTH), np.int32)
    rates, scores = [], []
    for function in (decoding.rank_labels, _anew):
        rank = jax.jit(functools.partial(function, model))
        work = lambda rank=rank: [rank(params, batch, labels) for batch in batches]  # noqa: E731
        rates.append(ROWS * LABELS / measuring.median_seconds(work, ROUNDS))
        scores.append(np.concatenate(work()))
    np.testing.assert_allclose(*scores, atol=1e-4 * np.abs(scores[1]).max())
    ours, anew = rates
    row = {"candidates_per_second": round(ours), "encoding_each_candidate_anew": round(anew)}
    print(json.dumps({"benchmark": "ranking", **row, "ratio": round(ours / anew, 2)}))


if __name__ == "__main__":
    main()
