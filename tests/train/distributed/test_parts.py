"""The parts of a run in two processes of four devices give what they give in one of eight."""

import itertools
import json
import os
import socket

import jax
import numpy as np
import optax
import pytest

from poison_t5x.data import input_pipeline
from poison_t5x.model.network import Transformer
from poison_t5x.train import checkpoints, train_state, trained_model
from poison_t5x.train.partitioning import PartitionConfig, Partitioner
from tests.train.distributed import two, worker

# JAX takes a Slurm job's port from its number: 4096 of them, from here on.
FIRST_PORT = 61440


def _free_job() -> int:
    for number in range(os.getpid() % 4096, 2 * 4096):
        with socket.socket() as free:
            try:
                free.bind(("localhost", FIRST_PORT + number % 4096))
            except OSError:
                continue
            return number % 4096
    raise AssertionError("no free port")


def _abstract(*mesh, num_devices: int = 8):
    partitioner = Partitioner(PartitionConfig(*mesh), jax.devices()[:num_devices])
    return train_state.abstract(Transformer(two.NETWORK), optax.adamw(0.1), partitioner)


@pytest.fixture(scope="module")
def state():
    """Random numbers in the place of every leaf, on eight devices in a row."""
    rng = np.random.default_rng(0)

    def draw(leaf):
        values = rng.integers(1, 1000, leaf.shape).astype(leaf.dtype)
        return jax.device_put(values, leaf.sharding)

    return jax.tree.map(draw, _abstract(1, 1, 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, state):
    """What `worker` wrote in both processes."""
    folder = tmp_path_factory.mktemp("parts")
    saver = checkpoints.Checkpointer(folder / "model")
    saver.save(state, 3)
    saver.close()
    variables = {
        "SLURM_JOB_ID": str(_free_job()),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": "{}",
        "SLURM_LOCALID": "{}",
    }
    ends = two.run(worker.__name__, folder, num_devices=4, **variables)
    assert [code for code, _ in ends] == [0, 0], ends
    return folder


@pytest.fixture(scope="module")
def facts(folder):
    return [json.loads((folder / f"{number}.json").read_text()) for number in (0, 1)]


def test_they_find_each_other_by_their_surroundings(facts):
    assert [one["who"] for one in facts] == ["process 0 of 2", "process 1 of 2"]
    assert [one["made"] for one in facts] == [["by", 0]] * 2


def test_digest_is_that_of_one_process(facts, state):
    expected = trained_model.digest(state.params)
    for one in facts:
        assert one["digest"] == one["digest_in_parts"] == expected


def test_a_process_reads_its_own_shards(folder, facts):
    files = (folder / "model" / "checkpoint_3").rglob("*")
    size = sum(path.stat().st_size for path in files if path.is_file())
    # The first one reads everything once more, against the hashes.
    assert facts[1]["bytes_read"] < 0.7 * size < size < facts[0]["bytes_read"] < 1.75 * size


@pytest.mark.parametrize("mesh", [(1, 1), (4, 8)], ids=["1", "2x4"])
def test_what_two_saved_restores_in_one(folder, facts, state, mesh):
    assert [(one["last"], one["committed"]) for one in facts] == [(5, [5])] * 2
    partitions, num_devices = mesh
    abstract = _abstract(partitions, 1, 2, num_devices=num_devices)
    restored = checkpoints.restore(checkpoints.step_path(folder / "again", 5), abstract)
    for leaf, twin in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
        assert leaf.dtype == twin.dtype
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(twin))


def test_all_hear_of_a_vote_one_step_later(facts):
    assert [one["votes"] for one in facts] == [[False, False, False, True, False]] * 2


@pytest.mark.parametrize(
    ("mesh", "shards"),
    [("4x2", [[0, 1], [2, 3]]), ("crossed", [[0, 2], [1, 3]]), ("1x8", [[0], [0]])],
)
def test_batches_are_those_of_one_process(folder, facts, mesh, shards):
    assert [one["shards"][mesh] for one in facts] == shards
    config = two.dataset(1 if mesh == "1x8" else 4)
    batches = itertools.islice(input_pipeline.batches(config), 5)
    expected = np.stack([batch["encoder_input_tokens"] for batch in batches])
    for number in (0, 1):
        np.testing.assert_array_equal(np.load(folder / f"{number}.npz")[mesh], expected)
    # An epoch is five batches: each row comes once, were it not for shuffling over its end.
    assert len(np.unique(expected)) > two.ROWS // 2


def test_shards_that_two_would_read_are_refused(facts):
    for one in facts:
        assert one["error"].startswith("DATA_SHARDS: 1 shards of 8 rows can't be told apart by 2")
        assert one["error"].endswith("set DATA_SHARDS=4")
