"""Whether a gin file goes with this machine: its mesh, its memory, its checkpoints' disk space."""

import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from poison_t5x.tools.doctor import files, machine
from poison_t5x.tools.doctor.devices import Devices
from poison_t5x.tools.doctor.findings import Finding, Level
from poison_t5x.tools.footprint import memory, remedies
from poison_t5x.tools.footprint.setup import Setup
from poison_t5x.train import partitioning

PART = "Settings"
_GB = 1e9
# A process has more than its arrays: libraries, the data's pipeline, the compiler.
_OTHERS = 1.5e9
# Of what the devices have, the share that arithmetic may be wrong by: see `footprint.memory`.
_TIGHT = 0.9


def check(
    macros: Mapping[str, Any],
    make_setup: Callable[[bool], Setup],
    here: Devices | None,
    num_hosts: int = 1,
) -> list[Finding]:
    """The files, the mesh, the train step's bytes against the devices', and the disk.

    Args:
      macros: values of the gin files' macros.
      make_setup: their setup; its argument is whether it is a TPU's.
      here: the devices of this machine; None where JAX finds none.
      num_hosts: machines like this one that a run would have.
    """
    found = files.check(macros)
    if files.hinders_setup(found):
        text = "isn't worked out, for want of VOCABULARY_PATH"
        return [*found, Finding(PART, "memory", Level.WARNING, text)]
    setup = make_setup(here is not None and here.platform == "tpu")
    found += [_size(setup), *files.check_checkpoint(macros, setup)]
    if here is not None:
        mesh = _mesh(setup, here.count * num_hosts)
        found.append(mesh)
        if mesh.level is Level.OK:
            found += _memory(setup, here, num_hosts)
    return [*found, *_disk(setup, macros)]


def _size(setup: Setup) -> Finding:
    model = setup.model
    parameters, _ = _whole_state(setup)
    number = parameters // np.dtype(model.param_dtype).itemsize
    text = (
        f"{number:,} parameters: {model.num_encoder_layers} + {model.num_decoder_layers} layers "
        f"of width {model.emb_dim}, {model.vocab_size:,} rows of vocabulary"
    )
    return Finding(PART, "network", Level.OK, text)


def _whole_state(setup: Setup) -> tuple[int, int]:
    """Bytes of the parameters and of the optimiser's state, on all devices together."""
    alone = partitioning.PartitionConfig()
    return memory.state_bytes(setup.model, setup.optimizer, alone, 1)


def _mesh(setup: Setup, num_devices: int) -> Finding:
    size = setup.partition.num_partitions
    if num_devices % size:
        text = (
            f"NUM_PARTITIONS={size}, which {num_devices} devices can't be divided by; set "
            f"--gin.NUM_PARTITIONS={_divisor(size, num_devices)}, or use more devices"
        )
        return Finding(PART, "mesh", Level.PROBLEM, text)
    num_data = num_devices // size
    rows = setup.num_microbatches * num_data
    if setup.batch_size % rows:
        text = (
            f"BATCH_SIZE={setup.batch_size} can't be divided into {setup.num_microbatches} "
            f"microbatches over {num_data} devices; use a multiple of {rows}"
        )
        return Finding(PART, "mesh", Level.PROBLEM, text)
    return Finding(PART, "mesh", Level.OK, f"{num_data} data x {size} model")


def _divisor(size: int, num_devices: int) -> int:
    """The largest number up to `size` that divides the devices."""
    return max(n for n in range(1, min(size, num_devices) + 1) if num_devices % n == 0)


def _memory(setup: Setup, here: Devices, num_hosts: int) -> list[Finding]:
    num_devices = here.count * num_hosts
    parts = memory.footprint(setup, num_devices // setup.partition.num_partitions)
    if here.memory is not None:
        limit = here.memory
    else:  # CPU devices share the machine's
        limit = max(machine.memory_bytes() - _OTHERS, 0) / here.count
    text = f"a train step needs about {parts.total / _GB:.2f} of {limit / _GB:.2f} GB a device"
    text += f" ({_parts(parts)})"
    if parts.total <= _TIGHT * limit:
        return [Finding(PART, "memory", Level.OK, text)]
    fits = parts.total <= limit
    text += "; that is tight" if fits else "; it doesn't fit"
    level = Level.WARNING if fits else Level.PROBLEM
    return [
        Finding(PART, "memory", level, text),
        *_remedies(setup, num_devices, parts.total, limit),
        *_share(here, parts.total),
    ]


def _parts(parts: memory.Footprint) -> str:
    # What rounds to nothing isn't worth a word.
    return ", ".join(
        f"{name.replace('_', ' ')} {size / _GB:.2f}"
        for name, size in parts.largest()
        if size >= 0.005 * _GB
    )


def _remedies(setup: Setup, num_devices: int, total: int, limit: float) -> list[Finding]:
    found = []
    for flag, saved in remedies.savings(setup, num_devices):
        enough = ", which is enough" if total - saved <= _TIGHT * limit else ""
        text = f"{flag}: {saved / _GB:.2f} GB less{enough}"
        found.append(Finding(PART, "would help", Level.OK, text))
    if not any(finding.text.endswith("enough") for finding in found):
        text = "none of these is enough alone: combine them, or take a smaller network"
        text += " or more devices" if num_devices else ""
        found.append(Finding(PART, "would help", Level.OK, text))
    return found


def _share(here: Devices, total: int) -> list[Finding]:
    """Of a GPU, JAX takes three quarters unless told otherwise."""
    if here.platform != "gpu" or here.memory is None or total > here.memory * 4 / 3:
        return []
    text = "XLA_PYTHON_CLIENT_MEM_FRACTION=0.92 in the environment: JAX takes 0.75 of a GPU"
    return [Finding(PART, "would help", Level.OK, text)]


def _disk(setup: Setup, macros: Mapping[str, Any]) -> list[Finding]:
    keep = macros.get("KEEP_CHECKPOINTS")
    folder = macros.get("MODEL_DIR") or macros.get("RUN_DIR") or "."
    if not isinstance(keep, int) or "://" in str(folder):
        return []
    each = sum(_whole_state(setup))
    # One more while it is written; a run trains two models.
    number = (keep + 1) * (1 if macros.get("MODEL_DIR") else 2)
    free = shutil.disk_usage(_existing(str(folder))).free
    text = f"{number} checkpoints of {each / _GB:.2f} GB at most, {free / _GB:.1f} GB are free"
    if number * each <= free:
        return [Finding(PART, "disk", Level.OK, text)]
    text += "; lower KEEP_CHECKPOINTS, or write to another disk or a bucket"
    level = Level.PROBLEM if each > free else Level.WARNING
    return [Finding(PART, "disk", level, text)]


def _existing(path: str) -> pathlib.Path:
    """The path, or its first parent that is there."""
    place = pathlib.Path(path).absolute()
    while not place.exists():
        place = place.parent
    return place
