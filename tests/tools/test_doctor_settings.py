"""Whether a network fits: on devices as one likes, since all is arithmetic."""

import dataclasses

import pytest

from poison_t5x.tools import doctor, memory_estimate
from poison_t5x.tools.machine import Devices, Level
from poison_t5x.tools.memory_estimate import Setup
from poison_t5x.train import optimizers, steps
from poison_t5x.train.partitioning import PartitionConfig
from tests.mesh_model import CONFIG

SETUP = Setup(
    CONFIG,
    optimizers.OptimizerConfig(name="adamw"),
    optimizers.ScheduleConfig(),
    steps.LossConfig(),
    PartitionConfig(),
    sources=64,
    targets=16,
    batch_size=16,
    num_microbatches=1,
    eval_batch_size=16,
    total_steps=10,
)
NEEDED = memory_estimate.estimate(SETUP, 8).total


def _check(setup=SETUP, memory_bytes=10 * NEEDED, platform="tpu", num_hosts=1, **macros):
    here = Devices(platform, "a device", 8, memory_bytes)
    return doctor.check_settings(macros, lambda is_tpu: setup, here, num_hosts)


def _row(found, name):
    return next(row for row in found if row.name == name)


def test_what_fits_fits():
    found = _check()
    assert [row.name for row in found] == ["network", "mesh", "memory"]
    assert all(row.level is Level.OK for row in found)


@pytest.mark.parametrize(
    ("share", "level"), [(0.99, Level.PROBLEM), (1.05, Level.WARNING), (1.2, Level.OK)]
)
def test_what_is_tight_is_a_warning(share, level):
    assert _row(_check(memory_bytes=share * NEEDED), "memory").level is level


def test_what_does_not_fit_has_its_remedies():
    found = _check(memory_bytes=0.99 * NEEDED)
    rows = [row.text for row in found if row.name == "would help"]
    assert any("REMAT_POLICY=full" in row for row in rows)
    assert any(row.endswith("which is enough") for row in rows)
    rows = [row.text for row in _check(memory_bytes=100) if row.name == "would help"]
    assert rows and not any("enough" in row for row in rows)


def test_a_gpus_other_quarter_is_pointed_out():
    def rows(platform):
        found = _check(memory_bytes=0.9 * NEEDED, platform=platform)
        return [row.text for row in found if "MEM_FRACTION" in row.text]

    assert len(rows("gpu")) == 1 and not rows("tpu")


def test_cpu_devices_share_the_machines_memory(monkeypatch):
    def level(whole):
        monkeypatch.setattr(doctor.machine, "memory_bytes", lambda: whole)
        return _row(_check(memory_bytes=None, platform="cpu"), "memory").level

    assert level(1.5e9 + 8 * 2 * NEEDED) is Level.OK
    assert level(1.5e9 + 2 * NEEDED) is Level.PROBLEM
    assert level(1e9) is Level.PROBLEM


@pytest.mark.parametrize(
    ("num_partitions", "batch_size", "num_hosts", "text"),
    [
        (3, 16, 1, "set --gin.NUM_PARTITIONS=2"),
        (1, 12, 1, "use a multiple of 8"),
        (1, 16, 4, "use a multiple of 32"),
    ],
)
def test_a_mesh_that_does_not_divide(num_partitions, batch_size, num_hosts, text):
    partition = PartitionConfig(num_partitions)
    setup = dataclasses.replace(SETUP, partition=partition, batch_size=batch_size)
    found = _check(setup, num_hosts=num_hosts)
    assert _row(found, "mesh").level is Level.PROBLEM and text in _row(found, "mesh").text
    assert not any(row.name == "memory" for row in found)


def test_without_devices_the_network_and_the_disk_are_told(tmp_path):
    macros = {"KEEP_CHECKPOINTS": 2, "RUN_DIR": str(tmp_path / "to" / "come")}
    found = doctor.check_settings(macros, lambda is_tpu: SETUP, None)
    assert [row.name for row in found] == ["network", "disk"]


def test_disk_space_is_for_all_checkpoints(monkeypatch, tmp_path):
    each = sum(memory_estimate.state_bytes(SETUP.model, SETUP.optimizer, SETUP.partition, 1))

    def level(free, **macros):
        usage = type("Usage", (), {"free": free})
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)
        found = _check(KEEP_CHECKPOINTS=2, **macros)
        return _row(found, "disk").level

    run, model = {"RUN_DIR": str(tmp_path)}, {"MODEL_DIR": str(tmp_path)}
    assert level(6 * each, **run) is level(3 * each, **model) is Level.OK
    assert level(6 * each - 1, **run) is level(3 * each - 1, **model) is Level.WARNING
    assert level(each - 1, **run) is Level.PROBLEM
