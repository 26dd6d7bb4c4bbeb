"""Cores, memory, disk and devices: lines of the page of `poison-t5x doctor`."""

import enum
import glob
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from poison_t5x.core import errors

PART = "Machine"
GIB = 2**30
# What JAX detects a Slurm step by.
_STEP = [f"SLURM_{name}" for name in ("JOB_ID", "STEP_NODELIST", "NTASKS", "PROCID", "LOCALID")]
# Seconds. A TPU alone takes several to start; a pod's host waits for the others for ever.
TIMEOUT = 30
_ERROR = re.compile(r"[\w.]+(Error|Exception)\b")
_PROBE = """
import json, jax
devices = jax.local_devices()
try:
    limit = (devices[0].memory_stats() or {}).get("bytes_limit")
except Exception:
    limit = None
print(json.dumps([devices[0].platform, devices[0].device_kind, len(devices), limit]))
"""


class Level(enum.StrEnum):
    """Whether it is well."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(NamedTuple):
    """One line: its heading, the thing that was checked, and its state with a remedy."""

    part: str
    name: str
    text: str
    level: Level = Level.OK


def guarded(part: str, name: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """The findings of `check`; where it fails, that, so that the other checks are made.

    Raises InputError where `check` does: the user's settings are wrong.
    """
    findings: list[Finding] = []
    try:
        findings.extend(check())  # those before the failure stay
    except errors.InputError:
        raise
    except Exception as error:  # whatever a broken installation raises is what is to be told
        message = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
        text = f"can't be checked: {message}"
        findings.append(Finding(part, name, text, Level.PROBLEM))
    return findings


def environment() -> dict[str, str]:
    """The environment as the user has it, without what the command line has set for itself."""
    return {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}


def memory_bytes(root: str = "/") -> int:
    """Memory that this process may use: the machine's, or a control group's if that is less."""
    # Of both versions of control groups: this process's own, and those around it.
    groups = {pathlib.PurePosixPath("/")}
    for line in _read(f"{root}/proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if {"", "memory"} & set(controllers.split(",")):
            path = pathlib.PurePosixPath(group)
            groups |= {path, *path.parents}
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for group in groups:
        for name in (f"{group}/memory.max", f"memory{group}/memory.limit_in_bytes"):
            text = _read(f"{root}/sys/fs/cgroup/{name}").strip()
            limits += [int(text)] if text.isdigit() else []  # 'max' is none
    return min(limits)


def _read(path: str) -> str:
    try:
        return pathlib.Path(path).read_text(encoding="ascii")
    except OSError:
        return ""


def check() -> Iterator[Finding]:
    """All but the devices."""
    yield Finding(PART, "python", f"{platform.python_version()}, {platform.platform(terse=True)}")
    # Fewer cores than the machine's where this process may not use all.
    affinity = getattr(os, "sched_getaffinity", None)
    yield Finding(PART, "cores", str(len(affinity(0)) if affinity else os.cpu_count()))
    yield Finding(PART, "memory", f"{memory_bytes() / GIB:.1f} GiB")
    yield Finding(PART, "disk here", f"{shutil.disk_usage(os.getcwd()).free / GIB:.1f} GiB free")


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
      memory: bytes that JAX takes of each; None of CPU devices, which share the machine's.
    """

    platform: str
    kind: str
    count: int
    memory: int | None


def check_devices(
    environment: dict[str, str], timeout: float = TIMEOUT
) -> tuple[Finding, Devices | None]:
    """The line about the devices that JAX sees, and them."""
    here, reason = _ask(environment, timeout)
    if here is None:
        return Finding(PART, "devices", f"JAX finds none: {reason}", Level.PROBLEM), None
    text = f"{here.count} x {here.kind} ({here.platform})"
    memory = f", {here.memory / GIB:.1f} GiB each for JAX" if here.memory else ""
    return Finding(PART, "devices", text + memory), here


def _ask(environment: dict[str, str], timeout: float) -> tuple[Devices | None, str]:
    """In a process of its own: JAX may wait for ever, or be broken."""
    # Looking takes no memory from what runs there.
    quiet = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_CPP_MIN_LOG_LEVEL": "3"}
    if not glob.glob("/dev/accel[0-9]*") + glob.glob("/dev/vfio/[0-9]*"):
        quiet["TPU_SKIP_MDS_QUERY"] = "1"  # no TPU, so no metadata server to wait for
    command = [sys.executable, "-c", _PROBE]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, env=environment | quiet
        )
    except subprocess.TimeoutExpired:
        return None, (
            f"no answer in {timeout:.0f} s; another process may hold them, and a host of a "
            "pod waits until the command runs on all of its hosts"
        )
    if done.returncode:  # a traceback ends with the error
        lines = filter(_ERROR.match, reversed(done.stderr.splitlines()))
        return None, next(lines, f"exit code {done.returncode}")
    return Devices(*json.loads(done.stdout.strip().splitlines()[-1])), ""
