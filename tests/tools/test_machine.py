"""A machine's memory, its devices, and how many of it there are."""

import os

import pytest

from poison_t5x.tools import machine
from poison_t5x.tools.machine import Level


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"sys/fs/cgroup/memory.max": "1048576\n"}, 2**20),
        ({"sys/fs/cgroup/memory.max": "max\n"}, None),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": "2097152\n"}, 2**21),
        # A batch system's limit is that of a group around this one.
        (
            {
                "proc/self/cgroup": "0::/slurm/job_7/step_0\n",
                "sys/fs/cgroup/slurm/job_7/memory.max": "4194304\n",
                "sys/fs/cgroup/slurm/job_7/step_0/memory.max": "max\n",
            },
            2**22,
        ),
        ({"proc/self/cgroup": "3:cpu:/a\n", "sys/fs/cgroup/a/memory.max": "1\n"}, None),
        ({}, None),
    ],
)
def test_memory_has_the_control_groups_limit(tmp_path, files, limit):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert machine.memory_bytes(str(tmp_path)) == (limit or whole)


STEP = {
    **{f"SLURM_{name}": "0" for name in ("JOB_ID", "STEP_NODELIST", "NTASKS", "PROCID")},
    **{"SLURM_LOCALID": "0", "SLURM_STEP_NUM_NODES": "2"},
}


def test_hosts_are_those_that_jax_would_detect():
    pod, outside = {"TPU_WORKER_HOSTNAMES": "a,b,c,d"}, {"SLURM_STEP_NUM_NODES": "2"}
    hosts = [machine.num_hosts(environment) for environment in (STEP, pod, outside, {})]
    assert hosts == [2, 4, 1, 1]


def _check(platforms, **changes):
    return machine.check_devices({**machine.environment(), "JAX_PLATFORMS": platforms}, **changes)


def test_devices_are_those_that_jax_sees():
    row, seen = _check("cpu")
    assert seen == machine.Devices("cpu", "cpu", 8, None)
    assert (row.level, row.text) == (Level.OK, "8 x cpu (cpu)")


@pytest.mark.parametrize(
    ("platforms", "changes", "text"),
    [("abacus", {}, "abacus"), ("cpu", {"timeout": 0.01}, "no answer")],
)
def test_no_devices_is_a_problem_and_not_waited_for(platforms, changes, text):
    row, seen = _check(platforms, **changes)
    assert seen is None and row.level is Level.PROBLEM and text in row.text
