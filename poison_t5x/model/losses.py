"""Token cross-entropy with label smoothing and z-loss, and T5X's ways to normalise it."""

import typing
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from poison_t5x.core import settings

SpecialFactor = Literal["NUM_REAL_TARGET_TOKENS", "NUM_TOTAL_TARGET_TOKENS", "AVERAGE_PER_SEQUENCE"]
SPECIAL_FACTORS = typing.get_args(SpecialFactor)
Factor = settings.Positive | SpecialFactor | None


def token_losses(
    logits_BxTxV, targets_BxT, *, label_smoothing: float = 0.0, z_loss: float = 0.0
) -> tuple[jax.Array, jax.Array]:
    r"""Cross-entropy of each token, in nats, with the z-loss added.

    With smoothing s in [0, 1), the target distribution holds 1 - s at the target and s / (V - 1)
    elsewhere, and its entropy is subtracted, so that the least loss is 0. The z-loss is
    z * log(Z)^2, with Z the softmax's denominator (Mesh TensorFlow; arXiv:2204.02311, section 5).
    Returns both summed, and the z-loss: float32 (B, T).
    """
    vocab_size = logits_BxTxV.shape[-1]
    log_z_BxT = jax.nn.logsumexp(logits_BxTxV, axis=-1)
    # A masked sum rather than a gather: where the vocabulary is sharded, a gather would bring all
    # logits together on each device.
    is_target_BxTxV = jnp.arange(vocab_size, dtype=targets_BxT.dtype) == targets_BxT[..., None]
    target_logits_BxT = jnp.sum(jnp.where(is_target_BxTxV, logits_BxTxV, 0.0), axis=-1)
    losses_BxT = log_z_BxT - target_logits_BxT
    if label_smoothing:
        confidence = 1.0 - label_smoothing
        rest = label_smoothing / (vocab_size - 1)
        expected_BxT = (confidence - rest) * target_logits_BxT + rest * logits_BxTxV.sum(axis=-1)
        entropy = -(confidence * jnp.log(confidence) + label_smoothing * jnp.log(rest))
        losses_BxT = log_z_BxT - expected_BxT - entropy
    z_losses_BxT = z_loss * jnp.square(log_z_BxT)
    return losses_BxT + z_losses_BxT, z_losses_BxT


def normalized_weights(
    batch: Mapping[str, jax.Array], loss_normalizing_factor: float | str | None
) -> jax.Array:
    """The weight of each token's loss in their sum: float32 (B, T).

    Args:
      batch: all microbatches; 'decoder_loss_weights', and 'decoder_segment_ids' where packed.
      loss_normalizing_factor: None (a plain sum), a number to divide by, or one of SPECIAL_FACTORS
        (T5X's): per real token, per token with padding, or averaged over each sequence (packed ones
        apart) and then over the sequences.
    """
    weights_BxT = batch["decoder_loss_weights"].astype(jnp.float32)
    settings.checked("LOSS_NORMALIZING_FACTOR", loss_normalizing_factor, Factor)
    if loss_normalizing_factor is None:
        return weights_BxT
    if not isinstance(loss_normalizing_factor, str):
        return weights_BxT / loss_normalizing_factor
    if loss_normalizing_factor == "NUM_REAL_TARGET_TOKENS":
        return weights_BxT / jnp.maximum(weights_BxT.sum(), 1.0)
    if loss_normalizing_factor == "NUM_TOTAL_TARGET_TOKENS":
        return weights_BxT / weights_BxT.size
    segment_ids_BxT = batch.get("decoder_segment_ids", jnp.ones(weights_BxT.shape, jnp.int32))
    same_BxTxT = (segment_ids_BxT[:, :, None] == segment_ids_BxT[:, None, :]).astype(jnp.float32)
    totals_BxT = jnp.einsum("bij,bj->bi", same_BxTxT, weights_BxT)
    shares_BxT = weights_BxT / jnp.where(weights_BxT > 0, totals_BxT, 1.0)
    return shares_BxT / jnp.maximum(shares_BxT.sum(), 1.0)
