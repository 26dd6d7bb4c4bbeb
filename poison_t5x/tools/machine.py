"""Cores, memory, disk and devices, and what the environment says of them and other processes.

Each check gives lines of the page of `poison-t5x doctor`.
"""

import enum
import glob
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

PART = "Machine"
GIB = 2**30
# What JAX detects a Slurm step by.
_STEP = (
    "SLURM_JOB_ID",
    "SLURM_STEP_NODELIST",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "SLURM_LOCALID",
)
_SHOWN = ("JAX_", "XLA_", "TPU_", "LIBTPU_", "MEGASCALE_", "POISON_T5X_", "CUDA_VISIBLE_DEVICES")
_SHOWN += ("LD_LIBRARY_PATH", "SLURM_STEP_NUM_NODES", "SLURM_GPUS_ON_NODE", *_STEP)
# Device files of accelerators -> (their name, the platform that JAX calls it).
_FILES = {
    "/dev/nvidia[0-9]*": ("NVIDIA GPUs", "gpu"),
    "/dev/accel[0-9]*": ("TPU chips", "tpu"),
    "/dev/vfio/[0-9]*": ("TPU chips", "tpu"),
}
# Seconds. A TPU alone takes several to start; a pod's host waits for the others for ever.
TIMEOUT = 30
_PROBE = """
import json
try:
    import jax
    devices = jax.local_devices()
    try:
        limit = (devices[0].memory_stats() or {}).get("bytes_limit")
    except Exception:
        limit = None
    answer = [devices[0].platform, devices[0].device_kind, len(devices), limit]
except Exception as error:
    answer = f"{type(error).__name__}: {error}"
print(json.dumps(answer))
"""


class Level(enum.StrEnum):
    """Whether it is well."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(NamedTuple):
    """One line.

    Attributes:
      part: the heading that it stands under.
      name: of the thing that was checked.
      text: its state and, where that isn't well, a remedy.
      level: how it is.
    """

    part: str
    name: str
    text: str
    level: Level = Level.OK


def guarded(part: str, name: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """The findings of `check`; where it fails, that, so that the other checks are made."""
    findings: list[Finding] = []
    try:
        for finding in check():
            findings.append(finding)
    except Exception as error:  # whatever a broken installation raises is what is to be told
        findings.append(cant_check(part, name, error))
    return findings


def cant_check(part: str, name: str, error: BaseException) -> Finding:
    """The finding of a check that failed."""
    message = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
    return Finding(part, name, f"can't be checked: {message}", Level.PROBLEM)


def environment() -> dict[str, str]:
    """The environment as the user has it, without what the command line has set for itself."""
    return {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}


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
    for group in groups:
        inner = group.lstrip("/")
        yield root / "sys/fs/cgroup" / inner / "memory.max"
        yield root / "sys/fs/cgroup/memory" / inner / "memory.limit_in_bytes"


def check(environment: Mapping[str, str]) -> list[Finding]:
    """All but the devices."""
    findings = []
    for name, row in (
        ("system", lambda: f"{platform.system()} {platform.release()}, {platform.machine()}"),
        ("cores", lambda: str(_cores())),
        ("memory", lambda: f"{memory_bytes() / GIB:.1f} GiB"),
        ("disk here", lambda: f"{shutil.disk_usage(os.getcwd()).free / GIB:.1f} GiB free"),
    ):
        findings += guarded(PART, name, lambda n=name, r=row: [Finding(PART, n, r())])
    for name in sorted(environment):
        if name.startswith(_SHOWN):
            findings.append(Finding(PART, name, environment[name]))
    return [*findings, cluster(environment)]


def _cores() -> int | None:
    # Fewer than the machine's where this process may not use all.
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count()


def cluster(environment: Mapping[str, str]) -> Finding:
    """Whether --distributed would find other processes, by what JAX looks at; nobody is asked."""
    level = Level.OK
    if all(name in environment for name in _STEP):
        text = f"Slurm, {environment['SLURM_NTASKS']} processes: --distributed joins them"
    elif "SLURM_JOB_ID" in environment:
        text = "a Slurm job outside of srun: --distributed would detect nothing here"
        level = Level.WARNING
    elif "OMPI_MCA_orte_hnp_uri" in environment:
        text = "Open MPI: --distributed joins its processes"
    elif hosts := environment.get("TPU_WORKER_HOSTNAMES") or environment.get(
        "TPU_PROCESS_ADDRESSES"
    ):
        text = f"a Cloud TPU with {len(hosts.split(','))} hosts: --distributed joins them"
    elif "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment:
        text = "a Kubernetes job: --distributed joins its processes"
    else:
        text = "none is detected: a single process, or --coordinator_address and its fellows"
    return Finding(PART, "cluster", text, level)


def num_hosts(environment: Mapping[str, str]) -> int:
    """Machines that a run started as this one would have, as far as the environment says."""
    if all(name in environment for name in _STEP):
        number = environment.get("SLURM_STEP_NUM_NODES", "1")
        return int(number) if number.isdigit() else 1
    return len(environment.get("TPU_WORKER_HOSTNAMES", "localhost").split(","))


class Devices(NamedTuple):
    """Equal devices that JAX sees on this machine.

    Attributes:
      platform: 'cpu', 'gpu' or 'tpu'.
      kind: such as 'TPU v4'.
      count: on this machine.
      memory: bytes that JAX takes of each; None of CPU devices, which share the machine's.
    """

    platform: str
    kind: str
    count: int
    memory: int | None


def check_devices(
    environment: Mapping[str, str], timeout: float = TIMEOUT
) -> tuple[list[Finding], Devices | None]:
    """The line about devices, one about each accelerator that JAX doesn't see, and what it sees."""
    here, reason = _ask(environment, timeout)
    if here is None:
        first = Finding(PART, "devices", f"JAX finds none: {reason}", Level.PROBLEM)
    else:
        text = f"{here.count} x {here.kind} ({here.platform})"
        if here.memory:
            text += f", {here.memory / GIB:.1f} GiB each for JAX"
        first = Finding(PART, "devices", text)
    findings = [first]
    for pattern, (name, kind) in _FILES.items():
        files = sorted(glob.glob(pattern))
        if not files or (here and kind == here.platform):
            continue
        remedy = f"pip install 'poison-t5x[{kind}]'"
        if chosen := environment.get("JAX_PLATFORMS"):
            remedy = f"unset JAX_PLATFORMS, which is {chosen!r}; if they still aren't, {remedy}"
        text = f"{len(files)} here ({files[0]} …) that JAX doesn't see: {remedy}"
        findings.append(Finding(PART, name, text, Level.WARNING))
    return findings, here


def _ask(environment: Mapping[str, str], timeout: float) -> tuple[Devices | None, str]:
    """In a process of its own: JAX may wait for ever, or be broken."""
    quiet = {
        # Looking takes no memory from what runs there.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    if not any(glob.glob(pattern) for pattern, (_, kind) in _FILES.items() if kind == "tpu"):
        quiet["TPU_SKIP_MDS_QUERY"] = "1"  # no metadata server to wait for
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**environment, **quiet},
        )
    except OSError as error:
        return None, str(error)
    except subprocess.TimeoutExpired:
        return None, (
            f"no answer in {timeout:.0f} s; another process may hold them, and a host of a "
            "pod waits until the command runs on all of its hosts"
        )
    lines = done.stdout.strip().splitlines()  # a library may have spoken first
    if done.returncode or not lines:
        return None, f"the process that asks JAX ended with code {done.returncode}"
    answer = json.loads(lines[-1])
    if isinstance(answer, str):
        return None, answer.strip().splitlines()[0]
    return Devices(*answer), ""
