"""What a compiled program moves, each device: between chips, and to and from memory."""

import collections
import dataclasses
import math
import re

from poison_t5x.tools.precompile import hbm
from poison_t5x.tools.precompile.hlo import Instruction, Program

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
_GROUPS = re.compile(r"replica_groups=\[\d+,(\d+)\]")
_LISTED = re.compile(r"replica_groups=\{\{([\d,]+)\}")
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}")


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Bytes of one device and one step.

    Attributes:
      collectives: kind -> bytes that leave the device, by the ring algorithms: of n devices, an
        all-gather moves (n - 1) / n of its result, an all-reduce twice that of its operand.
      hbm: bytes read from and written to the device's memory, each operand and result once.
      unknown_loops: loops whose trips couldn't be told, counted once.
    """

    collectives: dict[str, int]
    hbm: int
    unknown_loops: tuple[str, ...]

    @property
    def collective_bytes(self) -> int:
        """All kinds together."""
        return sum(self.collectives.values())


def measure(program: Program) -> Traffic:
    """Counts a program's traffic, loops as often as they run."""
    collectives: collections.Counter[str] = collections.Counter(dict.fromkeys(KINDS, 0))
    memory = 0
    for run in program.runs():
        for kind, nbytes in _collectives(program, run.instruction):
            collectives[kind] += run.times * nbytes
        memory += run.times * hbm.traffic(program, run.computation, run.instruction)
    return Traffic(dict(collectives), memory, tuple(program.unknown_loops))


def _collectives(program: Program, instruction: Instruction):
    """(kind, bytes) of an instruction; a fusion's are those inside."""
    kind = instruction.opcode.removesuffix("-start")
    if kind in KINDS:
        yield kind, _moved(program, kind, instruction)
    elif instruction.opcode == "fusion":
        name = instruction.called["calls"]
        for inner in program.computations[name].instructions.values():
            for kind, nbytes in _collectives(program, inner):
                # TPU's reduce-scatter: an all-reduce in a fusion that keeps a part of it.
                if kind == "all-reduce" and name.startswith("all-reduce-scatter"):
                    yield "reduce-scatter", nbytes // 2
                else:
                    yield kind, nbytes


def _moved(program: Program, kind: str, instruction: Instruction) -> int:
    result = sum(array.nbytes for array in instruction.made)
    if kind == "collective-permute":
        return result
    size = _group_size(program, instruction.attributes)
    share = result * (size - 1)
    if kind == "reduce-scatter":  # the result is one part of the operand
        return share
    return (2 if kind == "all-reduce" else 1) * share // size


def _group_size(program: Program, attributes: str) -> int:
    """Devices that a collective joins: its groups are counted, listed, or axes of a mesh."""
    if found := _GROUPS.search(attributes):
        return int(found[1])
    if found := _LISTED.search(attributes):
        return len(found[1].split(","))
    if found := _MESH.search(attributes):
        axes = dict(re.findall(r"'(\w+)'=(\d+)", found[1]))
        # A part of an axis is 'name':(what lies before it)its size.
        joined = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", found[2])
        return math.prod(int(part or axes[name]) for name, part in joined)
    return program.num_devices
