"""Checkpoints of scanned networks: each layer's tensors in every other layout, and back."""

import dataclasses

import jax
import numpy as np
import pytest
import tensorstore as ts

from poison_t5x.checkpoint_io import architecture, conversion, detect, restore
from poison_t5x.checkpoint_io.source import in_memory, stacked, unstacked
from poison_t5x.model.network import Transformer
from poison_t5x.train import checkpoints, optimizers, train_state
from poison_t5x.train.partitioning import PartitionConfig, Partitioner
from tests.checkpoint_io import at_hand
from tests.mesh_model import CONFIG
from tests.scanned import scanned
from tests.scanned import stacked as stacked_arrays

DEEP = dataclasses.replace(
    CONFIG, num_encoder_layers=3, num_decoder_layers=2, emb_dim=128, mlp_dim=136
)
SCANNED = scanned(DEEP)
OPTIMIZERS = {
    name: optimizers.make(optimizers.OptimizerConfig(name=name), lambda count: 0.01)
    for name in optimizers.NAMES
}


def _partitioner(num_partitions=2, num_devices=8):
    config = PartitionConfig(num_partitions, 1, 2)
    return Partitioner(config, jax.devices()[:num_devices])


def _state(config, name, partitioner):
    """Random numbers in the place of every leaf; the count is that of the steps."""
    abstract = train_state.abstract(Transformer(config), OPTIMIZERS[name], partitioner)
    rng = np.random.default_rng(3)

    def draw(leaf):
        if leaf.dtype == np.int32:
            return np.ones(leaf.shape, np.int32)
        return rng.normal(size=leaf.shape).astype(leaf.dtype)

    layout = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return jax.device_put(jax.tree.map(draw, abstract), layout)


def _saved(folder, state, step=1):
    saver = checkpoints.Checkpointer(folder)
    saver.save(state, step)
    saver.close()
    return str(checkpoints.step_path(folder, step))


def _equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(one), jax.device_get(other))


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("t5x", "adafactor"),
        ("t5x-orbax", "adamw"),
        pytest.param("poison-t5x", "adafactor", marks=pytest.mark.slow),
    ],
)
def test_round_trip_with_the_optimizers_state(tmp_path, layout, name):
    partitioner = _partitioner()
    state = _state(SCANNED, name, partitioner)
    path = _saved(tmp_path / "ours", state)
    conversion.convert(path, str(tmp_path / "theirs"), layout)
    there = detect.open_checkpoint(str(checkpoints.step_path(tmp_path / "theirs", 1)))
    assert "encoder/layers_2/mlp/wo/kernel" in there.params
    assert "encoder/layers/mlp/wo/kernel" not in there.params
    # Onto another mesh than it was saved on.
    other = _partitioner(4)
    back = restore.first_state(there, Transformer(SCANNED), OPTIMIZERS[name], other, name)
    _equal(back.params, state.params)
    kept, expected = (jax.tree.leaves(tree.opt_state[0]) for tree in (back, state))
    for one, two in zip(kept, expected, strict=True):
        np.testing.assert_array_equal(one, two)
    assert back.params["encoder"]["layers"]["mlp"]["wo"]["kernel"].sharding.spec[1:] == (
        "model",
        "data",
    )


def test_a_scanned_network_starts_from_an_unrolled_checkpoint_and_the_reverse(tmp_path):
    partitioner = _partitioner()
    unrolled = _state(DEEP, "adamw", partitioner)
    source = detect.open_checkpoint(_saved(tmp_path / "unrolled", unrolled))
    params = restore.restore_params(source, Transformer(SCANNED), partitioner)
    _equal(params, stacked_arrays(jax.device_get(unrolled.params)))
    state = train_state.TrainState(unrolled.step, params, OPTIMIZERS["adamw"].init(params))
    again = detect.open_checkpoint(_saved(tmp_path / "scanned", state))
    _equal(restore.restore_params(again, Transformer(DEEP), partitioner), unrolled.params)


def test_bfloat16_parameters_stay_as_they_are(tmp_path):
    half = dataclasses.replace(SCANNED, param_dtype="bfloat16")
    state = _state(half, "adafactor", _partitioner())
    path = _saved(tmp_path / "ours", state)
    for layout in ("t5x", "poison-t5x", "huggingface"):
        path = conversion.convert(path, str(tmp_path / layout), layout)
        source = detect.open_checkpoint(path)
        assert {info.dtype for info in source.params.values()} == {"bfloat16"}
        assert "decoder/layers_1/mlp/wo/kernel" in source.params
        assert layout == "huggingface" or source.slots
    back = restore.restore_params(source, Transformer(half), _partitioner())
    assert {leaf.dtype.name for leaf in jax.tree.leaves(back)} == {"bfloat16"}
    _equal(back, state.params)


