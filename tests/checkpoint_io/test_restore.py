"""Any checkpoint, straight into the shards of any mesh; and what is said where it doesn't fit."""

import dataclasses

import jax
import numpy as np
import pytest

from poison_t5x.checkpoint_io import architecture, detect, optimizer_state, restore, t5x_layouts
from poison_t5x.checkpoint_io.source import cast
from poison_t5x.model import network
from poison_t5x.model.network import Transformer
from poison_t5x.train import checkpoints, steps, train_state
from poison_t5x.train.partitioning import PartitionConfig, Partitioner
from tests.checkpoint_io import at_hand
from tests.mesh_model import CONFIG

# (num_partitions, number of devices); parameters lie over both axes.
EIGHT_BY_ONE, TWO_BY_FOUR, ONE = (1, 8), (4, 8), (1, 1)
MODEL = Transformer(CONFIG)


def _partitioner(mesh):
    num_partitions, num_devices = mesh
    return Partitioner(PartitionConfig(num_partitions, 1, 2), jax.devices()[:num_devices])


@pytest.mark.parametrize("mesh", [ONE, EIGHT_BY_ONE, TWO_BY_FOUR], ids=["1", "8x1", "2x4"])
def test_parameters_lie_where_the_mesh_wants_them(mesh):
    source, partitioner = at_hand.random_source(CONFIG), _partitioner(mesh)
    params = restore.restore_params(source, MODEL, partitioner)
    wanted = network.flat(train_state.abstract_params(MODEL, partitioner))
    for name, array in network.flat(params).items():
        assert array.sharding == wanted[name].sharding, name
        assert np.asarray(array).tobytes() == source.read(name).tobytes(), name


def test_nothing_is_read_twice_and_nothing_whole():
    source = at_hand.random_source(CONFIG)
    for mesh in (ONE, TWO_BY_FOUR):
        seen = at_hand.watch(source)
        restore.restore_params(source, MODEL, _partitioner(mesh))
        assert sum(size for _, _, size in seen) == architecture.count_parameters(source)
    # Of a tensor over all eight devices, each device's part is asked for alone.
    parts = {repr(index) for name, index, _ in seen if name == "encoder/layers_0/mlp/wo/kernel"}
    assert len(parts) == 8


def test_stored_bfloat16_becomes_float32():
    source = cast(at_hand.random_source(CONFIG), "bfloat16")
    params = restore.restore_params(source, MODEL, _partitioner(ONE))
    embedding = np.asarray(params["token_embedder"]["embedding"])
    assert embedding.dtype == np.float32
    assert np.array_equal(embedding, source.read("token_embedder/embedding").astype(np.float32))


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
@pytest.mark.parametrize("mesh", [ONE, TWO_BY_FOUR], ids=["1", "2x4"])
def test_the_optimizers_state_is_kept_or_begun_anew(optimizer, mesh):
    source = at_hand.random_source(CONFIG, optimizer, step=7)
    transform, partitioner = at_hand.make_optimizer(optimizer), _partitioner(mesh)
    layout = train_state.layout(train_state.abstract(MODEL, transform, partitioner))
    kept = restore.first_state(source, MODEL, transform, partitioner, optimizer)
    fresh = restore.first_state(source, MODEL, transform, partitioner)
    for state in (kept, fresh):
        assert int(state.step) == 0
        assert jax.tree.map(lambda leaf: leaf.sharding, state) == layout
        for name, array in at_hand.flat_arrays(state.params).items():
            assert array.tobytes() == source.read(name).tobytes()
    number = 0
    for (name, leaf), (_, anew) in zip(
        optimizer_state.named(kept.opt_state), optimizer_state.named(fresh.opt_state), strict=True
    ):
        assert not np.asarray(anew).any()
        if name is None:  # the schedule begins anew in both
            assert int(leaf) == 0
        else:
            assert np.asarray(leaf).tobytes() == source.read(name).tobytes(), name
            number += 1
    assert number == len(source.slots)


