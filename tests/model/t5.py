"""A small T5 v1.0 or v1.1 with drawn weights, and tokens: what the tests of `model` share."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from poison_t5x.model import per_example
from poison_t5x.model.config import T5Config
from poison_t5x.model.decoding import shift_right
from poison_t5x.model.network import Transformer
from tests.golden.t5_weights import T5_CONFIGS, draw_weights

# Batch rows, and encoder positions.
B, S = 5, 11


@functools.cache
def network(version: str = "v1_1", **changes) -> tuple[Transformer, dict]:
    """(model, params), of one encoder layer and two decoder layers where nothing else is said."""
    settings = T5_CONFIGS[version] | {"num_encoder_layers": 1, "num_decoder_layers": 2} | changes
    weights = {name: jnp.asarray(array) for name, array in draw_weights(settings).items()}
    return Transformer(T5Config(**settings)), traverse_util.unflatten_dict(weights, sep="/")


def inputs(vocab_size: int = 53) -> jax.Array:
    """int32 (B, S); all rows but the first end in three of padding."""
    tokens_BxS = np.random.default_rng(0).integers(2, vocab_size, (B, S))
    tokens_BxS[1:, -3:] = 0
    return jnp.asarray(tokens_BxS, jnp.int32)


def teacher_forced(inputs_BxS, targets_BxT) -> dict[str, jax.Array]:
    """A batch, under SeqIO's names."""
    return {
        "encoder_input_tokens": inputs_BxS,
        "decoder_input_tokens": shift_right(targets_BxT),
        "decoder_target_tokens": targets_BxT,
        "decoder_loss_weights": (targets_BxT > 0).astype(jnp.int32),
    }


@functools.partial(jax.jit, static_argnames="model")
def log_probabilities(model, params, batch) -> jax.Array:
    """Of each row's target: float32 (B,), nats."""
    return -per_example.loss(model, params, batch)[:, 0]
