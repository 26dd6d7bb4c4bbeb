"""Published peaks of TPU generations, each chip's.

From Google Cloud's pages "TPU v4", "TPU v5e", "TPU v5p" and "TPU v6e" (their tables of system
specifications): bfloat16 operations a second, memory and its bandwidth, bandwidth between chips.
What a program may have of the memory is what libtpu 0.0.42 says when it refuses one ("available
HBM"); the rest is the runtime's.
"""

import dataclasses

from poison_t5x.core import errors


@dataclasses.dataclass(frozen=True)
class Chip:
    """A generation.

    Attributes:
      name: as in topologies, 'v5p'.
      flops: bfloat16 operations a second.
      hbm_bytes: memory that a program may have.
      hbm_bandwidth: bytes a second.
      link_bandwidth: bytes a second to its neighbours, all links together.
      config: libtpu's name of how a chip's cores are used; None for its default.
    """

    name: str
    flops: float
    hbm_bytes: int
    hbm_bandwidth: float
    link_bandwidth: float
    config: str | None = None


_GIB = 2**30
CHIPS = {
    chip.name: chip
    for chip in (
        # Published are 32, 16, 95 and 32 GiB; libtpu says 95.74 of a v5p.
        # Both cores as one device, as JAX runs a v4; libtpu's default lists them apart.
        Chip("v4", 275e12, int(30.75 * _GIB), 1228e9, 2400e9 / 8, "megacore"),
        Chip("v5e", 197e12, int(15.75 * _GIB), 819e9, 1600e9 / 8),
        Chip("v5p", 459e12, 95 * _GIB, 2765e9, 4800e9 / 8),
        Chip("v6e", 918e12, int(31.25 * _GIB), 1640e9, 3584e9 / 8),
    )
}


def of_topology(topology: str) -> Chip:
    """The chip of 'v5p:4x4x2'.

    Raises:
      InputError: an unknown generation, or no shape.
    """
    name, colon, shape = topology.partition(":")
    if name not in CHIPS:
        raise errors.InputError(
            f"--topology: unknown generation {name!r}{errors.nearest(name, CHIPS)}; known are "
            f"{', '.join(CHIPS)}, as in v5p:4x4x2 or v5e:8x8"
        )
    if not colon or not all(part.isdigit() for part in shape.split("x")):
        raise errors.InputError(
            f"--topology: expected a shape such as {name}:4x4x4 (v4, v5p) or {name}:8x8 (v5e, "
            f"v6e), found {topology!r}"
        )
    return CHIPS[name]
