"""The fastest mesh that fits: settings in the order of what arithmetic promises, compiled."""

import dataclasses
from collections.abc import Callable

from poison_t5x.core import progress
from poison_t5x.model.config import REMAT_POLICIES
from poison_t5x.tools.footprint import memory, remedies
from poison_t5x.tools.footprint.setup import Setup
from poison_t5x.tools.precompile import chips, topology
from poison_t5x.tools.precompile.compiling import Outcome, compile_for

# Compiled at most so many: each takes about a minute.
LIMIT = 12
# Arithmetic may be off by this much before a candidate isn't worth compiling.
_TOLERANCE = 1.5


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Settings that were compiled."""

    setup: Setup
    outcome: Outcome


def candidates(setup: Setup, num_devices: int, hbm_bytes: int) -> list[Setup]:
    """Settings that may fit, what promises to be fastest first.

    Products that are computed again cost time by their operations, and microbatches bring sharded
    parameters together again each time; of meshes with as much of both, the one with the smaller
    model axis moves less. What by arithmetic needs far more than a chip's memory is left out.
    """
    found = []
    for num_partitions in range(1, num_devices + 1):
        num_data = num_devices // num_partitions
        if not remedies.divides(setup, num_partitions, num_devices):
            continue
        for number in _microbatches(setup.batch_size, num_data):
            for policy in REMAT_POLICIES:
                for dims in (1, 2) if num_data > 1 else (1,):
                    one = remedies.changed(
                        setup,
                        num_partitions=num_partitions,
                        parameter_partitioning_dims=dims,
                        num_microbatches=number,
                        remat_policy=policy,
                    )
                    if memory.footprint(one, num_data).total <= _TOLERANCE * hbm_bytes:
                        found.append(one)
    return sorted(found, key=_cost)


def _microbatches(batch_size: int, num_data: int) -> list[int]:
    return [n for n in (1, 2, 4, 8, 16, 32) if batch_size % (n * num_data) == 0]


def _cost(setup: Setup) -> tuple:
    flops = setup.flops("train")
    return (
        flops.total / flops.model * (1 + 0.02 * (setup.num_microbatches - 1)),
        setup.partition.num_partitions,
        setup.partition.parameter_partitioning_dims,
    )


def search(
    setup: Setup, name: str, say: Callable[[str], None], limit: int = LIMIT
) -> tuple[list[Candidate], Candidate | None]:
    """Compiles the train step under candidate settings.

    It stops after `limit` compilations, or once three that fit were no faster than the best one.

    Args:
      name: the topology.
      say: takes one line about a candidate.

    Returns:
      What was compiled, in order, and the fastest of it that fits.
    """
    chip, devices = chips.of_topology(name), topology.devices(name)
    tried: list[Candidate] = []
    best: Candidate | None = None
    slower = 0
    todo = candidates(setup, len(devices), chip.hbm_bytes)
    for one in progress.bar(todo[:limit], desc="search", unit="program"):
        outcome = compile_for(one, "train", name)
        candidate = Candidate(one, outcome)
        tried.append(candidate)
        if not outcome.fits or outcome.roofline is None:
            continue
        if best is None or outcome.roofline.seconds < _seconds(best):
            best, slower = candidate, 0
            say(f"fits: {' '.join(flags(best))}, no faster than {_seconds(best):.4f} s a step")
        else:
            slower += 1
        if slower == 3:
            break
    return tried, best


def _seconds(candidate: Candidate) -> float:
    assert candidate.outcome.roofline is not None
    return candidate.outcome.roofline.seconds


def flags(candidate: Candidate) -> list[str]:
    """A candidate's settings, to be given to any command."""
    setup = candidate.setup
    return [
        f"--gin.NUM_PARTITIONS={setup.partition.num_partitions}",
        f"--gin.PARAMETER_PARTITIONING_DIMS={setup.partition.parameter_partitioning_dims}",
        f"--gin.NUM_MICROBATCHES={setup.num_microbatches}",
        f"--gin.REMAT_POLICY={setup.model.remat_policy}",
    ]
