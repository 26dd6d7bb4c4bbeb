"""The network's parameters, and the equivalences that hold for any weights."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util
from jax.sharding import Mesh, PartitionSpec

from poison_t5x.core.errors import InputError
from poison_t5x.model.config import T5Config
from poison_t5x.model.decoding import shift_right
from poison_t5x.model.layers import MASKED, masked_bias, project, relative_position_buckets
from poison_t5x.model.network import Transformer
from tests.golden.t5_weights import T5_CONFIGS, draw_weights, weight_shapes

V1_0, V1_1 = T5Config(**T5_CONFIGS["v1_0"]), T5Config(**T5_CONFIGS["v1_1"])
# Where depth is nothing to the point: a layer less is compiled in half the time.
SHALLOW = dataclasses.replace(V1_1, num_encoder_layers=1, num_decoder_layers=1)
B, S, T = 5, 11, 7
# Float32 sums in another order; logits have a standard deviation of about 3.
TOLERANCE = 1e-4


# Written out from T5X's network.py and layers.py; E=13, H=3, J=21, M=17, V=53, R=32.
def _attention(name: str) -> dict:
    """Shape and logical axes of each parameter, as in all tables here."""
    ins = {f"{name}/{part}/kernel": (13, 21) for part in ("query", "key", "value")}
    ins = {path: (shape, ("embed", "joined_kv")) for path, shape in ins.items()}
    return ins | {f"{name}/out/kernel": ((21, 13), ("joined_kv", "embed"))}


ENCODER_LAYER = {
    "pre_attention_layer_norm/scale": ((13,), ("embed",)),
    **_attention("attention"),
    "pre_mlp_layer_norm/scale": ((13,), ("embed",)),
}
DECODER_LAYER = {
    "pre_self_attention_layer_norm/scale": ((13,), ("embed",)),
    **_attention("self_attention"),
    "pre_cross_attention_layer_norm/scale": ((13,), ("embed",)),
    **_attention("encoder_decoder_attention"),
    "pre_mlp_layer_norm/scale": ((13,), ("embed",)),
}
MLP = {
    "v1_0": {"mlp/wi/kernel": ((13, 17), ("embed", "mlp"))},
    "v1_1": {f"mlp/wi_{n}/kernel": ((13, 17), ("embed", "mlp")) for n in (0, 1)},
}
MLP_OUT = {"mlp/wo/kernel": ((17, 13), ("mlp", "embed"))}
OUTSIDE_LAYERS = {
    "token_embedder/embedding": ((53, 13), ("vocab", "embed")),
    "encoder/relpos_bias/rel_embedding": ((3, 32), ("heads", "relpos_buckets")),
    "encoder/encoder_norm/scale": ((13,), ("embed",)),
    "decoder/relpos_bias/rel_embedding": ((3, 32), ("heads", "relpos_buckets")),
    "decoder/decoder_norm/scale": ((13,), ("embed",)),
}
LOGITS = {"v1_0": {}, "v1_1": {"decoder/logits_dense/kernel": ((13, 53), ("embed", "vocab"))}}


def _table(version: str) -> dict:
    table = OUTSIDE_LAYERS | LOGITS[version]
    for stack, depth, layer in (("encoder", 2, ENCODER_LAYER), ("decoder", 3, DECODER_LAYER)):
        for number in range(depth):
            for name, row in (layer | MLP[version] | MLP_OUT).items():
                table[f"{stack}/layers_{number}/{name}"] = row
    return table


def _params(config: T5Config):
    weights = draw_weights(dataclasses.asdict(config))
    return jax.tree.map(jnp.asarray, traverse_util.unflatten_dict(weights, sep="/"))


def _tokens(seed: int, rows: int, length: int):
    """Tokens 2 to 52; each row but the first ends in a few of padding."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(2, 53, (rows, length))
    for row in range(1, rows):
        tokens[row, length - rng.integers(1, 4) :] = 0
    return jnp.asarray(tokens, jnp.int32)


def _batch():
    targets = _tokens(1, B, T)
    return _tokens(0, B, S), shift_right(targets), targets


