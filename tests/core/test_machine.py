"""Memory that a process may use, by the system's own files."""

import os

import pytest

from poison_t5x.core import machine

GROUP = "sys/fs/cgroup/slurm/job_7"


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
                f"{GROUP}/memory.max": "4194304\n",
                f"{GROUP}/step_0/memory.max": "max\n",
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
