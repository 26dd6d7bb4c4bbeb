"""Cores, memory, disk, and what the environment says of devices and of other processes."""

import os
import pathlib
import platform
import shutil
from collections.abc import Iterator, Mapping

from poison_t5x.tools.doctor.findings import Finding, Level, guarded

PART = "Machine"
GIB = 2**30
_PREFIXES = ("JAX_", "XLA_", "TPU_", "LIBTPU_", "MEGASCALE_", "POISON_T5X_")
_NAMES = (
    "CUDA_VISIBLE_DEVICES",
    "LD_LIBRARY_PATH",
    "SLURM_JOB_ID",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "SLURM_LOCALID",
    "SLURM_STEP_NODELIST",
    "SLURM_STEP_NUM_NODES",
    "SLURM_GPUS_ON_NODE",
)
# What JAX detects a Slurm step by.
_STEP = (
    "SLURM_JOB_ID",
    "SLURM_STEP_NODELIST",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "SLURM_LOCALID",
)


def memory_bytes(root: str = "/") -> int:
    """Memory that this process may use: the machine's, or a control group's if that is less.

    Args:
      root: where proc and sys are, for tests.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _limit_files(pathlib.Path(root)):
        try:
            text = path.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():  # 'max' is none
            limits.append(int(text))
    return min(limits)


def _limit_files(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """Of both versions of control groups: this process's own, and those around it."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except OSError:
        lines = []
    groups = {"/"}
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if {"", "memory"} & set(controllers.split(",")):
            groups |= {group, *map(str, pathlib.PurePosixPath(group).parents)}
    for group in sorted(groups):
        inner = group.lstrip("/")
        yield root / "sys/fs/cgroup" / inner / "memory.max"
        yield root / "sys/fs/cgroup/memory" / inner / "memory.limit_in_bytes"


def check(environment: Mapping[str, str]) -> list[Finding]:
    """All but the devices that JAX sees, which `devices` has it asked for."""
    found = []
    for name, row in (
        ("system", lambda: f"{platform.system()} {platform.release()}, {platform.machine()}"),
        ("cores", _cores),
        ("memory", lambda: f"{memory_bytes() / GIB:.1f} GiB"),
        ("disk here", lambda: f"{shutil.disk_usage(os.getcwd()).free / GIB:.1f} GiB free"),
    ):
        found += guarded(PART, name, lambda n=name, r=row: [Finding(PART, n, Level.OK, r())])
    for name in sorted(environment):
        if name.startswith(_PREFIXES) or name in _NAMES:
            found.append(Finding(PART, name, Level.OK, environment[name]))
    return [*found, cluster(environment)]


def _cores() -> str:
    # Fewer than the machine's where this process may not use all.
    affinity = getattr(os, "sched_getaffinity", None)
    return str(len(affinity(0)) if affinity else os.cpu_count())


def cluster(environment: Mapping[str, str]) -> Finding:
    """Whether --distributed would find other processes, by what JAX looks at; nobody is asked."""
    text, level = _cluster(environment), Level.OK
    if text is None:
        text = "none is detected: a single process, or --coordinator_address and its fellows"
    elif text.startswith("but"):
        level, text = Level.WARNING, text.removeprefix("but ")
    return Finding(PART, "cluster", level, text)


def _cluster(environment: Mapping[str, str]) -> str | None:
    if all(name in environment for name in _STEP):
        return f"Slurm, {environment['SLURM_NTASKS']} processes: --distributed joins them"
    if "SLURM_JOB_ID" in environment:
        return "but a Slurm job outside of srun: --distributed would detect nothing here"
    if "OMPI_MCA_orte_hnp_uri" in environment:
        return "Open MPI: --distributed joins its processes"
    for name in ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES"):
        if name in environment:
            number = len(environment[name].split(","))
            return f"a Cloud TPU with {number} hosts: --distributed joins them"
    if "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment:
        return "a Kubernetes job: --distributed joins its processes"
    return None


def num_hosts(environment: Mapping[str, str]) -> int:
    """Machines that a run started as this one would have, as far as the environment says."""
    if all(name in environment for name in _STEP):
        number = environment.get("SLURM_STEP_NUM_NODES", "1")
        return int(number) if number.isdigit() else 1
    return len(environment.get("TPU_WORKER_HOSTNAMES", "localhost").split(","))