@functools.partial(jax.jit, static_argnames=("config", "enable_dropout"))
def _logits(config: T5Config, params, *batch, enable_dropout=False, **options):
    options["enable_dropout"] = enable_dropout
    return Transformer(config).apply({"params": params}, *batch, **options)


def _initialiser(model: Transformer):
    """`model.init` without dropout, as a function of arrays alone."""
    return functools.partial(model.init, enable_dropout=False)


def _largest_difference(one, other, targets) -> float:
    return float(jnp.abs(one - other)[targets > 0].max())


@pytest.mark.parametrize("version", T5_CONFIGS)
def test_parameters_are_t5xs(version):
    model = Transformer(T5Config(**T5_CONFIGS[version]))
    variables = jax.eval_shape(_initialiser(model), jax.random.key(0), *_batch())
    specs = traverse_util.flatten_dict(nn.get_partition_spec(variables)["params"], sep="/")
    arrays = traverse_util.flatten_dict(nn.unbox(variables)["params"], sep="/")
    parameters = {path: (array.shape, tuple(specs[path])) for path, array in arrays.items()}
    assert parameters == _table(version)
    assert {array.dtype for array in arrays.values()} == {jnp.dtype("float32")}
    assert {path: shape for path, (shape, _) in parameters.items()} == weight_shapes(
        T5_CONFIGS[version]
    )


def test_initial_scales_are_t5xs():
    sizes = {"vocab_size": 211, "emb_dim": 101, "num_heads": 5, "head_dim": 23, "mlp_dim": 103}
    config = dataclasses.replace(SHALLOW, mlp_activations=("relu",), **sizes)
    key = jax.random.key(0, impl="unsafe_rbg")  # compiled sooner than JAX's default generator
    variables = jax.jit(_initialiser(Transformer(config)))(key, *_batch())
    params = nn.unbox(variables)["params"]
    layer = params["decoder"]["layers_0"]
    attention, mlp = layer["self_attention"], layer["mlp"]
    expected = {
        "embedding": (params["token_embedder"]["embedding"], 1.0),
        "query": (attention["query"]["kernel"], (101 * 23) ** -0.5),
        "key": (attention["key"]["kernel"], 101**-0.5),
        "out": (attention["out"]["kernel"], (5 * 23) ** -0.5),
        "wi": (mlp["wi"]["kernel"], 101**-0.5),
        "wo": (mlp["wo"]["kernel"], 103**-0.5),
        "logits": (params["decoder"]["logits_dense"]["kernel"], 101**-0.5),
        "rel_embedding": (params["encoder"]["relpos_bias"]["rel_embedding"], (2 / 37) ** 0.5),
    }
    for name, (array, deviation) in expected.items():
        # A sample of at least 160 numbers: the deviation is within 10% at two sigma and a half.
        assert float(array.std()) == pytest.approx(deviation, rel=0.1), name


def test_logical_axes_become_mesh_axes_and_sharded_equals_unsharded():
    rules = (("batch", "data"), ("vocab", None), ("mlp", None), ("heads", None), ("embed", "model"))
    config = dataclasses.replace(SHALLOW, emb_dim=26)
    model, params, batch = Transformer(config), _params(config), _batch()
    batch = tuple(jnp.tile(array, (4, 1)) for array in batch)
    mesh = Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("data", "model"))
    boxed = jax.eval_shape(_initialiser(model), jax.random.key(0), *batch)
    shardings = nn.logical_to_mesh_sharding(nn.get_partition_spec(boxed), mesh, rules)["params"]
    assert shardings["token_embedder"]["embedding"].spec == PartitionSpec(None, "model")
    placed = jax.device_put(params, shardings)
    with jax.set_mesh(mesh), nn.logical_axis_rules(rules):
        sharded = _logits(config, placed, *batch)
    # The batch lies on one device: what spreads it is the network's own constraints.
    assert sharded.sharding.spec[0] == "data"
    assert "data" not in _logits(config, placed, *batch).sharding.spec
    np.testing.assert_allclose(
        np.asarray(sharded), np.asarray(_logits(config, params, *batch)), atol=TOLERANCE
    )


