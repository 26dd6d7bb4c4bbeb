"""Rank classification, array layer: how likely is each label of a task, for each input.

The paper's evaluation takes the likeliest label as the prediction. One label at a time, that is
L passes over the same input; here all labels of an input lie side by side in one decoder sequence
of F = L * T positions and are told apart by segment ids:

    labels (L = 2, T = 3)    [[7, 1, 0], [4, 9, 1]]
    targets                  [7, 1, 0, 4, 9, 1]
    decoder inputs           [0, 7, 1, 0, 4, 9]
    decoder segment ids      [1, 1, 1, 2, 2, 2]

Each block attends to itself, causally, and to the whole input, whose encoding and cross-attention
keys are made once. T5 knows positions by their differences only, so a block's place in the
sequence changes nothing.
"""

from typing import Any

import jax.numpy as jnp

from poison_t5x.core.errors import InputError
from poison_t5x.model.decoding import shift_right, token_log_probabilities
from poison_t5x.model.network import Transformer


def rank_labels(
    model: Transformer,
    params: Any,
    encoder_input_tokens_BxS,
    label_tokens_LxT,
    length_normalized: bool = False,
):
    """Log-probability of every label as the answer to every input.

    Args:
      model: the network.
      params: its parameters, float32.
      encoder_input_tokens_BxS: int32; 0 is padding. A row of padding alone gives finite numbers
        that mean nothing.
      label_tokens_LxT: int32; each label as training wrote it (with EOS), then padding 0.
      length_normalized: divide by the number of the label's tokens.

    Returns:
      float32 (B, L), nats: the sum over the label's tokens, or the mean if `length_normalized`.
      A label of padding alone (to fill up L) gets -inf, so that it is never chosen.

    Raises:
      InputError: `label_tokens_LxT` isn't two-dimensional.
    """
    if label_tokens_LxT.ndim != 2:
        raise InputError(f"label_tokens_LxT: expected shape (L, T), got {label_tokens_LxT.shape}")
    num_labels, length = label_tokens_LxT.shape
    num_rows = encoder_input_tokens_BxS.shape[0]
    segment_ids_LxT = jnp.broadcast_to(jnp.arange(1, num_labels + 1)[:, None], (num_labels, length))

    def fold(array_LxT):
        return jnp.broadcast_to(array_LxT.reshape(1, -1), (num_rows, num_labels * length))

    targets_BxF = fold(label_tokens_LxT)
    logits_BxFxV = model.apply(
        {"params": params},
        encoder_input_tokens_BxS,
        fold(shift_right(label_tokens_LxT)),
        targets_BxF,
        decoder_segment_ids=fold(segment_ids_LxT),
        enable_dropout=False,
    )
    log_prob_BxF = token_log_probabilities(logits_BxFxV, targets_BxF)
    log_prob_BxL = log_prob_BxF.reshape(num_rows, num_labels, length).sum(axis=-1)
    num_tokens_L = jnp.sum(label_tokens_LxT > 0, axis=1, dtype=jnp.int32)
    if length_normalized:
        log_prob_BxL /= jnp.maximum(num_tokens_L, 1).astype(jnp.float32)
    return jnp.where(num_tokens_L > 0, log_prob_BxL, -jnp.inf)
