"""Cached decoding is the full forward pass; log-probabilities are what they say."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from poison_t5x.core.errors import InputError
from poison_t5x.model.config import T5Config
from poison_t5x.model.decoding import (
    greedy_decode,
    log_probabilities,
    shift_right,
    token_log_probabilities,
)
from poison_t5x.model.network import Transformer
from tests.golden.t5_weights import T5_CONFIGS, draw_weights

SETTINGS = T5_CONFIGS["v1_1"] | {"num_encoder_layers": 1, "num_decoder_layers": 2}
CONFIG = T5Config(**SETTINGS)
MODEL = Transformer(CONFIG)
B, S, C = 5, 11, 7
# Float32 sums in another order; logits have a standard deviation of about 3.
TOLERANCE = 1e-4


@pytest.fixture(name="params", scope="module")
def _params():
    weights = draw_weights(SETTINGS)
    weights = {tuple(path.split("/")): jnp.asarray(array) for path, array in weights.items()}
    return traverse_util.unflatten_dict(weights)


def _inputs():
    tokens_BxS = np.random.default_rng(0).integers(2, 53, (B, S))
    tokens_BxS[1:, -3:] = 0
    return jnp.asarray(tokens_BxS, jnp.int32)


@functools.partial(jax.jit, static_argnames=("method", "enable_dropout", "max_decode_length"))
def _apply(params, *arrays, method="__call__", **options):
    return MODEL.apply({"params": params}, *arrays, method=method, **options)


def _full_greedy(params, inputs_BxS, eos_id: int) -> np.ndarray:
    """Greedy decoding without a cache: the whole prefix again at each step."""
    tokens_BxC = np.zeros((B, C), np.int32)
    ended_B = np.zeros(B, bool)
    for index in range(C):
        # Targets only say what is padding: at decoding time nothing before `index` is.
        logits = _apply(
            params,
            inputs_BxS,
            shift_right(jnp.asarray(tokens_BxC)),
            jnp.ones((B, C), jnp.int32),
            enable_dropout=False,
        )
        best_B = np.asarray(logits[:, index].argmax(-1))
        tokens_BxC[:, index] = np.where(ended_B, 0, best_B)
        ended_B |= tokens_BxC[:, index] == eos_id
    return tokens_BxC


def test_cached_steps_equal_the_full_pass(params):
    inputs_BxS = _inputs()
    targets_BxC = jnp.asarray(np.random.default_rng(1).integers(2, 53, (B, C)), jnp.int32)
    decoder_inputs_BxC = shift_right(targets_BxC)
    encoded = _apply(params, inputs_BxS, enable_dropout=False, method="encode")
    full_BxCxV = _apply(
        params,
        encoded,
        inputs_BxS,
        decoder_inputs_BxC,
        targets_BxC,
        enable_dropout=False,
        method="decode",
    )
    start = _apply(params, encoded, inputs_BxS, max_decode_length=C, method="start_cache")
    cache, forgetful = start, start
    for index in range(C):
        token_B = decoder_inputs_BxC[:, index]
        logits_BxV, cache = _apply(params, token_B, cache, method="decode_step")
        np.testing.assert_allclose(logits_BxV, full_BxCxV[:, index], atol=TOLERANCE)
        blank = start.replace(index=forgetful.index)
        other_BxV, forgetful = _apply(params, token_B, blank, method="decode_step")
        if index:
            assert float(jnp.abs(other_BxV - logits_BxV).max()) > 100 * TOLERANCE


def test_cross_attention_keys_are_made_once(params):
    inputs_BxS, token_B = _inputs(), jnp.zeros(B, jnp.int32)
    encoded = _apply(params, inputs_BxS, enable_dropout=False, method="encode")
    start = functools.partial(_apply, max_decode_length=C, method="start_cache")
    cache = start(params, encoded, inputs_BxS)
    _, after = _apply(params, token_B, cache, method="decode_step")
    for one, other in zip(cache.layers, after.layers, strict=True):
        assert one.cross_key_BxHxSxD.shape == (B, 3, S, 7)
        np.testing.assert_array_equal(one.cross_key_BxHxSxD, other.cross_key_BxHxSxD)
    # Keys and values are projections of the input to J = 21; a step has none, the start does.
    projections = f"f32[{B},{S},21]"
    step = functools.partial(_apply, method="decode_step")
    assert projections not in str(jax.make_jaxpr(step)(params, token_B, cache))
    assert projections in str(jax.make_jaxpr(start)(params, encoded, inputs_BxS))


def test_greedy_equals_full_recomputation(params):
    inputs_BxS = _inputs()
    free = _full_greedy(params, inputs_BxS, eos_id=-1)
    eos_id = int(free[0, 2])
    expected = _full_greedy(params, inputs_BxS, eos_id)
    decode = jax.jit(functools.partial(greedy_decode, MODEL, max_decode_length=C, eos_id=eos_id))
    found = np.asarray(decode(params, inputs_BxS))
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected)
    assert (found != free).any()


def test_greedy_pads_after_eos_and_stops_early(params):
    inputs_BxS = _inputs()
    first = _full_greedy(params, inputs_BxS[:1].repeat(B, 0), eos_id=-1)[0, 0]
    row = inputs_BxS[:1]
    found = greedy_decode(MODEL, params, row, C, eos_id=int(first), pad_id=9)
    assert found.tolist() == [[int(first)] + [9] * (C - 1)]


def test_greedy_leaves_padding_rows_alone(params):
    inputs_BxS = _inputs().at[2].set(0)
    found = greedy_decode(MODEL, params, inputs_BxS, C, eos_id=52)
    assert (found[2] == 0).all() and (found[:2] > 0).any()
    with pytest.raises(InputError, match="max_decode_length"):
        greedy_decode(MODEL, params, inputs_BxS, 0)


def test_shift_right_on_paper():
    assert shift_right(jnp.asarray([[9, 1, 0]])).tolist() == [[0, 9, 1]]


def test_token_log_probabilities_on_paper():
    logits = jnp.log(jnp.asarray([[[1.0, 2.0, 5.0], [1.0, 1.0, 2.0], [1.0, 1.0, 1.0]]]))
    found = token_log_probabilities(logits, jnp.asarray([[2, 1, 0]]))
    np.testing.assert_allclose(found, [[np.log(5 / 8), np.log(1 / 4), 0.0]], atol=1e-6)


def test_log_probabilities_sum_real_tokens(params):
    targets = jnp.asarray(np.random.default_rng(2).integers(2, 53, (B, C)), jnp.int32)
    targets = targets.at[1, 4:].set(0).at[3].set(0)
    batch = {
        "encoder_input_tokens": _inputs(),
        "decoder_input_tokens": shift_right(targets),
        "decoder_target_tokens": targets,
    }
    log_prob_B, num_tokens_B = jax.jit(functools.partial(log_probabilities, MODEL))(params, batch)
    assert log_prob_B.dtype == jnp.float32
    assert num_tokens_B.tolist() == [C, 4, C, 0, C]
    logits = _apply(params, *batch.values(), enable_dropout=False)
    by_hand = np.asarray(jax.nn.log_softmax(logits))
    for row in range(B):
        tokens = np.asarray(targets[row])
        expected = sum(by_hand[row, i, token] for i, token in enumerate(tokens) if token)
        assert float(log_prob_B[row]) == pytest.approx(expected, abs=1e-4)
    with pytest.raises(InputError, match="packed"):
        log_probabilities(MODEL, params, batch | {"decoder_segment_ids": targets})
