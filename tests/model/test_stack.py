"""Scanned layers are the layers, whatever the backward pass keeps of them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from poison_t5x.core.errors import InputError
from poison_t5x.model import beam_search, decoding, network, stack
from poison_t5x.model.config import T5Config
from poison_t5x.model.network import Transformer
from tests.golden.t5_weights import T5_CONFIGS, draw_weights
from tests.scanned import scanned, stacked

# Unequal depths, neither of them another dimension.
SETTINGS = T5_CONFIGS["v1_1"] | {"num_encoder_layers": 3, "num_decoder_layers": 2}
CONFIG = T5Config(**SETTINGS)
B, S, T = 5, 11, 7
# Float32 sums in another order; logits have a standard deviation of about 3.
TOLERANCE = 1e-4


@functools.cache
def _params():
    return traverse_util.unflatten_dict(draw_weights(SETTINGS), sep="/")


def _difference(one, other) -> float:
    """The largest, over all leaves of two trees."""
    return max(jax.tree.leaves(jax.tree.map(lambda a, b: float(np.abs(a - b).max()), one, other)))


def _tokens():
    rng = np.random.default_rng(0)
    inputs_BxS = rng.integers(2, CONFIG.vocab_size, (B, S), np.int32)
    inputs_BxS[1:, -3:] = 0
    return inputs_BxS, rng.integers(2, CONFIG.vocab_size, (B, T), np.int32)


@functools.partial(jax.jit, static_argnames=("config", "enable_dropout"))
def _logits(config: T5Config, params, **options):
    inputs_BxS, targets_BxT = _tokens()
    model = Transformer(config)
    return model.apply({"params": params}, inputs_BxS, targets_BxT, targets_BxT, **options)


def _loss(params, config: T5Config, **options):
    logits_BxTxV = _logits(config, params, **options)
    return -jnp.mean(jax.nn.log_softmax(logits_BxTxV)[..., 5])


def test_scanned_layers_give_the_logits_of_layers():
    expected = _logits(CONFIG, _params(), enable_dropout=False)
    ours = _logits(scanned(CONFIG), stacked(_params()), enable_dropout=False)
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE)
    other = stacked(_params())
    other["encoder"]["layers"] = jax.tree.map(lambda x: x[::-1], other["encoder"]["layers"])
    swapped = _logits(scanned(CONFIG), other, enable_dropout=False)
    assert np.abs(swapped - expected).max() > 100 * TOLERANCE


@functools.partial(jax.jit, static_argnames=("config", "enable_dropout"))
def _gradients(params, config: T5Config, enable_dropout: bool = False, **options):
    return jax.grad(_loss)(params, config, enable_dropout=enable_dropout, **options)


@pytest.mark.parametrize(
    ("scan", "policy"),
    [
        (False, "full"),
        (True, "minimal"),
        # Of the two that `test_steps` trains with.
        pytest.param(True, "none", marks=pytest.mark.slow),
        pytest.param(True, "full", marks=pytest.mark.slow),
    ],
)
def test_gradients_are_the_same_whatever_is_kept(scan, policy):
    expected = stacked(_gradients(_params(), CONFIG))
    config = dataclasses.replace(CONFIG, scan_layers=scan, remat_policy=policy)
    ours = _gradients(stacked(_params()) if scan else _params(), config)
    # Of gradients up to 1.
    assert _difference(ours if scan else stacked(ours), expected) < 1e-5


@pytest.mark.slow
def test_rematerialising_draws_the_same_dropout():
    config = dataclasses.replace(scanned(CONFIG), dropout_rate=0.4)
    # Compiled in a fraction of the time of JAX's default generator.
    rngs = {"dropout": jax.random.key(3, impl="unsafe_rbg")}
    configs = (dataclasses.replace(config, remat_policy=policy) for policy in ("none", "full"))
    kept, again = (_gradients(stacked(_params()), one, True, rngs=rngs) for one in configs)
    assert _difference(kept, again) < 1e-5


class _Coin(nn.Module):
    """Adds 0 or 1 to each number."""

    config: T5Config

    def __call__(self, x):
        return x + jax.random.bernoulli(self.make_rng("dropout"), 0.5, x.shape).astype(x.dtype)


class _Coins(nn.Module):
    config: T5Config

    def setup(self):
        self.layers = stack.make(_Coin, self.config, 2)

    def __call__(self, x):
        return stack.run(self.layers, self.config, 2, lambda layer, x: (layer(x), None), x)[0]


def test_each_layer_draws_its_own_dropout():
    sums = _Coins(scanned(CONFIG)).apply({}, jnp.zeros(1000), rngs={"dropout": jax.random.key(1)})
    # Two coins; were they one, there would be no ones.
    assert 0.4 < np.mean(np.asarray(sums) == 1) < 0.6


# Of each stack's position biases: the table's product and its gradient, and the sum over the batch.
PRODUCTS_OF_BIASES = 2 * 3


def _count_products(jaxpr) -> int:
    """dot_generals of a jaxpr, those of a scan's body as often as it runs."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            total += 1
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                total += times * _count_products(inner)
    return total


@pytest.mark.parametrize("scan", [False, True], ids=["layers", "scanned"])
def test_what_each_policy_computes_again(scan):
    """Products: 9 an encoder layer (7 projections, 2 of attention), 15 a decoder layer (11, 4).

    A layer's last product is never needed again.
    """

    def count(policy):
        config = dataclasses.replace(CONFIG, scan_layers=scan, remat_policy=policy)
        params = stacked(_params()) if scan else _params()
        gradient = jax.grad(lambda params: _loss(params, config, enable_dropout=False))
        return _count_products(jax.make_jaxpr(gradient)(params).jaxpr)

    # Three of each: forward, and for two gradients; the logits' too.
    assert count("none") == 3 * (3 * 9 + 2 * 15 + 1) + PRODUCTS_OF_BIASES
    assert count("minimal") - count("none") == 3 * 2 + 2 * 4
    assert count("full") - count("none") == 3 * 8 + 2 * 14


def test_decoding_with_stacked_caches():
    inputs_BxS, _ = _tokens()
    one = Transformer(CONFIG), _params()
    other = Transformer(scanned(CONFIG)), stacked(_params())

    def decoded(decode, model, params, **options):
        program = functools.partial(decode, model, max_decode_length=T, **options)
        return jax.jit(program)(params, inputs_BxS)

    greedy = [decoded(decoding.greedy_decode, *network) for network in (one, other)]
    np.testing.assert_array_equal(*greedy)
    (tokens, scores), (ours, our_scores) = (
        decoded(beam_search.beam_decode, *network, beam_size=3) for network in (one, other)
    )
    np.testing.assert_array_equal(ours, tokens)
    np.testing.assert_allclose(our_scores, scores, atol=TOLERANCE)


def test_parameters_in_bfloat16():
    config = scanned(CONFIG, param_dtype="bfloat16", dtype="bfloat16")
    make = functools.partial(network.initial_params, Transformer(config))
    params = jax.eval_shape(make, jax.random.key(0))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"bfloat16"}
    logits = functools.partial(_logits, config, enable_dropout=False)
    assert jax.eval_shape(logits, params).dtype == jnp.float32


def test_unknown_policy():
    with pytest.raises(InputError, match=r"REMAT_POLICY: .*'ful' \(did you mean 'full'\?\)"):
        dataclasses.replace(CONFIG, remat_policy="ful")
