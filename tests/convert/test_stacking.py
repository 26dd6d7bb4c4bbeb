"""Checkpoints of scanned networks: each layer's tensors in every other layout, and back."""

import dataclasses

import jax
import numpy as np
import pytest
import tensorstore as ts

from poison_t5x import checkpoints, errors, optimizers, train_state
from poison_t5x.convert import conversion, detect, restore, stacking
from poison_t5x.convert.source import TensorInfo
from poison_t5x.model.network import Transformer
from poison_t5x.partitioning import PartitionConfig, Partitioner
from tests.mesh_model import CONFIG
from tests.scanned import scanned, stacked

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
    """A state whose slots aren't zeros."""
    optimizer = OPTIMIZERS[name]
    state = train_state.create(Transformer(config), optimizer, partitioner, seed=3)
    with jax.numpy_dtype_promotion("standard"):
        opt_state = optimizer.update(state.params, state.opt_state, state.params)[1]
    layout = train_state.shardings(Transformer(config), optimizer, partitioner)
    return train_state.TrainState(
        state.step + 1, state.params, jax.device_put(opt_state, layout.opt_state)
    )


def _saved(folder, state, step=1):
    saver = checkpoints.Checkpointer(folder)
    saver.save(state, step)
    saver.close()
    return str(checkpoints.step_path(folder, step))


def _equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(one), jax.device_get(other))


@pytest.mark.parametrize("name", optimizers.NAMES)
@pytest.mark.parametrize("layout", ["t5x", "t5x-orbax", "poison-t5x"])
def test_round_trip_with_the_optimizers_state(tmp_path, layout, name):
    partitioner = _partitioner()
    state = _state(SCANNED, name, partitioner)
    path = _saved(tmp_path / "ours", state)
    conversion.convert(path, str(tmp_path / "theirs"), layout)
    there = detect.open_checkpoint(str(checkpoints.step_path(tmp_path / "theirs", 1)))
    assert "encoder/layers_2/mlp/wo/kernel" in there.params
    assert not stacking.is_stacked(there)
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
    found = restore.restore_params(source, Transformer(SCANNED), partitioner)
    _equal(found, stacked(jax.device_get(unrolled.params)))
    state = train_state.TrainState(unrolled.step, found, OPTIMIZERS["adamw"].init(found))
    again = detect.open_checkpoint(_saved(tmp_path / "scanned", state))
    _equal(restore.restore_params(again, Transformer(DEEP), partitioner), unrolled.params)


def test_parameters_come_in_the_networks_dtype(tmp_path):
    source = detect.open_checkpoint(_saved(tmp_path, _state(SCANNED, "adafactor", _partitioner())))
    half = Transformer(dataclasses.replace(SCANNED, param_dtype="bfloat16"))
    found = restore.restore_params(source, half, _partitioner())
    assert {leaf.dtype.name for leaf in jax.tree.leaves(found)} == {"bfloat16"}


def test_each_layer_has_chunks_of_its_own(tmp_path, monkeypatch):
    """Otherwise each layer's reading would decode all layers."""
    monkeypatch.setattr(checkpoints, "_CHUNK", 1)
    path = _saved(tmp_path, _state(SCANNED, "adamw", _partitioner()))
    kvstore = {
        "driver": "ocdbt",
        "base": f"file://{path}/",
        "path": "target.encoder.layers.mlp.wo.kernel/",
    }
    store = ts.open({"driver": "zarr", "kvstore": kvstore}).result()
    assert store.shape == (3, 136, 128)
    assert store.chunk_layout.read_chunk.shape == (1, 68, 32)


class _Tensors:
    """A source of tensors at hand."""

    path, layout, step, network, optimizer = "there", "a checkpoint", 0, {}, None

    def __init__(self, **tensors):
        self._tensors = {name.replace("__", "/"): value for name, value in tensors.items()}
        self.params = {
            name: TensorInfo(value.shape, value.dtype.name) for name, value in self._tensors.items()
        }
        self.slots = {}
        self.reads = []

    def read(self, name, index=None):
        self.reads.append((name, index))
        return self._tensors[name] if index is None else self._tensors[name][index]


def test_a_part_of_some_layers_is_all_that_is_read():
    layers = {f"encoder__layers_{n}__w": np.full((4, 6), n, np.float32) for n in range(3)}
    source = _Tensors(**layers)
    index = (slice(1, 3), slice(2, 4), slice(0, 6))
    part = stacking.Stacked(source).read("encoder/layers/w", index)
    assert part.shape == (2, 2, 6)
    assert (part[:, 0, 0] == [1, 2]).all()
    assert source.reads == [(f"encoder/layers_{n}/w", index[1:]) for n in (1, 2)]


def test_layers_that_cant_be_stacked():
    ragged = _Tensors(
        encoder__layers_0__w=np.zeros((4, 6), np.float32),
        encoder__layers_1__w=np.zeros((4, 5), np.float32),
    )
    gap = _Tensors(
        encoder__layers_0__w=np.zeros((4,), np.float32),
        encoder__layers_2__w=np.zeros((4,), np.float32),
    )
    for source in (ragged, gap):
        with pytest.raises(errors.InputError, match="can't be stacked"):
            stacking.Stacked(source)
