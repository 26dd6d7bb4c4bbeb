"""Every parameter has its place on every mesh, and what can't be placed is named."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util
from jax.sharding import PartitionSpec

from poison_t5x.core.errors import InputError
from poison_t5x.model.config import T5Config
from poison_t5x.model.network import Transformer
from poison_t5x.train import optimizers, train_state
from poison_t5x.train.partitioning import (
    PartitionConfig,
    Partitioner,
    standard_logical_axis_rules,
)
from tests.mesh_model import CONFIG

V1_1 = dataclasses.replace(CONFIG, num_encoder_layers=2)
V1_0 = dataclasses.replace(V1_1, mlp_activations=("relu",), logits_via_embedding=True)
PRIMES = T5Config(
    vocab_size=53, emb_dim=13, num_heads=3, head_dim=7, mlp_dim=17, mlp_activations=("relu",)
)


def _flat(tree) -> dict:
    return traverse_util.flatten_dict(tree, sep="/")


def _params(config: T5Config, *partitions, num_devices: int = 8):
    partitioner = Partitioner(PartitionConfig(*partitions), jax.devices()[:num_devices])
    return _flat(train_state.abstract_params(Transformer(config), partitioner))


def _error(config: T5Config, *partitions) -> str:
    with pytest.raises(InputError) as caught:
        _params(config, *partitions)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("dims", "embed"),
    [
        ((1, 1), [None]),
        ((2, 1), ["model"]),
        ((1, 2), ["data"]),
        ((2, 2), ["model", "data"]),
    ],
)
def test_rules_are_t5xs(dims, embed):
    """Those of t5x.partitioning.standard_logical_axis_rules."""
    rules = standard_logical_axis_rules(*dims)
    assert [mesh_axis for axis, mesh_axis in rules if axis == "embed"] == embed
    assert {axis: mesh_axis for axis, mesh_axis in rules if axis != "embed"} == {
        "batch": "data",
        **dict.fromkeys(("vocab", "mlp", "heads", "joined_kv"), "model"),
        **dict.fromkeys(("kv", "relpos_buckets", "length", "layers", "stack")),
    }


# Parameter -> its spec with parameter dims 1, with parameter dims 2, and with both dims 2.
MODEL_FIRST = [("model", None), ("model", "data"), ("model", "data")]
MODEL_LAST = [spec[::-1] for spec in MODEL_FIRST]
PLACES = {
    "token_embedder/embedding": MODEL_FIRST,
    "encoder/relpos_bias/rel_embedding": [("model", None)] * 3,
    "encoder/encoder_norm/scale": [(None,), ("data",), ("model",)],
    "encoder/layers_1/attention/query/kernel": MODEL_LAST,
    "decoder/layers_0/self_attention/out/kernel": MODEL_FIRST,
    "decoder/layers_0/mlp/wo/kernel": MODEL_FIRST,
    "decoder/logits_dense/kernel": MODEL_LAST,
}


@pytest.mark.parametrize(("column", "dims"), [(0, (1, 1)), (1, (1, 2)), (2, (2, 2))])
def test_parameters_lie_where_the_rules_say(column, dims):
    params = _params(V1_1, 4, *dims)
    for name, specs in PLACES.items():
        assert params[name].sharding.spec == PartitionSpec(*specs[column]), name


@pytest.mark.parametrize("num_partitions", [1, 2, 4])
@pytest.mark.parametrize(("config", "dims"), [(V1_0, (1, 1)), (V1_1, (1, 2)), (V1_1, (2, 2))])
def test_every_parameter_is_claimed(config, num_partitions, dims):
    params = _params(config, num_partitions, *dims)
    # Two encoder layers, one decoder layer, and what is outside the layers.
    assert len(params) == (2 * 8 + 13 + 5 if config is V1_0 else 2 * 9 + 14 + 6)
    for name, param in params.items():
        # A shard of each on each device: all 8 divide what they should.
        shard = param.sharding.shard_shape(param.shape)
        assert len(shard) == len(param.shape), name
        # Matrices lie over the model axis; with parameters' dims 2 over the data axis too.
        parts = np.prod(param.shape) // np.prod(shard)
        if name.endswith("kernel") or name.endswith("/embedding"):
            assert parts == (8 if dims[1] == 2 else num_partitions), name


def test_prime_dimensions_are_fine_where_nothing_is_divided():
    assert all(param.sharding.is_fully_replicated for param in _params(PRIMES).values())


@pytest.mark.parametrize(
    ("config", "partitions", "parts"),
    [
        (PRIMES, (2,), ("'model'", "over the 2 devices")),
        (dataclasses.replace(V1_1, vocab_size=45), (4,), ("'vocab' dimension of 45",)),
        (dataclasses.replace(V1_1, mlp_dim=30), (4,), ("mlp/w", "'mlp' dimension of 30")),
        (dataclasses.replace(V1_1, emb_dim=12), (1, 1, 2), ("'embed' dimension of 12", "8 dev")),
        (
            dataclasses.replace(V1_1, num_heads=6, head_dim=4),
            (4,),
            ("relpos_bias/rel_embedding", "'heads' dimension of 6", "NUM_PARTITIONS"),
        ),
    ],
)
def test_dimensions_that_cant_be_divided_are_named(config, partitions, parts):
    message = _error(config, *partitions)
    assert [part for part in parts if part not in message] == [], message
    assert message.split(":")[0] in _params(config)


def test_axis_without_a_rule_is_named():
    box = nn.LogicallyPartitioned(jax.ShapeDtypeStruct((16, 4), jnp.float32), ("embed", "experts"))
    with pytest.raises(InputError) as caught:
        Partitioner(PartitionConfig()).abstract({"router": {"kernel": box}})
    assert str(caught.value) == "router/kernel: no partitioning rule for its axis 'experts'"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((3,), "NUM_PARTITIONS: the 8 devices can't be divided by 3"),
        ((16,), "NUM_PARTITIONS: the 8 devices can't be divided by 16"),
        ((1, 1, 3), "PARAMETER_PARTITIONING_DIMS: expected one of 1, 2, found 3"),
    ],
)
def test_settings_that_dont_go(settings, message):
    with pytest.raises(InputError) as caught:
        Partitioner(PartitionConfig(*settings))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("num_partitions", "num_devices", "shape"),
    [(1, 8, (8, 1)), (4, 8, (2, 4)), (8, 8, (1, 8)), (1, 1, (1, 1)), (3, 6, (2, 3))],
)
def test_the_data_axis_takes_the_rest(num_partitions, num_devices, shape):
    partitioner = Partitioner(PartitionConfig(num_partitions), jax.devices()[:num_devices])
    assert partitioner.mesh.devices.shape == shape
    assert partitioner.num_data == shape[0]
    rows = np.arange(2 * shape[0] * 3, dtype=np.int32).reshape(-1, 3)
    placed = partitioner.put_batch({"tokens": rows})["tokens"]
    assert placed.sharding.shard_shape(placed.shape) == (2, 3)
    np.testing.assert_array_equal(placed, rows)


def test_activation_constraint_takes_effect_in_scope_only():
    partitioner = Partitioner(PartitionConfig(4))

    def double(x_BxQxM):
        return nn.with_logical_constraint(2 * x_BxQxM, ("batch", "length", "mlp"))

    x_BxQxM = jnp.ones((6, 5, 12), jnp.float32)
    with partitioner.scope():
        constrained = jax.jit(double)(x_BxQxM)
    assert constrained.sharding.spec == PartitionSpec("data", None, "model")
    assert constrained.sharding.shard_shape(constrained.shape) == (3, 5, 3)
    assert jax.jit(double)(x_BxQxM).sharding.is_fully_replicated


@pytest.mark.parametrize("name", optimizers.NAMES)
def test_optimizer_state_lies_as_its_parameters_do(name):
    # Wide enough for Adafactor to factor the MLP's statistics: at least 128 both ways.
    config = dataclasses.replace(V1_1, emb_dim=128, mlp_dim=136)
    transform = optimizers.make(optimizers.OptimizerConfig(name=name), lambda step: 0.1)
    partitioner = Partitioner(PartitionConfig(4, 1, 2))
    state = train_state.abstract(Transformer(config), transform, partitioner)
    places = {leaf.shape: leaf.sharding.spec for leaf in jax.tree.leaves(state.params)}
    kernel = state.params["encoder"]["layers_0"]["mlp"]["wo"]["kernel"]
    assert kernel.sharding.spec == PartitionSpec("model", "data")
    like_a_parameter = 0
    for leaf in jax.tree.leaves(state.opt_state):
        if leaf.shape in places and len(leaf.shape) > 1:
            assert leaf.sharding.spec == places[leaf.shape]
            like_a_parameter += leaf.shape == kernel.shape
        elif leaf.shape not in places:
            assert leaf.sharding.is_fully_replicated
    # Two layers of the encoder and one of the decoder; AdamW keeps two moments of each.
    assert like_a_parameter == (6 if name == "adamw" else 0)
