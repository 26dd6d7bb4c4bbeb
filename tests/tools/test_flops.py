"""Formulas of operations against the products of the network's own jaxpr."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poison_t5x.model import decoding, network
from poison_t5x.model.config import REMAT_POLICIES, T5Config
from poison_t5x.model.network import Transformer
from poison_t5x.tools import flops

CONFIG = T5Config(
    vocab_size=53,
    emb_dim=13,
    num_heads=3,
    num_encoder_layers=3,
    num_decoder_layers=2,
    head_dim=7,
    mlp_dim=17,
    mlp_activations=("gelu", "linear"),
    dropout_rate=0.0,
    one_hot_embedding=True,
)
B, S, T = 5, 11, 9


def _count(jaxpr) -> int:
    """Operations of all dot_generals, those of a scan's body as often as it runs."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            depth = math.prod(shape[axis] for axis in contracted)
            total += 2 * depth * math.prod(equation.outvars[0].aval.shape)
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    total += times * _count(inner)
    return total


def _step(config: T5Config) -> int:
    model = Transformer(config)
    params = jax.eval_shape(lambda key: network.initial_params(model, key), jax.random.key(0))

    def loss(params, inputs, targets):
        logits = model.apply({"params": params}, inputs, targets, targets, enable_dropout=False)
        return jnp.sum(logits**2)

    inputs, targets = np.ones((B, S), np.int32), np.ones((B, T), np.int32)
    return _count(jax.make_jaxpr(jax.grad(loss))(params, inputs, targets).jaxpr)


# The gradient of the position biases is summed over the batch by a product with ones, a way of
# adding that no formula of the network has.
SUMS_OF_BIASES = 2 * B * CONFIG.num_heads * (S * S + T * T)


@pytest.mark.parametrize("policy", REMAT_POLICIES)
@pytest.mark.parametrize("scan", [False, True], ids=["layers", "scanned"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"mlp_activations": ("relu",), "logits_via_embedding": True}],
    ids=["v1_1", "v1_0"],
)
def test_a_train_steps_products(changes, scan, policy):
    config = dataclasses.replace(CONFIG, scan_layers=scan, remat_policy=policy, **changes)
    counted = flops.train(config, B, S, T)
    assert _step(config) == counted.total + SUMS_OF_BIASES
    assert (counted.recomputed > 0) == (policy != "none")


def test_a_gather_needs_no_products():
    gathered = dataclasses.replace(CONFIG, one_hot_embedding=False)
    assert flops.train(gathered, B, S, T).one_hot == 0
    assert _step(gathered) == flops.train(gathered, B, S, T).total + SUMS_OF_BIASES


def test_a_ranking_steps_products():
    model = Transformer(CONFIG)
    params = jax.eval_shape(lambda key: network.initial_params(model, key), jax.random.key(0))
    labels = np.ones((2, 3), np.int32)
    jaxpr = jax.make_jaxpr(lambda params, x: decoding.rank_labels(model, params, x, labels))(
        params, np.ones((B, S), np.int32)
    )
    assert _count(jaxpr.jaxpr) == flops.rank(CONFIG, B, S, 6).total