def test_gather_equals_one_hot():
    params, batch = _params(SHALLOW), _batch()
    gathered = _logits(dataclasses.replace(SHALLOW, one_hot_embedding=False), params, *batch)
    one_hot = _logits(dataclasses.replace(SHALLOW, one_hot_embedding=True), params, *batch)
    assert _largest_difference(gathered, one_hot, batch[2]) < TOLERANCE
    other = _logits(SHALLOW, params, jnp.where(batch[0] > 3, 3, batch[0]), *batch[1:])
    assert _largest_difference(gathered, other, batch[2]) > 100 * TOLERANCE


def test_token_outside_the_vocabulary_is_loud():
    inputs, *rest = _batch()
    inputs = inputs.at[0, 0].set(SHALLOW.vocab_size)
    assert jnp.isnan(_logits(SHALLOW, _params(SHALLOW), inputs, *rest)[0]).all()


def _packed():
    """Two rows' inputs and targets, one after the other in a single row, and segment ids."""
    inputs, targets = jnp.asarray([[5, 8, 21], [9, 31, 0]]), jnp.asarray([[7, 44], [12, 19]])
    packed = (jnp.asarray([[5, 8, 21, 9, 31, 0]]), jnp.asarray([[0, 7, 0, 12, 0]]))
    packed_targets = jnp.asarray([[7, 44, 12, 19, 0]])
    segments = {
        "encoder_segment_ids": jnp.asarray([[1, 1, 1, 2, 2, 0]]),
        "decoder_segment_ids": jnp.asarray([[1, 1, 2, 2, 0]]),
    }
    return (inputs, shift_right(targets), targets), (*packed, packed_targets), segments


def test_packed_equals_unpacked():
    params = _params(SHALLOW)
    rows, packed, segments = _packed()
    expected = _logits(SHALLOW, params, *rows).reshape(4, -1)

    def together(**segments):
        return _logits(SHALLOW, params, *packed, **segments)[0, :4]

    np.testing.assert_allclose(together(**segments), expected, atol=TOLERANCE)
    assert float(jnp.abs(together() - expected)[2:].max()) > 100 * TOLERANCE
    encoder = segments.pop("encoder_segment_ids")
    assert float(jnp.abs(together(**segments) - expected)[:2].max()) > 100 * TOLERANCE
    with pytest.raises(InputError, match="decoder_segment_ids"):
        together(encoder_segment_ids=encoder)


def test_padding_and_later_tokens_are_not_seen():
    params, (inputs, decoder_inputs, targets) = _params(SHALLOW), _batch()
    wider = jnp.pad(inputs, ((0, 0), (0, 6)))
    plain = _logits(SHALLOW, params, inputs, decoder_inputs, targets)
    padded = _logits(SHALLOW, params, wider, decoder_inputs, targets)
    assert _largest_difference(plain, padded, targets) < TOLERANCE
    later = decoder_inputs.at[:, 4].set(3)
    changed = _logits(SHALLOW, params, inputs, later, targets)
    np.testing.assert_array_equal(plain[:, :4], changed[:, :4])
    assert _largest_difference(plain, changed, targets) > 100 * TOLERANCE


def test_dropout_is_random_only_when_enabled():
    params, batch = _params(SHALLOW), _batch()

    def dropped(seed):
        rngs = {"dropout": jax.random.key(seed, impl="unsafe_rbg")}
        return _logits(SHALLOW, params, *batch, enable_dropout=True, rngs=rngs)

    off = _logits(SHALLOW, params, *batch)
    np.testing.assert_array_equal(off, _logits(SHALLOW, params, *batch))
    np.testing.assert_array_equal(dropped(1), dropped(1))
    assert _largest_difference(dropped(1), dropped(2), batch[2]) > 100 * TOLERANCE
    assert _largest_difference(dropped(1), off, batch[2]) > 100 * TOLERANCE
    with pytest.raises(Exception, match="dropout"):
        _logits(SHALLOW, params, *batch, enable_dropout=True)


