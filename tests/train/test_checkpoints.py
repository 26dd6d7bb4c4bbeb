"""What is saved comes back bit for bit, on any mesh, or not at all."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import optax
import pytest

from poison_t5x.core.errors import InputError, TryAgainError
from poison_t5x.model.network import Transformer
from poison_t5x.train import checkpoints, train_state
from poison_t5x.train.partitioning import PartitionConfig, Partitioner
from tests.mesh_model import CONFIG

# (num_partitions, number of devices); parameters lie over both axes.
EIGHT_BY_ONE, TWO_BY_FOUR, FOUR_BY_TWO, ONE = (1, 8), (4, 8), (2, 8), (1, 1)
OPTIMIZERS = {"adamw": optax.adamw(0.1), "adafactor": optax.adafactor(0.1)}


def _abstract(mesh=ONE, optimizer: str = "adamw", **changes):
    num_partitions, num_devices = mesh
    partitioner = Partitioner(PartitionConfig(num_partitions, 1, 2), jax.devices()[:num_devices])
    model = Transformer(dataclasses.replace(CONFIG, **changes))
    return train_state.abstract(model, OPTIMIZERS[optimizer], partitioner)


def _state(abstract, seed: int = 0) -> train_state.TrainState:
    """Random numbers in the place of every leaf, laid out as `abstract` says."""
    rng = np.random.default_rng(seed)

    def draw(leaf):
        if leaf.dtype == np.int32:
            return rng.integers(1, 1000, leaf.shape, np.int32)
        return rng.normal(size=leaf.shape).astype(leaf.dtype)

    return jax.device_put(jax.tree.map(draw, abstract), train_state.layout(abstract))


def _save(model_dir, state, *steps: int, keep: int | None = None) -> None:
    saver = checkpoints.Checkpointer(model_dir, keep)
    for step in steps:
        saver.save(state, step)
    saver.close()


def _assert_same_bits(one, other) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    leaves = jax.tree_util.tree_leaves_with_path(one)
    for (path, leaf), twin in zip(leaves, jax.tree.leaves(other), strict=True):
        leaf, twin = np.asarray(leaf), np.asarray(twin)
        assert (leaf.dtype, leaf.shape) == (twin.dtype, twin.shape)
        assert leaf.tobytes() == twin.tobytes(), jax.tree_util.keystr(path)


def _error(function, *args) -> str:
    with pytest.raises(InputError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(name="saved", scope="module")
def _saved(tmp_path_factory):
    """(the folder of a checkpoint made on one device, its state); not to be changed."""
    model_dir = tmp_path_factory.mktemp("saved")
    state = _state(_abstract())
    _save(model_dir, state, 7)
    return checkpoints.step_path(model_dir, 7), state


@pytest.fixture(name="copied")
def _copied(saved, tmp_path):
    """A checkpoint of one's own to damage."""
    shutil.copytree(saved[0].parent, tmp_path / "model")
    return tmp_path / "model" / "checkpoint_7"


@pytest.mark.parametrize(
    ("mesh", "other_mesh", "optimizer"),
    [
        (ONE, ONE, "adamw"),
        (EIGHT_BY_ONE, ONE, "adafactor"),
        (EIGHT_BY_ONE, TWO_BY_FOUR, "adamw"),
        (TWO_BY_FOUR, FOUR_BY_TWO, "adafactor"),
        (TWO_BY_FOUR, ONE, "adamw"),
    ],
)
def test_restored_is_saved_bit_for_bit_on_any_mesh(tmp_path, mesh, other_mesh, optimizer):
    state = _state(_abstract(mesh, optimizer=optimizer))
    _save(tmp_path, state, 3)
    abstract = _abstract(other_mesh, optimizer=optimizer)
    restored = checkpoints.restore(checkpoints.step_path(tmp_path, 3), abstract)
    _assert_same_bits(state, restored)
    # Straight into the other mesh's places, and not the first one's.
    for leaf, wanted in zip(jax.tree.leaves(restored), jax.tree.leaves(abstract), strict=True):
        assert leaf.sharding == wanted.sharding
    embedding = restored.params["token_embedder"]["embedding"]
    assert embedding.sharding.is_fully_replicated == (other_mesh == ONE)
    params = checkpoints.restore_params(checkpoints.step_path(tmp_path, 3), abstract.params)
    _assert_same_bits(params, restored.params)


def test_saving_copies_before_it_returns(tmp_path):
    state = _state(_abstract())
    expected = jax.device_get(state)
    saver = checkpoints.Checkpointer(tmp_path)
    saver.save(state, 1)
    jax.tree.map(lambda leaf: leaf.delete(), state)
    saver.close()
    restored = checkpoints.restore(checkpoints.step_path(tmp_path, 1), _abstract())
    _assert_same_bits(expected, jax.device_get(restored))


