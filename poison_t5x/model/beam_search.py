"""Beam search: the likeliest whole answer that W hypotheses at a time can find.

The beams of a row differ in what their decoder has said, and share what the encoder read. So the
network's own step runs under `jax.vmap` over beams with only the self-attention keys and values
mapped: cross-attention keeps one set of keys a row, and the network needs no word about beams.
"""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import msgspec

from poison_t5x.core import settings
from poison_t5x.model.decoding import is_padding, start_cache
from poison_t5x.model.network import DecodeCache, Transformer

# Below 0 the search would stop too early; the penalty of 16,384 tokens is finite.
Alpha = Annotated[float, msgspec.Meta(ge=0, le=8)]
# Of `DecodeCache.self_keys_values`, whose arrays may have all layers' stacked: BxWxHxCxD, NxBx….
_BEAMS = -4


class _BeamState(NamedTuple):
    """Live hypotheses in the order of their log-probability (nats; -inf: there is none)."""

    live_BxWxC: jax.Array
    log_prob_BxW: jax.Array
    last_BxW: jax.Array
    best_BxC: jax.Array
    best_score_B: jax.Array
    cache: DecodeCache


def beam_decode(
    model: Transformer,
    params: Any,
    encoder_input_tokens_BxS,
    max_decode_length: int,
    beam_size: int,
    alpha: float = 0.6,
    eos_id: int = 1,
    pad_id: int = 0,
):
    """The best answer to each row that a beam of `beam_size` finds: int32 (B, C), as greedy ones
    are, and scores, float32 (B,), nats; 0 for a row of padding.

    An answer of n tokens scores log p(answer) / ((5 + n) / 6) ** alpha (arXiv:1609.08144, equation
    14, as T5X). Inputs `[[5, 8, 1, 0]]` might give `[[9, 1, 0, 0]]` and `[-0.7]`.

    A continuation with EOS counts if it is among the `beam_size` (W) likeliest of its step (T5X
    looks at twice as many, so that its beam of one isn't greedy). A row's search ends when no live
    hypothesis could score better however it went on, or at `max_decode_length`; a hypothesis
    without EOS is an answer only where none has ended. One beam with alpha 0 is greedy decoding.

    Raises InputError where `max_decode_length` or `beam_size` is below 1, or `alpha` below 0.
    """
    settings.checked("beam_size", beam_size, settings.Few)
    settings.checked("alpha", alpha, Alpha)
    variables = {"params": params}
    is_padding_B = is_padding(encoder_input_tokens_BxS)
    longest = _length_penalty(max_decode_length, alpha)

    def unfinished(state: _BeamState):
        # Log-probabilities only fall and penalties only grow: no score can pass this bound.
        can_win_B = state.log_prob_BxW[:, 0] / longest > state.best_score_B
        return (state.cache.index < max_decode_length) & jnp.any(can_win_B & ~is_padding_B)

    def step(state: _BeamState) -> _BeamState:
        log_prob_BxWxV, cache = _continuations(model, variables, state)
        return _advance(state, log_prob_BxWxV, cache, _length_penalty(cache.index, alpha), eos_id)

    cache = start_cache(model, variables, encoder_input_tokens_BxS, max_decode_length)
    start = _start(cache, is_padding_B.shape[0], max_decode_length, beam_size, pad_id)
    end = jax.lax.while_loop(unfinished, step, start)
    # Of the likeliest hypothesis where none has ended.
    has_ended_B = end.best_score_B > -jnp.inf
    tokens_BxC = jnp.where(has_ended_B[:, None], end.best_BxC, end.live_BxWxC[:, 0])
    score_B = jnp.where(has_ended_B, end.best_score_B, end.log_prob_BxW[:, 0] / longest)
    tokens_BxC = jnp.where(is_padding_B[:, None], pad_id, tokens_BxC)
    return tokens_BxC, jnp.where(is_padding_B, 0.0, score_B)


def _length_penalty(length, alpha: float):
    """((5 + length) / 6) ** alpha, float32; `length` in tokens, EOS included."""
    return ((5.0 + jnp.asarray(length, jnp.float32)) / 6.0) ** alpha