@pytest.mark.parametrize("float32_attention_logits", [False, True])
def test_bfloat16_gives_float32_logits(float32_attention_logits):
    config = dataclasses.replace(
        SHALLOW, dtype="bfloat16", float32_attention_logits=float32_attention_logits
    )
    params, batch = _params(SHALLOW), _batch()
    half, whole = _logits(config, params, *batch), _logits(SHALLOW, params, *batch)
    assert half.dtype == jnp.float32
    encode = functools.partial(Transformer(config).apply, enable_dropout=False, method="encode")
    assert jax.eval_shape(encode, {"params": params}, batch[0]).dtype == jnp.bfloat16
    # Eight bits of mantissa through five layers; logits have a standard deviation of 3.
    assert float(jnp.abs(half - whole)[batch[2] > 0].mean()) < 0.3
    gradients = jax.eval_shape(jax.grad(lambda p: _logits(config, p, *batch).sum()), params)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype("float32")}


def _draw(*shape):
    return jnp.asarray(np.random.default_rng(3).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("sizes", [(13, 17), (17, 13)])
def test_project_has_the_gradient_of_a_product(sizes):
    x_BxQxE, kernel_ExM, weight_BxQxM = _draw(B, S, sizes[0]), _draw(*sizes), _draw(B, S, sizes[1])
    ours, jaxs = (
        jax.grad(lambda x, k, f=f: (f(x, k) * weight_BxQxM).sum(), (0, 1))(x_BxQxE, kernel_ExM)
        for f in (project, jnp.matmul)
    )
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-4), ours, jaxs)


def test_masked_bias_has_the_gradient_of_a_sum():
    bias_1xHxQxK, weight_BxHxQxK = _draw(1, 3, T, S), _draw(B, 3, T, S)
    mask = jnp.where(_draw(B, 1, 1, S) > 0, MASKED, 0.0)

    def value_and_gradient(add):
        return jax.value_and_grad(lambda bias: (jnp.exp(add(bias, mask)) * weight_BxHxQxK).sum())

    ours, jaxs = (value_and_gradient(add)(bias_1xHxQxK) for add in (masked_bias, jnp.add))
    assert min(float(jnp.abs(one).max()) for one in jaxs) > 1
    # Sums over B = 5 rows in another order.
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-4), ours, jaxs)


def test_relative_position_buckets_on_paper():
    # 32 buckets: causal, distances 0 to 15 have their own; 16 begins the logarithmic ones, and
    # 16 * 8 ** (15 / 16) = 112.4 begins the last.
    causal_129 = relative_position_buckets(129, 1, False, 32, 128)[:, 0]
    np.testing.assert_array_equal(causal_129[:17], np.arange(17))
    assert causal_129[112] == 30 and (causal_129[113:] == 31).all()
    # Bidirectional: the key's side of the query takes 16 of them; doubling the distance from 8
    # on is two buckets, exactly.
    both = relative_position_buckets(200, 200, True, 32, 128)
    assert [both[d, 0] for d in (0, 7, 8, 16, 32, 64, 128, 199)] == [0, 7, 8, 10, 12, 14, 15, 15]
    assert [both[0, d] for d in (1, 7, 8, 16, 32, 64, 128)] == [17, 23, 24, 26, 28, 30, 31]
    assert (relative_position_buckets(5, 5, False, 32, 128)[0] == 0).all()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vocab_size", 0),
        ("relpos_num_buckets", 2.5),
        ("mlp_activations", ("rellu",)),
        ("relpos_num_buckets", 30),
        ("relpos_max_distance", 16),
    ],
)
def test_config_refuses(field, value):
    with pytest.raises(InputError, match=f"(?i){field}"):
        dataclasses.replace(V1_1, **{field: value})


def test_config_normalises():
    config = T5Config(vocab_size=53, dtype=jnp.bfloat16, mlp_activations=["gelu", "linear"])
    assert (config.dtype, config.mlp_activations) == ("bfloat16", ("gelu", "linear"))
    assert hash(config) == hash(dataclasses.replace(config))


def test_a_wrong_type_is_named_by_its_macro():
    with pytest.raises(InputError, match=r"ACTIVATION_DTYPE: expected one of float32, bfloat16, f"):
        dataclasses.replace(V1_1, dtype=jnp.float16)
