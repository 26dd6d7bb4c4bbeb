"""The least time that a step can take on chips of known peaks (Williams et al., 2009)."""

import dataclasses

from poison_t5x.tools.footprint.flops import Flops
from poison_t5x.tools.precompile.chips import Chip
from poison_t5x.tools.precompile.traffic import Traffic


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds of a step, if each part ran alone at its peak, and what bounds it.

    Attributes:
      compute: all products, recomputed ones too, in bfloat16.
      memory: HBM bytes.
      interconnect: collectives' bytes, over all links at once.
      model: the network's own products alone.
    """

    compute: float
    memory: float
    interconnect: float
    model: float

    @property
    def seconds(self) -> float:
        """The longest of the three, were the others hidden behind it."""
        return max(self.compute, self.memory, self.interconnect)

    @property
    def bound_by(self) -> str:
        """Which it is."""
        times = {
            "compute": self.compute,
            "memory": self.memory,
            "interconnect": self.interconnect,
        }
        return max(times, key=lambda name: times[name])

    @property
    def mfu(self) -> float:
        """The most that model FLOPs use can be: a share of the peak."""
        return self.model / self.seconds


def roofline(flops: Flops, traffic: Traffic, chip: Chip, num_chips: int) -> Roofline:
    """The roofline of a step.

    Args:
      flops: of all devices.
      traffic: of one device.
    """
    return Roofline(
        compute=flops.total / num_chips / chip.flops,
        memory=traffic.hbm / chip.hbm_bandwidth,
        interconnect=traffic.collective_bytes / chip.link_bandwidth,
        model=flops.model / num_chips / chip.flops,
    )
