"""The parts of a run in two processes of four devices give what they give in one of eight."""

import itertools
import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from poison_t5x.data import input_pipeline
from poison_t5x.model.network import Transformer
from poison_t5x.train import checkpoints, optimizers, train_state, trained_model
from poison_t5x.train.partitioning import PartitionConfig, Partitioner
from tests.train.distributed import parts_network, worker

ROOT = pathlib.Path(__file__).parents[3]
TIMEOUT = 400
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


def _abstract(partitioner):
    transform = optimizers.make(optimizers.OptimizerConfig(name="adamw"), lambda step: 0.1)
    return train_state.abstract(Transformer(parts_network.NETWORK), transform, partitioner)


@pytest.fixture(scope="module")
def state():
    """Random numbers in the place of every leaf, on eight devices in a row."""
    rng = np.random.default_rng(0)
    abstract = _abstract(Partitioner(PartitionConfig(1, 1, 2)))

    def draw(leaf):
        values = rng.integers(1, 1000, leaf.shape).astype(leaf.dtype)
        return jax.device_put(values, leaf.sharding)

    return jax.tree.map(draw, abstract)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, state):
    """What `worker` wrote in both processes."""
    folder = tmp_path_factory.mktemp("parts")
    saver = checkpoints.Checkpointer(folder / "model")
    saver.save(state, 3)
    saver.close()
    job = _free_job()
    started = []
    for number in (0, 1):
        environment = {
            **os.environ,
            "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
            "JAX_PLATFORMS": "cpu",
            "SLURM_JOB_ID": str(job),
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_NTASKS": "2",
            "SLURM_PROCID": str(number),
            "SLURM_LOCALID": str(number),
        }
        with open(folder / f"{number}.log", "wb") as log:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", worker.__name__, str(folder)],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    cwd=ROOT,
                )
            )
    try:
        codes = [process.wait(TIMEOUT) for process in started]
    finally:
        for process in started:
            process.kill()
    assert codes == [0, 0], (folder / "0.log").read_text() + (folder / "1.log").read_text()
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return [json.loads((folder / f"{number}.json").read_text()) for number in (0, 1)]


def test_they_find_each_other_by_their_surroundings(found):
    assert [one["who"] for one in found] == ["process 0 of 2", "process 1 of 2"]
    assert [one["made"] for one in found] == [["by", 0]] * 2


def test_digest_is_that_of_one_process(found, state):
    expected = trained_model.digest(state.params)
    for one in found:
        assert one["digest"] == one["digest_in_parts"] == expected


def test_a_process_reads_its_own_shards(folder, found):
    files = (folder / "model" / "checkpoint_3").rglob("*")
    size = sum(path.stat().st_size for path in files if path.is_file())
    # The first one reads everything once more, against the hashes.
    assert found[1]["bytes_read"] < 0.7 * size < size < found[0]["bytes_read"] < 1.75 * size


@pytest.mark.parametrize("mesh", [(1, 1), (4, 8)], ids=["1", "2x4"])
def test_what_two_saved_restores_in_one(folder, found, state, mesh):
    assert [(one["last"], one["committed"]) for one in found] == [(5, [5])] * 2
    partitions, devices = mesh
    partitioner = Partitioner(PartitionConfig(partitions, 1, 2), jax.devices()[:devices])
    restored = checkpoints.restore(
        checkpoints.step_path(folder / "again", 5), _abstract(partitioner)
    )
    for leaf, twin in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
        assert leaf.dtype == twin.dtype
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(twin))


def test_all_hear_of_a_vote_one_step_later(found):
    assert [one["votes"] for one in found] == [[False, False, False, True, False]] * 2


@pytest.mark.parametrize(
    ("mesh", "shards"),
    [("4x2", [[0, 1], [2, 3]]), ("crossed", [[0, 2], [1, 3]]), ("1x8", [[0], [0]])],
)
def test_batches_are_those_of_one_process(folder, found, mesh, shards):
    assert [one["shards"][mesh] for one in found] == shards
    config = parts_network.dataset(1 if mesh == "1x8" else 4)
    batches = itertools.islice(input_pipeline.batches(config), 5)
    expected = np.stack([batch["encoder_input_tokens"] for batch in batches])
    for number in (0, 1):
        np.testing.assert_array_equal(np.load(folder / f"{number}.npz")[mesh], expected)
    # An epoch is five batches: each row comes once, were it not for shuffling over its end.
    assert len(np.unique(expected)) > parts_network.ROWS // 2


def test_shards_that_two_would_read_are_refused(found):
    for one in found:
        assert one["error"].startswith("DATA_SHARDS: 1 shards of 8 rows can't be told apart by 2")
        assert one["error"].endswith("set DATA_SHARDS=4")
