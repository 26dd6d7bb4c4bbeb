"""Whether a gin file goes with this machine: its network, its memory, the files that it names."""

import math
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

from poison_t5x.doctor import machine
from poison_t5x.doctor.findings import Finding, Level
from poison_t5x.footprint import memory, remedies
from poison_t5x.footprint.setup import Setup

PART = "Settings"
_GB = 1e9
# A process has more than its arrays: libraries, the data's pipeline, the compiler.
_OTHERS = 1.5e9
_PATHS = ("NATINST_DIR", "VOCABULARY_PATH", "INITIAL_CHECKPOINT_PATH", "PROXY_CHECKPOINT_PATH")


def check(setup: Setup, macros: Mapping[str, Any], devices: list) -> list[Finding]:
    """The train step's bytes against the devices', by arithmetic, and the files.

    Args:
      setup: of the gin file.
      macros: values of its macros.
      devices: that JAX sees.
    """
    found = [*_files(macros), *_mesh(setup, len(devices))]
    if any(finding.level is Level.PROBLEM for finding in found) or not devices:
        return found
    return [*found, *_memory(setup, devices), *_disk(setup, macros)]


def _files(macros: Mapping[str, Any]) -> list[Finding]:
    found = []
    for name in _PATHS:
        path = macros.get(name)
        if not path:
            continue
        if "://" in str(path):
            found.append(Finding(PART, name, Level.OK, f"{path} (not looked at)"))
        elif pathlib.Path(path).exists():
            found.append(Finding(PART, name, Level.OK, str(path)))
        else:
            found.append(Finding(PART, name, Level.PROBLEM, f"{path} isn't there"))
    return found


def _mesh(setup: Setup, num_devices: int) -> list[Finding]:
    size = setup.partition.num_partitions
    if num_devices % size:
        text = f"{num_devices} devices can't be divided by {size}; set --gin.NUM_PARTITIONS=1"
        return [Finding(PART, "mesh", Level.PROBLEM, text)]
    num_data = num_devices // size
    rows = setup.num_microbatches * num_data
    if setup.batch_size % rows:
        text = (
            f"BATCH_SIZE={setup.batch_size} can't be divided into {setup.num_microbatches} "
            f"microbatches over {num_data} devices; use a multiple of {rows}"
        )
        return [Finding(PART, "mesh", Level.PROBLEM, text)]
    return [Finding(PART, "mesh", Level.OK, f"{num_data} data x {size} model")]


def _memory(setup: Setup, devices: list) -> list[Finding]:
    num_data = len(devices) // setup.partition.num_partitions
    parts = memory.footprint(setup, num_data)
    limit = machine.device_bytes(devices[0])
    if limit is None:  # CPU devices share the machine's
        limit = (machine.memory_bytes() - _OTHERS) / len(devices)
    largest = ", ".join(
        f"{name.replace('_', ' ')} {size / _GB:.2f}" for name, size in parts.largest() if size
    )
    text = f"a train step needs about {parts.total / _GB:.2f} of {limit / _GB:.2f} GB a device"
    rows = [
        Finding(PART, "parameters", Level.OK, f"{_parameters(setup):,}"),
        Finding(
            PART,
            "memory",
            Level.OK if parts.total <= limit else Level.PROBLEM,
            f"{text} ({largest})",
        ),
    ]
    if parts.total > limit:
        for flag, saved in remedies.savings(setup, len(devices)):
            rows.append(Finding(PART, "would help", Level.OK, f"{flag}: {saved / _GB:.2f} GB less"))
    return rows


def _parameters(setup: Setup) -> int:
    from poison_t5x.convert import architecture

    return sum(math.prod(shape) for shape in architecture.shapes(setup.model).values())


def _disk(setup: Setup, macros: Mapping[str, Any]) -> list[Finding]:
    keep = macros.get("KEEP_CHECKPOINTS")
    if keep is None:
        return []
    parameters, state = memory.state_bytes(setup.model, setup.optimizer, setup.partition, 1)
    each = (parameters + state) * setup.partition.num_partitions
    # One more while it is written; of two models in a run.
    needed = 2 * (keep + 1) * each
    free = shutil.disk_usage(_existing(macros.get("RUN_DIR") or macros.get("MODEL_DIR"))).free
    text = (
        f"{2 * (keep + 1)} checkpoints of {each / _GB:.2f} GB at most, {free / _GB:.1f} GB are free"
    )
    level = Level.OK if needed <= free else Level.WARNING
    if level is Level.WARNING:
        text += "; lower KEEP_CHECKPOINTS, or use another disk"
    return [Finding(PART, "disk", level, text)]


def _existing(path: str | None) -> pathlib.Path:
    """The path, or its first parent that is there."""
    place = pathlib.Path(path or ".").absolute()
    while not place.exists():
        place = place.parent
    return place
