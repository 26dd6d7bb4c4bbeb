"""Whether a network fits: on devices as one likes, since all is arithmetic."""

import pytest

from poison_t5x.core import machine
from poison_t5x.tools import doctor, memory_estimate
from poison_t5x.tools.doctor import Devices, Level
from tests.tools.setups import setup

SETUP = setup()
NEEDED = memory_estimate.estimate(SETUP, 8).total


def _check(one=SETUP, memory_bytes=10 * NEEDED, platform="tpu", num_hosts=1, **macros):
    here = Devices(platform, "a device", 8, memory_bytes)
    return list(doctor.check_settings(macros, lambda is_tpu: one, here, num_hosts))


def _row(rows, name):
    return next(row for row in rows if row.name == name)


def _texts(word, **changes):
    return [row.text for row in _check(**changes) if row.name == "would help" and word in row.text]


def test_what_fits_fits():
    rows = _check()
    assert [row.name for row in rows] == ["network", "mesh", "memory"]
    assert all(row.level is Level.OK for row in rows)


@pytest.mark.parametrize(
    ("share", "level"), [(0.99, Level.PROBLEM), (1.05, Level.WARNING), (1.2, Level.OK)]
)
def test_what_is_tight_is_a_warning(share, level):
    assert _row(_check(memory_bytes=share * NEEDED), "memory").level is level


def test_what_does_not_fit_has_its_remedies():
    assert _texts("REMAT_POLICY=full", memory_bytes=0.99 * NEEDED)
    assert _texts("which is enough", memory_bytes=0.99 * NEEDED)
    assert _texts("", memory_bytes=100) and not _texts("enough", memory_bytes=100)
    # A GPU's other quarter.
    assert len(_texts("MEM_FRACTION", memory_bytes=0.9 * NEEDED, platform="gpu")) == 1
    assert not _texts("MEM_FRACTION", memory_bytes=0.9 * NEEDED, platform="tpu")


def test_cpu_devices_share_the_machines_memory(monkeypatch):
    def level(whole):
        monkeypatch.setattr(machine, "memory_bytes", lambda: whole)
        return _row(_check(memory_bytes=None, platform="cpu"), "memory").level

    assert level(1.5e9 + 8 * 2 * NEEDED) is Level.OK
    assert level(1.5e9 + 2 * NEEDED) is level(1e9) is Level.PROBLEM


@pytest.mark.parametrize(
    ("num_partitions", "batch_size", "num_hosts", "text"),
    [
        (3, 16, 1, "set --gin.NUM_PARTITIONS=2"),
        (1, 12, 1, "use a multiple of 8"),
        (1, 16, 4, "use a multiple of 32"),
    ],
)
def test_a_mesh_that_does_not_divide(num_partitions, batch_size, num_hosts, text):
    one = setup(partition=(num_partitions,), batch_size=batch_size)
    rows = _check(one, num_hosts=num_hosts)
    assert _row(rows, "mesh").level is Level.PROBLEM and text in _row(rows, "mesh").text
    assert not any(row.name == "memory" for row in rows)


def test_without_devices_the_network_and_the_disk_are_told(tmp_path):
    macros = {"KEEP_CHECKPOINTS": 2, "RUN_DIR": str(tmp_path / "to" / "come")}
    rows = doctor.check_settings(macros, lambda is_tpu: SETUP, None)
    assert [row.name for row in rows] == ["network", "disk"]


def test_disk_space_is_for_all_checkpoints(monkeypatch, tmp_path):
    each = sum(SETUP.state_bytes())

    def level(free, **macros):
        usage = type("Usage", (), {"free": free})
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)
        return _row(_check(KEEP_CHECKPOINTS=2, **macros), "disk").level

    run, model = {"RUN_DIR": str(tmp_path)}, {"MODEL_DIR": str(tmp_path)}
    assert level(6 * each, **run) is level(3 * each, **model) is Level.OK
    assert level(6 * each - 1, **run) is level(3 * each - 1, **model) is Level.WARNING
    assert level(each - 1, **run) is Level.PROBLEM