@pytest.mark.parametrize("optimizer", [pytest.param("adamw", marks=pytest.mark.slow), "adafactor"])
def test_a_kept_state_goes_on_as_if_uninterrupted(tmp_path, optimizer):
    """Two steps, and two more from their state by way of T5X's layout, are four, bit for bit."""
    transform, partitioner = at_hand.make_optimizer(optimizer), _partitioner(ONE)
    loss_cfg = steps.LossConfig()
    step = steps.make_train_step(MODEL, transform, lambda step: 1e-2, loss_cfg, partitioner)
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, CONFIG.vocab_size, (8, 6)).astype(np.int32)
    batch = {
        "encoder_input_tokens": tokens,
        "decoder_input_tokens": tokens,
        "decoder_target_tokens": tokens,
        "decoder_loss_weights": np.ones_like(tokens),
    }

    def train(state, number):
        for _ in range(number):
            # A key that the step, which begins anew, isn't told by: there is no dropout.
            state, _ = step(state, partitioner.put_batch(batch), jax.random.key(0))
        return state

    start = train_state.create(MODEL, transform, partitioner, 0)
    half = train(start, 2)
    saver = checkpoints.Checkpointer(tmp_path)
    saver.save(half, 2)
    saver.close()
    whole = train(half, 2)
    path = t5x_layouts.write(detect.open_checkpoint(str(tmp_path)), str(tmp_path / "t5x"), "t5x")
    source = detect.open_checkpoint(path)
    kept = train(restore.first_state(source, MODEL, transform, partitioner, optimizer), 2)
    fresh = train(restore.first_state(source, MODEL, transform, partitioner), 2)
    whole, kept, fresh = (at_hand.flat_arrays(state.params) for state in (whole, kept, fresh))
    assert all(whole[name].tobytes() == kept[name].tobytes() for name in whole)
    assert any(whole[name].tobytes() != fresh[name].tobytes() for name in whole)


def test_another_optimizers_state_is_refused():
    adamw, mesh = at_hand.make_optimizer("adamw"), _partitioner(ONE)
    for stored, words in (("adafactor", "adafactor's"), (None, "no known optimiser's")):
        source = at_hand.random_source(CONFIG, stored)
        message = at_hand.error(restore.first_state, source, MODEL, adamw, mesh, "adamw")
        assert f"holds {words} state" in message and "OPTIMIZER is 'adamw'" in message
        assert "KEEP_OPTIMIZER_STATE=False" in message


CASES = {
    "vocabulary": (
        {"vocab_size": 52},
        ["token_embedder/embedding has shape (44, 16)", "this network's has shape (52, 16)"],
        "its vocabulary has 44 entries",
    ),
    "width": (
        {"emb_dim": 24},
        ["token_embedder/embedding has shape (44, 16)", "has shape (44, 24)"],
        "set EMB_DIM=16",
    ),
    "mlp": ({"mlp_dim": 36}, ["mlp/wi_0/kernel has shape (16, 28)", "(16, 36)"], "MLP_DIM=28"),
    "depth": (
        {"num_encoder_layers": 2},
        ["encoder/layers_1/attention/key/kernel has no shape (it isn't there)", "shape (16, 20)"],
        "set NUM_ENCODER_LAYERS=1",
    ),
    "depth of the decoder": (
        {"num_decoder_layers": 3},
        ["decoder/layers_1/", "(it isn't there)"],
        "set NUM_DECODER_LAYERS=1",
    ),
    "heads": (
        {"num_heads": 2, "head_dim": 10},
        ["relpos_bias", "(4, 32)", "(2, 32)"],
        "HEAD_DIM=5",
    ),
    "tied": (
        {"logits_via_embedding": True},
        ["decoder/logits_dense/kernel has shape (16, 44)", "no shape (it is unknown)"],
        "set LOGITS_VIA_EMBEDDING=False",
    ),
    "activations": (
        {"mlp_activations": ("relu",)},
        ["mlp/wi/kernel has no shape"],
        "set MLP_ACTIVATIONS=('gelu', 'linear')",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_another_network_is_named_with_both_shapes_and_the_remedy(case):
    changes, parts, remedy = CASES[case]
    model = Transformer(dataclasses.replace(CONFIG, **changes))
    message = at_hand.error(
        restore.restore_params, at_hand.random_source(CONFIG), model, _partitioner(ONE)
    )
    assert [part for part in [*parts, remedy] if part not in message] == [], message


def test_a_checkpoint_that_isnt_whole_is_named():
    source = at_hand.random_source(CONFIG, None)
    name = "decoder/layers_0/mlp/wo/kernel"
    del source.params[name]
    message = at_hand.error(restore.restore_params, source, MODEL, _partitioner(ONE))
    assert f"{name} has no shape (it isn't there)" in message
    assert "the checkpoint isn't whole" in message
    message = at_hand.error(architecture.network_config, source)
    assert name in message and "isn't whole, or of another architecture" in message


def test_another_architecture_is_named():
    arrays = {"h/0/attn/weight": np.ones((3, 4), np.float32)}
    message = at_hand.error(architecture.network_config, at_hand.in_memory(arrays))
    assert "another architecture than T5's: token_embedder/embedding isn't there" in message
    assert "begin with h/0/attn/weight" in message


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"logits_via_embedding": True, "mlp_activations": ("relu",)},
        {"num_encoder_layers": 3, "num_decoder_layers": 2},
    ],
)
def test_the_network_is_read_from_the_shapes(changes):
    config = dataclasses.replace(CONFIG, **changes)
    network = {"dropout_rate": 0.0, "relpos_max_distance": 77}
    source = at_hand.random_source(config, None, network=network)
    expected = dataclasses.replace(config, relpos_max_distance=77)
    assert architecture.network_config(source) == expected