def test_parameters_come_in_the_networks_dtype(tmp_path):
    state = _state(SCANNED, "adafactor", _partitioner())
    source = detect.open_checkpoint(_saved(tmp_path, state))
    half = Transformer(dataclasses.replace(SCANNED, param_dtype="bfloat16"))
    params = restore.restore_params(source, half, _partitioner())
    _equal(params, jax.tree.map(lambda leaf: leaf.astype("bfloat16"), state.params))
    optimizer = OPTIMIZERS["adafactor"]
    kept = restore.first_state(source, half, optimizer, _partitioner(), "adafactor")
    # Its state is float32 over any parameters.
    _equal(kept.opt_state[0], state.opt_state[0])


def test_each_layer_has_chunks_of_its_own(tmp_path):
    """Otherwise each layer's reading would decode all layers."""
    path = _saved(tmp_path, _state(SCANNED, "adamw", _partitioner()))
    kvstore = {
        "driver": "ocdbt",
        "base": f"file://{path}/",
        "path": "target.encoder.layers.mlp.wo.kernel/",
    }
    store = ts.open({"driver": "zarr", "kvstore": kvstore}).result()
    assert store.shape == (3, 136, 128)
    assert store.chunk_layout.read_chunk.shape == (1, 68, 32)


def _layers(**tensors):
    """A source of 'encoder/layers_0/w' and so on, and what is read of it: [(name, index)]."""
    source = at_hand.in_memory({name.replace("__", "/"): array for name, array in tensors.items()})
    return source, at_hand.watch(source)


def test_a_part_of_some_layers_is_all_that_is_read():
    layers = {f"encoder__layers_{n}__w": np.full((4, 6), n, np.float32) for n in range(3)}
    source, seen = _layers(**layers)
    index = (slice(1, 3), slice(2, 4), slice(0, 6))
    part = stacked(source).read("encoder/layers/w", index)
    assert part.shape == (2, 2, 6)
    assert (part[:, 0, 0] == [1, 2]).all()
    assert seen == [(f"encoder/layers_{n}/w", index[1:], 12) for n in (1, 2)]


def test_a_layer_is_all_that_is_read():
    stack = np.arange(3 * 4 * 6, dtype=np.float32).reshape(3, 4, 6)
    source, seen = _layers(encoder__layers__w=stack)
    layers = unstacked(source)
    assert set(layers.params) == {f"encoder/layers_{n}/w" for n in range(3)}
    index = (slice(2, 4), slice(0, 6))
    np.testing.assert_array_equal(layers.read("encoder/layers_1/w", index), stack[1, 2:])
    np.testing.assert_array_equal(layers.read("encoder/layers_2/w"), stack[2])
    assert [index[0] for _, index, _ in seen] == [slice(1, 2), slice(2, 3)]


def test_each_view_undoes_the_other():
    source = at_hand.random_source(DEEP, "adafactor")
    at_hand.assert_same(unstacked(stacked(source)), source)


def test_of_a_sharded_stack_nothing_is_read_twice():
    source = at_hand.random_source(DEEP, None)
    seen = at_hand.watch(source)
    restore.restore_params(source, Transformer(SCANNED), _partitioner())
    assert sum(size for _, _, size in seen) == architecture.count_parameters(source)


WIDE, NARROW = np.zeros((4, 6), np.float32), np.zeros((4, 5), np.float32)


@pytest.mark.parametrize(
    ("view", "tensors", "words"),
    [
        (
            stacked,
            {"encoder__layers_0__w": NARROW, "encoder__layers_1__w": WIDE},
            ["encoder/layers_0/w is float32 (4, 5)", "that of layer 1 is float32 (4, 6)"],
        ),
        (
            stacked,
            {"encoder__layers_0__w": WIDE.astype(np.float64), "encoder__layers_1__w": WIDE},
            ["encoder/layers_0/w is float64 (4, 6)", "set SCAN_LAYERS=False"],
        ),
        (
            stacked,
            {"encoder__layers_0__w": WIDE, "encoder__layers_2__w": WIDE},
            ["encoder/layers_1/w isn't there", "that of layer 2 is"],
        ),
        (stacked, {"decoder__layers_1__w": WIDE}, ["decoder/layers_0/w isn't there"]),
        (
            unstacked,
            {"encoder__layers__v": np.zeros((3, 4)), "encoder__layers_2__v": np.zeros(4)},
            ["has both encoder/layers_2/v and encoder/layers/v"],
        ),
    ],
    ids=["shape", "dtype", "gap", "first", "both"],
)
def test_layers_that_cant_be_stacked_or_taken_apart(view, tensors, words):
    message = at_hand.error(view, _layers(**tensors)[0])
    assert [part for part in ["memory: ", *words] if part not in message] == [], message


@pytest.mark.parametrize("shape", [(2, 136, 128), ()], ids=["depth", "axis"])
def test_a_stack_of_another_depth_is_no_whole_network(shape):
    source = stacked(at_hand.random_source(DEEP, None))
    source.params["encoder/layers/mlp/wo/kernel"] = in_memory(np.zeros(shape, np.float32))
    message = at_hand.error(architecture.check_fits, unstacked(source), DEEP)
    assert "mlp/wo/kernel has" in message


def test_sides_may_differ_in_depth():
    source, _ = _layers(encoder__layers__w=np.zeros((3, 4)), decoder__layers__w=np.zeros((2, 4)))
    assert len(unstacked(source).params) == 5
