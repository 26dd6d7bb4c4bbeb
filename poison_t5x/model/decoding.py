"""Greedy answers of a trained network, and the log-probabilities of given labels.

Functions to be jitted. Tokens are int32; 0 is padding.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from poison_t5x.core import settings
from poison_t5x.core.errors import InputError
from poison_t5x.model.network import DecodeCache, Transformer


class _State(NamedTuple):
    tokens_BxC: jax.Array
    last_B: jax.Array
    ended_B: jax.Array
    cache: DecodeCache  # its `index` is the position to be filled next


def greedy_decode(
    model: Transformer,
    params: Any,
    encoder_input_tokens_BxS,
    max_decode_length: int,
    eos_id: int = 1,
    pad_id: int = 0,
):
    """The likeliest token at each step, until every row has ended: int32 (B, C).

    Inputs `[[5, 8, 1, 0]]` might give `[[9, 1, 0, 0]]`: the answer, its EOS, and padding. A row of
    padding alone stays padding.

    Args:
      max_decode_length: tokens to produce at most (C), EOS included; InputError below 1.
      eos_id, pad_id: the token that ends a row, which stays in the output, and what follows it.
    """
    variables = {"params": params}

    def unfinished(state: _State):
        return (state.cache.index < max_decode_length) & ~jnp.all(state.ended_B)

    def step(state: _State) -> _State:
        logits_BxV, cache = model.apply(variables, state.last_B, state.cache, method="decode_step")
        # Of equals the first, as argmax, which takes XLA's CPU code eight times as long.
        _, best_Bx1 = jax.lax.top_k(logits_BxV, 1)
        next_B = jnp.where(state.ended_B, pad_id, best_Bx1[:, 0])
        tokens_BxC = state.tokens_BxC.at[:, state.cache.index].set(next_B)
        return _State(tokens_BxC, next_B, state.ended_B | (next_B == eos_id), cache)

    num_rows = encoder_input_tokens_BxS.shape[0]
    start = _State(
        tokens_BxC=jnp.full((num_rows, max_decode_length), pad_id, jnp.int32),
        last_B=jnp.zeros((num_rows,), jnp.int32),
        # Rows that only fill up the batch never say EOS and would keep the loop going.
        ended_B=is_padding(encoder_input_tokens_BxS),
        cache=start_cache(model, variables, encoder_input_tokens_BxS, max_decode_length),
    )
    return jax.lax.while_loop(unfinished, step, start).tokens_BxC


def is_padding(inputs_BxS):
    """Rows that only fill up a batch: bool (B,)."""
    return ~jnp.any(inputs_BxS > 0, axis=1)


def start_cache(model: Transformer, variables, inputs_BxS, max_decode_length: int) -> DecodeCache:
    """Runs the encoder: the cache before the first token, its cross-attention keys made."""
    settings.checked("max_decode_length", max_decode_length, settings.Count)
    return model.apply(variables, inputs_BxS, max_decode_length, method="start_cache")


def shift_right(targets_BxT):
    """Decoder inputs of targets: `[[9, 1, 0]]` gives `[[0, 9, 1]]` (T5's start token is 0)."""
    return jnp.pad(targets_BxT[:, :-1], ((0, 0), (1, 0)))


def token_log_probabilities(logits_BxTxV, targets_BxT):
    """Log-probability of each target token: float32 (B, T), nats, 0 at padding."""
    chosen_BxT = jnp.take_along_axis(logits_BxTxV, targets_BxT[:, :, None], axis=-1)[:, :, 0]
    log_prob_BxT = chosen_BxT - jax.nn.logsumexp(logits_BxTxV, axis=-1)
    return jnp.where(targets_BxT > 0, log_prob_BxT, 0.0)


def rank_labels(
    model: Transformer,
    params: Any,
    encoder_input_tokens_BxS,
    label_tokens_LxT,
    length_normalized: bool = False,
):
    """Log-probability of every label as the answer to every input.

    All labels of an input lie side by side in one decoder sequence of F = L * T positions, told
    apart by segment ids, so that the input is read once:

        labels (L = 2, T = 3)    [[7, 1, 0], [4, 9, 1]]
        targets                  [7, 1, 0, 4, 9, 1]
        decoder inputs           [0, 7, 1, 0, 4, 9]
        decoder segment ids      [1, 1, 1, 2, 2, 2]

    T5 knows positions by their differences only, so that a block's place changes nothing.

    Args:
      label_tokens_LxT: each label as training wrote it (with EOS), then padding.

    Returns:
      float32 (B, L), nats: sums over a label's tokens, or means if `length_normalized`; -inf for
      a label of padding alone, which fills up L, and finite, without meaning, for such an input.
    """
    if label_tokens_LxT.ndim != 2:
        raise InputError(f"label_tokens_LxT: expected shape (L, T), got {label_tokens_LxT.shape}")
    num_rows, (num_labels, length) = len(encoder_input_tokens_BxS), label_tokens_LxT.shape
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
