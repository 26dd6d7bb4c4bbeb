"""Which devices JAX sees, asked in a process of its own: it may wait for ever, or be broken."""

import glob
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import NamedTuple

from poison_t5x.tools.doctor.findings import Finding, Level
from poison_t5x.tools.doctor.machine import GIB, PART

# Device files of accelerators -> (what, the platform that JAX calls it, extra).
FILES = {
    "/dev/nvidia[0-9]*": ("NVIDIA GPUs", "gpu", "gpu"),
    "/dev/accel[0-9]*": ("TPU chips", "tpu", "tpu"),
    "/dev/vfio/[0-9]*": ("TPU chips", "tpu", "tpu"),
}
# Seconds. A TPU alone takes several to start; a pod's host waits for the others for ever.
TIMEOUT = 30
_PROBE = """
import json
try:
    import jax
    seen = jax.local_devices()
    try:
        limit = (seen[0].memory_stats() or {}).get("bytes_limit")
    except Exception:
        limit = None
    found = [seen[0].platform, seen[0].device_kind, len(seen), limit]
except Exception as error:
    found = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""


class Devices(NamedTuple):
    """What JAX sees on this machine: equal devices.

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


def check(
    environment: Mapping[str, str], timeout: float = TIMEOUT
) -> tuple[list[Finding], Devices | None]:
    """The line about devices, one about each accelerator that JAX doesn't see, and what it sees."""
    seen, reason = _ask(environment, timeout)
    unseen = _unseen(seen.platform if seen else None, environment)
    if seen is None:
        return [Finding(PART, "devices", Level.PROBLEM, f"JAX finds none: {reason}"), *unseen], None
    text = f"{seen.count} x {seen.kind} ({seen.platform})"
    if seen.memory:
        text += f", {seen.memory / GIB:.1f} GiB each for JAX"
    return [Finding(PART, "devices", Level.OK, text), *unseen], seen


def _ask(environment: Mapping[str, str], timeout: float) -> tuple[Devices | None, str]:
    quiet = {
        # Looking takes no memory from what runs there.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    if not any(glob.glob(pattern) for pattern, what in FILES.items() if what[1] == "tpu"):
        quiet["TPU_SKIP_MDS_QUERY"] = "1"  # no metadata server to wait for
    try:
        answer = subprocess.run(
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
    # A library may have spoken first.
    lines = answer.stdout.strip().splitlines()
    if answer.returncode or not lines:
        return None, f"the process that asks JAX ended with code {answer.returncode}"
    found = json.loads(lines[-1])
    if isinstance(found, str):
        return None, found.strip().splitlines()[0]
    return Devices(*found), ""


def _unseen(platform: str | None, environment: Mapping[str, str]) -> list[Finding]:
    found = []
    for pattern, (what, name, extra) in FILES.items():
        files = glob.glob(pattern)
        if not files or name == platform:
            continue
        remedy = f"pip install 'poison-t5x[{extra}]'"
        if chosen := environment.get("JAX_PLATFORMS"):
            remedy = f"unset JAX_PLATFORMS, which is {chosen!r}; if they still aren't, {remedy}"
        text = f"{len(files)} here ({sorted(files)[0]} …) that JAX doesn't see: {remedy}"
        found.append(Finding(PART, what, Level.WARNING, text))
    return found


def environment() -> dict[str, str]:
    """The environment as the user has it, without what the command line has set for itself."""
    return {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
