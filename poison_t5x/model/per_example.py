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
from poison_t5x.model import decoding, losses, network
from poison_t5x.model.network import Transformer

Batch = Mapping[str, jax.Array]


def loss(model: Transformer, params: Any, batch: Batch) -> jax.Array:
    """Cross-entropy of the target, as training has it: (B, 2), nats (sum) and tokens."""
    logits_BxTxV = decoding.teacher_forced_logits(model, params, batch)
    losses_BxT, _ = losses.token_losses(logits_BxTxV, batch["decoder_target_tokens"])
    return _sums(losses_BxT, batch)


def entropy(model: Transformer, params: Any, batch: Batch) -> jax.Array:
    """Entropy of the next token, at each token of the target: (B, 2), nats (sum) and tokens."""
    logits_BxTxV = decoding.teacher_forced_logits(model, params, batch)
    log_p_BxTxV = jax.nn.log_softmax(logits_BxTxV, axis=-1)
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
    leaves, structure = jax.tree_util.tree_flatten(params)
    chosen = [bool(re.search(layers, name)) for name in network.flat(params)]
    if not any(chosen):
        raise errors.InputError(
            f"layers: expected a part of a parameter's path, found {layers!r}; paths are such as "
            f"{next(iter(network.flat(params)))!r}"
        )

    def one_loss(part, example):
        parts = iter(part)
        whole = [next(parts) if is_in else leaf for is_in, leaf in zip(chosen, leaves, strict=True)]
        tree = jax.tree_util.tree_unflatten(structure, whole)
        single = {name: value[None] for name, value in example.items()}
        return loss(model, tree, single)[0, 0]

    def one_norm(example):
        part = [leaf for is_in, leaf in zip(chosen, leaves, strict=True) if is_in]
        gradients = jax.grad(one_loss)(part, example)
        return sum(jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in gradients)

    def split(x):
        # Every n-th row at once: each device has its share of them.
        rows = x.reshape(at_once, x.shape[0] // at_once, *x.shape[1:])
        return jnp.swapaxes(rows, 0, 1)

    norms_NxA = jax.lax.map(jax.vmap(one_norm), jax.tree.map(split, dict(batch)))
    return jnp.swapaxes(norms_NxA, 0, 1).reshape(-1, 1)