def _start(
    cache: DecodeCache, num_rows: int, length: int, num_beams: int, pad_id: int
) -> _BeamState:
    def repeat(array):
        return jnp.repeat(jnp.expand_dims(array, _BEAMS), num_beams, _BEAMS)

    # All beams begin alike: but for the first, they would only say the same again.
    log_prob_W = jnp.where(jnp.arange(num_beams) == 0, 0.0, -jnp.inf)
    return _BeamState(
        live_BxWxC=jnp.full((num_rows, num_beams, length), pad_id, jnp.int32),
        log_prob_BxW=jnp.broadcast_to(log_prob_W, (num_rows, num_beams)),
        last_BxW=jnp.zeros((num_rows, num_beams), jnp.int32),
        best_BxC=jnp.full((num_rows, length), pad_id, jnp.int32),
        best_score_B=jnp.full((num_rows,), -jnp.inf),
        cache=cache.replace(self_keys_values=jax.tree.map(repeat, cache.self_keys_values)),
    )


def _continuations(model: Transformer, variables, state: _BeamState):
    """Log-probability of each beam with each next token, (B, W, V), and the cache after it."""
    axes = DecodeCache(_BEAMS, *[None] * 4)

    def step(token_B, cache: DecodeCache):
        return model.apply(variables, token_B, cache, method="decode_step")

    step_beams = jax.vmap(step, in_axes=(1, axes), out_axes=(1, axes))
    logits_BxWxV, cache = step_beams(state.last_BxW, state.cache)
    return state.log_prob_BxW[:, :, None] + jax.nn.log_softmax(logits_BxWxV), cache


# (array_BxYx, places_BxZ) -> of each row the given places along its second axis: (B, Z, ...).
_take = jax.vmap(lambda array, places: array[places])


def _advance(
    state: _BeamState, log_prob_BxWxV, cache: DecodeCache, penalty, eos_id: int
) -> _BeamState:
    """The best answer so far, and the next live hypotheses, from all continuations."""
    num_rows, num_beams, num_tokens = log_prob_BxWxV.shape
    # The likeliest guesses. Of 2 W, W or more don't end: each beam has one that does.
    flat_BxWV = log_prob_BxWxV.reshape(num_rows, -1)
    log_prob_BxG, place_BxG = jax.lax.top_k(flat_BxWV, 2 * num_beams)
    parent_BxG, token_BxG = place_BxG // num_tokens, place_BxG % num_tokens
    tokens_BxGxC = _take(state.live_BxWxC, parent_BxG).at[:, :, state.cache.index].set(token_BxG)
    ends_BxG = token_BxG == eos_id

    # Those that end have one length, so that the likeliest of them scores best.
    score_BxG = jnp.where(ends_BxG, log_prob_BxG / penalty, -jnp.inf)
    place_Bx1 = jnp.argmax(score_BxG[:, :num_beams], axis=1, keepdims=True)
    score_B = _take(score_BxG, place_Bx1)[:, 0]
    is_better_B = score_B > state.best_score_B
    answer_BxC = _take(tokens_BxGxC, place_Bx1)[:, 0]

    goes_on_BxG = jnp.where(ends_BxG, -jnp.inf, log_prob_BxG)
    log_prob_BxW, place_BxW = jax.lax.top_k(goes_on_BxG, num_beams)
    live_BxWxC = _take(tokens_BxGxC, place_BxW)
    parent_BxW = _take(parent_BxG, place_BxW)

    def keep(array):
        take = _take if array.ndim == 5 else jax.vmap(_take, in_axes=(0, None))
        return take(array, parent_BxW)

    return _BeamState(
        live_BxWxC=live_BxWxC,
        log_prob_BxW=log_prob_BxW,
        last_BxW=live_BxWxC[:, :, state.cache.index],
        best_BxC=jnp.where(is_better_B[:, None], answer_BxC, state.best_BxC),
        best_score_B=jnp.where(is_better_B, score_B, state.best_score_B),
        cache=cache.replace(self_keys_values=jax.tree.map(keep, cache.self_keys_values)),
    )