def test_only_the_newest_are_kept_with_their_hashes(tmp_path):
    state = _state(_abstract())
    _save(tmp_path / "two", state, 9, 10, 11, keep=2)
    assert checkpoints.committed_steps(tmp_path / "two") == [10, 11]
    kept = {"checkpoint_10", "checkpoint_11"}
    names = {path.name for path in (tmp_path / "two").iterdir()}
    assert names == kept | {f"{name}.sha256.json" for name in kept}
    # Those of an earlier process count among the kept.
    _save(tmp_path / "two", state, 12, keep=2)
    assert checkpoints.committed_steps(tmp_path / "two") == [11, 12]
    _save(tmp_path / "all", state, 9, 10, 11)
    assert checkpoints.committed_steps(tmp_path / "all") == [9, 10, 11]


def test_uncommitted_is_ignored_and_made_again(copied):
    model_dir = copied.parent
    (model_dir / "checkpoint_9").mkdir()
    (model_dir / "checkpoint_9" / "half").write_text("of one")
    assert checkpoints.committed_steps(model_dir) == [7]
    _save(model_dir, _state(_abstract(), seed=1), 9)
    assert checkpoints.committed_steps(model_dir) == [7, 9]
    assert not (model_dir / "checkpoint_9" / "half").exists()
    (model_dir / "checkpoint_7.sha256.json").unlink()
    assert checkpoints.committed_steps(model_dir) == [9]


def test_a_checkpoint_is_committed_only_when_it_is_finished(tmp_path):
    saver = checkpoints.Checkpointer(tmp_path)
    state = _state(_abstract())
    saver.save(state, 1)
    assert checkpoints.committed_steps(tmp_path) == []
    saver.save(state, 2)
    assert checkpoints.committed_steps(tmp_path) == [1]
    saver.finish()
    assert checkpoints.committed_steps(tmp_path) == [1, 2]
    saver.close()


@pytest.mark.parametrize("read", ["restore", "verify"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [("change", "doesn't match its recorded hash"), ("delete", "is missing")],
)
def test_damage_is_found_and_the_file_named(copied, read, damage, message):
    path = max(copied.rglob("*"), key=lambda path: path.is_file() * path.stat().st_size)
    if damage == "change":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        path.unlink()
    arguments = [_abstract()] if read == "restore" else []
    error = _error(getattr(checkpoints, read), copied, *arguments)
    assert error.startswith(f"{path} {message}")
    assert str(copied) in error.split("delete", 1)[1]


def test_there_is_a_hash_of_every_file(copied):
    hashes = json.loads((copied.parent / "checkpoint_7.sha256.json").read_text())
    files = (path for path in copied.rglob("*") if path.is_file())
    assert hashes.keys() == {path.relative_to(copied).as_posix() for path in files}
    checkpoints.verify(copied)
    (copied / "stray").write_text("x")
    assert str(copied / "stray") in _error(checkpoints.verify, copied)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"vocab_size": 52}, ("logits_dense/kernel", "(16, 44) there", "(16, 52) in this network")),
        ({"mlp_dim": 36}, ("mlp/wi_0/kernel", "(16, 28) there", "(16, 36) in")),
        ({"num_encoder_layers": 2}, ("encoder/layers_1", "none (missing) there")),
        ({"logits_via_embedding": True}, ("decoder/logits_dense/kernel", "none (unknown) in")),
    ],
)
def test_another_network_is_named_with_both_shapes(saved, changes, parts):
    message = _error(checkpoints.restore, saved[0], _abstract(**changes))
    assert [part for part in parts if part not in message] == [], message


def test_another_optimizers_state_is_refused(saved):
    message = _error(checkpoints.restore, saved[0], _abstract(optimizer="adafactor"))
    assert str(saved[0]) in message and "optimi" in message


def test_what_is_no_checkpoint_is_refused(tmp_path):
    abstract = _abstract()
    assert "no checkpoint there" in _error(checkpoints.restore, tmp_path / "none", abstract)
    for _ in ("an empty folder", "one with something else"):
        (tmp_path / "other").mkdir(exist_ok=True)
        message = _error(checkpoints.restore, tmp_path / "other", abstract)
        assert f"{tmp_path / 'other'}: not a checkpoint" in message
        (tmp_path / "other" / "notes.txt").write_text("nothing of ours")


@pytest.mark.parametrize("method", ["save", "wait_until_finished"])
def test_a_full_disk_leaves_the_checkpoints_before(tmp_path, monkeypatch, method):
    state = _state(_abstract())
    saver = checkpoints.Checkpointer(tmp_path)
    saver.save(state, 1)
    saver.finish()

    def fail(*args, **kwargs):
        (tmp_path / "checkpoint_2.orbax-checkpoint-tmp" / "part").mkdir(parents=True)
        raise ValueError("INTERNAL: x [OS error 28: ENOSPC No space left on device]\nmany lines")

    monkeypatch.setattr(saver._writer, method, fail)
    line = f"{tmp_path}/checkpoint_2: can't be written \\(No space left on device\\)$"
    with pytest.raises(TryAgainError, match=line):
        saver.save(state, 2)
        saver.finish()
    monkeypatch.undo()
    saver.close()
    assert checkpoints.committed_steps(tmp_path) == [1]
    assert not list(tmp_path.glob("checkpoint_2*"))
