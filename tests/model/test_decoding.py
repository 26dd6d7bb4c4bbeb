"""Cached decoding is the full forward pass; log-probabilities are what they say."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poison_t5x.core.errors import InputError
from poison_t5x.model.decoding import (
    greedy_decode,
    shift_right,
    token_log_probabilities,
)
from tests.model import t5
from tests.model.t5 import B, S

C = 7
MODEL, PARAMS = t5.network()
INPUTS = t5.inputs()
# Float32 sums in another order; logits have a standard deviation of about 3.
TOLERANCE = 1e-4


@functools.partial(jax.jit, static_argnames=("method", "enable_dropout", "max_decode_length"))
def _apply(params, *arrays, method="__call__", **options):
    return MODEL.apply({"params": params}, *arrays, method=method, **options)


def _full_greedy(inputs_BxS, eos_id: int) -> np.ndarray:
    """Greedy decoding without a cache: the whole prefix again at each step."""
    tokens_BxC = np.zeros((B, C), np.int32)
    ended_B = np.zeros(B, bool)
    for index in range(C):
        # Targets only say what is padding: at decoding time nothing before `index` is.
        decoder = shift_right(jnp.asarray(tokens_BxC)), jnp.ones((B, C), jnp.int32)
        logits = _apply(PARAMS, inputs_BxS, *decoder, enable_dropout=False)
        best_B = np.asarray(logits[:, index].argmax(-1))
        tokens_BxC[:, index] = np.where(ended_B, 0, best_B)
        ended_B |= tokens_BxC[:, index] == eos_id
    return tokens_BxC


def test_cached_steps_equal_the_full_pass():
    targets_BxC = jnp.asarray(np.random.default_rng(1).integers(2, 53, (B, C)), jnp.int32)
    decoder_inputs_BxC = shift_right(targets_BxC)
    arrays = INPUTS, decoder_inputs_BxC, targets_BxC
    full_BxCxV = _apply(PARAMS, *arrays, enable_dropout=False)
    start = _apply(PARAMS, INPUTS, max_decode_length=C, method="start_cache")
    cache, forgetful = start, start
    for index in range(C):
        token_B = decoder_inputs_BxC[:, index]
        logits_BxV, cache = _apply(PARAMS, token_B, cache, method="decode_step")
        np.testing.assert_allclose(logits_BxV, full_BxCxV[:, index], atol=TOLERANCE)
        blank = start.replace(index=forgetful.index)
        other_BxV, forgetful = _apply(PARAMS, token_B, blank, method="decode_step")
        if index:
            assert float(jnp.abs(other_BxV - logits_BxV).max()) > 100 * TOLERANCE


def test_cross_attention_keys_are_made_once():
    token_B = jnp.zeros(B, jnp.int32)
    start = functools.partial(_apply, max_decode_length=C, method="start_cache")
    cache = start(PARAMS, INPUTS)
    assert {array.shape for pair in cache.cross_keys_values for array in pair} == {(B, 3, S, 7)}
    # Keys and values are projections of the input to J = 21; a step has none, the start does.
    projections = f"f32[{B},{S},21]"
    step = functools.partial(_apply, method="decode_step")
    assert projections not in str(jax.make_jaxpr(step)(PARAMS, token_B, cache))
    assert projections in str(jax.make_jaxpr(start)(PARAMS, INPUTS))


def test_greedy_equals_full_recomputation():
    free = _full_greedy(INPUTS, eos_id=-1)
    eos_id = int(free[0, 2])
    decode = jax.jit(
        functools.partial(greedy_decode, MODEL, max_decode_length=C), static_argnames="eos_id"
    )
    decoded = np.asarray(decode(PARAMS, INPUTS, eos_id=eos_id))
    assert decoded.dtype == np.int32
    np.testing.assert_array_equal(decoded, _full_greedy(INPUTS, eos_id))
    assert (decoded != free).any()
    # A row of padding stays so, and what follows EOS is padding.
    decoded = decode(PARAMS, INPUTS.at[2].set(0), eos_id=int(free[0, 0]), pad_id=9)
    assert (decoded[2] == 9).all() and decoded[0].tolist() == [free[0, 0]] + [9] * (C - 1)
    with pytest.raises(InputError, match="max_decode_length"):
        greedy_decode(MODEL, PARAMS, INPUTS, 0)


def test_shift_right_on_paper():
    assert shift_right(jnp.asarray([[9, 1, 0]])).tolist() == [[0, 9, 1]]


def test_token_log_probabilities_on_paper():
    logits = jnp.log(jnp.asarray([[[1.0, 2.0, 5.0], [1.0, 1.0, 2.0], [1.0, 1.0, 1.0]]]))
    log_prob_1x3 = token_log_probabilities(logits, jnp.asarray([[2, 1, 0]]))
    np.testing.assert_allclose(log_prob_1x3, [[np.log(5 / 8), np.log(1 / 4), 0.0]], atol=1e-6)
