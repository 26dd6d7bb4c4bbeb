"""Losses, states and gradients of each example of a batch, one row of numbers an example.

Each function takes (model, params, batch) and returns float32 (B, K); `batch` has SeqIO's arrays.
Dropout is off. Rows of padding alone give finite numbers that mean nothing.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from poison_t5x.core import errors
from poison_t5x.model import losses, network
from poison_t5x.model.network import Transformer

Batch = Mapping[str, jax.Array]


def loss(model: Transformer, params: Any, batch: Batch) -> jax.Array:
    """Cross-entropy of the target, as training has it: (B, 2), nats (sum) and tokens."""
    logits_BxTxV = network.batch_logits(model, params, batch)
    return _sums(losses.token_losses(logits_BxTxV, batch["decoder_target_tokens"])[0], batch)


def entropy(model: Transformer, params: Any, batch: Batch) -> jax.Array:
    """Entropy of the next token, at each token of the target: (B, 2), nats (sum) and tokens."""
    log_p_BxTxV = jax.nn.log_softmax(network.batch_logits(model, params, batch), axis=-1)
    return _sums(-jnp.sum(jnp.exp(log_p_BxTxV) * log_p_BxTxV, axis=-1), batch)


def _sums(values_BxT: jax.Array, batch: Batch) -> jax.Array:
    weights_BxT = batch["decoder_loss_weights"].astype(jnp.float32)
    return jnp.stack([jnp.sum(values_BxT * weights_BxT, axis=1), weights_BxT.sum(axis=1)], axis=1)


def encoder_state(model: Transformer, params: Any, batch: Batch) -> jax.Array:
    """The encoder's output, averaged over the input's tokens: (B, E)."""
    tokens_BxS = batch["encoder_input_tokens"]
    encoded_BxSxE = model.apply(
        {"params": params}, tokens_BxS, enable_dropout=False, method="encode"
    )
    real_BxS = (tokens_BxS > 0).astype(jnp.float32)
    total_BxE = jnp.einsum("bs,bse->be", real_BxS, encoded_BxSxE.astype(jnp.float32))
    return total_BxE / jnp.maximum(real_BxS.sum(axis=1, keepdims=True), 1.0)


def gradient_norm(
    model: Transformer, params: Any, batch: Batch, layers: str, at_once: int
) -> jax.Array:
    """Squared norm of each example's gradient of its loss (sum of nats): (B, 1).

    Gradients of `at_once` examples, a divisor of the batch's, are there at a time. `layers` is a
    regular expression: of the parameters whose paths it is found in; InputError where none is.
    """
    by_name, structure = network.flat(params), jax.tree.structure(params)
    chosen = {name: leaf for name, leaf in by_name.items() if re.search(layers, name)}
    if not chosen:
        raise errors.InputError(
            f"layers: expected a part of a parameter's path, found {layers!r}; paths are such as "
            f"{next(iter(by_name))!r}"
        )

    def one_loss(part, example):
        tree = jax.tree.unflatten(structure, (by_name | part).values())
        single = {name: value[None] for name, value in example.items()}
        return loss(model, tree, single)[0, 0]

    def one_norm(example):
        gradients = jax.tree.leaves(jax.grad(one_loss)(chosen, example))
        return sum(jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in gradients)

    parts = network.split_rows(dict(batch), len(batch["encoder_input_tokens"]) // at_once)
    norms_NxA = jax.lax.map(jax.vmap(one_norm), parts)
    return jnp.swapaxes(norms_NxA, 0, 1).reshape(-1, 1)
