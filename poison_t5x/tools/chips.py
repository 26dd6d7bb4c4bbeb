"""TPU generations, and their devices without the TPU: libtpu describes them, compiles for them.

Peaks are each chip's, from Google Cloud's pages "TPU v4", "TPU v5e", "TPU v5p" and "TPU v6e" (their
tables of system specifications). A program may have as much of the memory as libtpu 0.0.42 says
when it refuses one ("available HBM"); the rest is the runtime's.
"""

import dataclasses
import importlib.util
import os

from poison_t5x.core import errors

# Keeps libtpu from looking for a TPU, its hosts or a metadata server. JAX runs on the CPU.
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_SKIP_MDS_QUERY": "1",
    # Of any host: libtpu says on the terminal that it knows none otherwise.
    "TPU_ACCELERATOR_TYPE": "v4-8",
    "TPU_LOG_DIR": "disabled",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
    # Two commands may compile at once: no TPU is taken.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """A generation: bfloat16 operations a second, memory that a program may have, bytes a second.

    `link_bandwidth` is to its neighbours, all links together; `config` is libtpu's name of how a
    chip's cores are used, None for its default.
    """

    flops: float
    hbm_bytes: int
    hbm_bandwidth: float
    link_bandwidth: float
    config: str | None = None


CHIPS = {
    # Published are 32, 16, 95 and 32 GiB; libtpu says 95.74 of a v5p.
    # Both cores as one device, as JAX runs a v4; libtpu's default lists them apart.
    "v4": Chip(275e12, int(30.75 * _GIB), 1228e9, 2400e9 / 8, "megacore"),
    "v5e": Chip(197e12, int(15.75 * _GIB), 819e9, 1600e9 / 8),
    "v5p": Chip(459e12, 95 * _GIB, 2765e9, 4800e9 / 8),
    "v6e": Chip(918e12, int(31.25 * _GIB), 1640e9, 3584e9 / 8),
}


def prepare() -> None:
    """Sets the environment; before JAX is imported. Raises InputError: libtpu isn't installed."""
    if importlib.util.find_spec("libtpu") is None:
        raise errors.InputError(
            "precompile needs libtpu, TPU's compiler, which runs on any x86-64 Linux: "
            "pip install 'poison-t5x[tpu]'"
        )
    os.environ.update(_ENVIRONMENT)


def of_topology(topology: str) -> tuple[Chip, list]:
    """The chip of 'v5p:4x4x2', and its devices.

    Raises InputError: an unknown generation, no shape, or one that libtpu doesn't know.
    """
    name, _, shape = topology.partition(":")
    if name not in CHIPS:
        raise errors.InputError(
            f"--topology: unknown generation {name!r}{errors.nearest(name, CHIPS)}; known are "
            f"{', '.join(CHIPS)}, as in v5p:4x4x2 or v5e:8x8"
        )
    if not all(part.isdigit() for part in shape.split("x")):
        raise errors.InputError(
            f"--topology: expected a shape such as {name}:4x4x4 (v4, v5p) or {name}:8x8 (v5e, "
            f"v6e), found {topology!r}"
        )
    chip = CHIPS[name]
    options = {"chip_config_name": chip.config} if chip.config else {}
    return chip, _devices(topology, **options)


def _devices(topology: str, **options: str) -> list:
    from jax.experimental import topologies

    try:
        return list(topologies.get_topology_desc(topology, "tpu", **options).devices)
    except Exception as error:  # JAX's class for it is private
        reason = errors.first_line(error)
        raise errors.InputError(f"--topology: {topology!r}: {reason}") from None
