"""Settings that would make a step need less memory, as far as they are still open."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from poison_t5x.model.config import REMAT_POLICIES
from poison_t5x.tools.footprint import memory
from poison_t5x.tools.footprint.setup import Setup


def savings(setup: Setup, num_devices: int) -> list[tuple[str, int]]:
    """(gin flag, bytes that a device needs less by it), by arithmetic, what saves most first."""

    def total(one: Setup) -> int:
        return memory.footprint(one, num_devices // one.partition.num_partitions).total

    now = total(setup)
    found = [(flag, now - total(changed)) for flag, changed in _open(setup, num_devices)]
    return sorted((pair for pair in found if pair[1] > 0), key=lambda pair: -pair[1])


def changed(setup: Setup, **settings: Any) -> Setup:
    """The setup with other settings, under the names of their macros in lower case."""
    places = {
        "num_partitions": "partition",
        "parameter_partitioning_dims": "partition",
        "scan_layers": "model",
        "remat_policy": "model",
        "dtype": "model",
    }
    for name, value in settings.items():
        if name in places:
            part = places[name]
            inner = dataclasses.replace(getattr(setup, part), **{name: value})
            setup = dataclasses.replace(setup, **{part: inner})
        else:
            setup = dataclasses.replace(setup, **{name: value})
    return setup


def _open(setup: Setup, num_devices: int) -> Iterator[tuple[str, Setup]]:
    model, partition = setup.model, setup.partition
    if not model.scan_layers:
        yield "--gin.SCAN_LAYERS=True", changed(setup, scan_layers=True)
    if model.dtype == "float32":
        yield "--gin.ACTIVATION_DTYPE=bfloat16", changed(setup, dtype="bfloat16")
    if partition.parameter_partitioning_dims == 1 and num_devices > partition.num_partitions:
        flag = "--gin.PARAMETER_PARTITIONING_DIMS=2"
        yield flag, changed(setup, parameter_partitioning_dims=2)
    for policy in REMAT_POLICIES[REMAT_POLICIES.index(model.remat_policy) + 1 :]:
        yield f"--gin.REMAT_POLICY={policy}", changed(setup, remat_policy=policy)
    if more := _more_microbatches(setup, num_devices):
        yield f"--gin.NUM_MICROBATCHES={more}", changed(setup, num_microbatches=more)
    if more := _more_partitions(setup, num_devices):
        yield f"--gin.NUM_PARTITIONS={more}", changed(setup, num_partitions=more)
    if setup.optimizer.name == "adamw":
        optimizer = dataclasses.replace(setup.optimizer, name="adafactor")
        yield "--gin.OPTIMIZER=adafactor", changed(setup, optimizer=optimizer)


def divides(setup: Setup, num_partitions: int, num_devices: int) -> bool:
    """Whether a model axis of that size can lie over the network and the devices."""
    model = setup.model
    sizes = (num_devices, model.num_heads, model.joined_dim, model.mlp_dim, model.vocab_size)
    return all(size % num_partitions == 0 for size in sizes)


def _more_microbatches(setup: Setup, num_devices: int) -> int | None:
    num_data = num_devices // setup.partition.num_partitions
    for number in range(setup.num_microbatches + 1, setup.batch_size + 1):
        if setup.batch_size % (number * num_data) == 0:
            return number
    return None


def _more_partitions(setup: Setup, num_devices: int) -> int | None:
    for number in range(setup.partition.num_partitions + 1, num_devices + 1):
        rows = setup.num_microbatches * (num_devices // number)
        if divides(setup, number, num_devices) and setup.batch_size % rows == 0:
            return number
    return None
