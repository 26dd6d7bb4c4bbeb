"""Cores, memory, disk, accelerators, and what the environment says of them."""

import glob
import os
import pathlib
import platform
import shutil
from collections.abc import Mapping

from poison_t5x.doctor.findings import Finding, Level

PART = "Machine"
_GIB = 2**30
# Device files of accelerators -> (what, the platform that JAX calls it, extra).
_FILES = {
    "/dev/nvidia[0-9]*": ("NVIDIA GPUs", "gpu", "gpu"),
    "/dev/accel[0-9]*": ("TPU chips", "tpu", "tpu"),
    "/dev/vfio/[0-9]*": ("TPU chips", "tpu", "tpu"),
}
_VARIABLES = ("JAX_", "XLA_", "TPU_", "LIBTPU_", "CUDA_VISIBLE_DEVICES", "TF_CPP_", "POISON_T5X_")
_CLUSTERS = {
    "SLURM_JOB_ID": "Slurm",
    "OMPI_MCA_orte_hnp_uri": "Open MPI",
    "JOB_COMPLETION_INDEX": "Kubernetes",
    "TPU_WORKER_HOSTNAMES": "a Cloud TPU",
}


def memory_bytes() -> int:
    """Memory that this process may use: the machine's, or its control group's if that is less."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = pathlib.Path(name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            limits.append(int(text))
    return min(limits)


def check(environment: Mapping[str, str] = os.environ) -> list[Finding]:
    """All but the devices that JAX sees, which `devices` asks it for."""
    disk = shutil.disk_usage(os.getcwd())
    cores = len(os.sched_getaffinity(0))
    found = [
        Finding(PART, "system", Level.OK, f"{platform.system()} {platform.machine()}"),
        Finding(PART, "cores", Level.OK, str(cores)),
        Finding(PART, "memory", Level.OK, f"{memory_bytes() / _GIB:.1f} GiB"),
        Finding(PART, "disk here", Level.OK, f"{disk.free / _GIB:.1f} GiB free"),
    ]
    names = sorted(name for name in environment if name.startswith(_VARIABLES))
    for name in names:
        found.append(Finding(PART, name, Level.OK, environment[name]))
    clusters = [what for name, what in _CLUSTERS.items() if name in environment]
    text = f"{' and '.join(clusters)}: --distributed joins its processes" if clusters else "none"
    found.append(Finding(PART, "cluster", Level.OK, text))
    return found


def devices() -> tuple[list[Finding], list]:
    """What JAX sees, and the devices themselves; none where it fails."""
    try:
        import jax

        seen = jax.devices()
    except Exception as error:  # whatever a broken installation raises is what is to be told
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return [Finding(PART, "devices", Level.PROBLEM, f"JAX finds none: {reason}")], []
    first = seen[0]
    text = f"{len(seen)} x {first.device_kind} ({first.platform})"
    if limit := device_bytes(first):
        text += f", {limit / _GIB:.1f} GiB each"
    found = [Finding(PART, "devices", Level.OK, text)]
    platforms = {device.platform for device in seen}
    for pattern, (what, name, extra) in _FILES.items():
        files = glob.glob(pattern)
        if files and name not in platforms:
            text = (
                f"{len(files)} of them are here, and JAX doesn't see them: "
                f"pip install 'poison-t5x[{extra}]', and unset JAX_PLATFORMS"
            )
            found.append(Finding(PART, what, Level.WARNING, text))
    return found, seen


def device_bytes(device) -> int | None:
    """Memory of an accelerator; None of a CPU, whose devices share the machine's."""
    try:
        stats = device.memory_stats() or {}
    except Exception:  # not every platform has them
        stats = {}
    return stats.get("bytes_limit")
