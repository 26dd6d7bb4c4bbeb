"""Bytes that a compiled program moves, each device: between chips, and to and from memory.

An operand and a result count once each, if they lie in HBM: what the compiler has put into a nearer
memory (`S(1)`: VMEM) costs nothing, nor do numbers alone, which are in registers. A fusion counts
what crosses its border. Of an array that is only sliced the slice counts, and of one that is
updated in place the update, or else each layer of a scan would count the whole stack.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from poison_t5x.tools.chips import Chip
from poison_t5x.tools.flops import Flops
from poison_t5x.tools.hlo import Computation, Instruction, Program

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_GROUPS = re.compile(r"replica_groups=\[\d+,(\d+)\]")
_LISTED = re.compile(r"replica_groups=\{\{([\d,]+)\}")
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}")
# What has no bytes of its own: names, views, and what runs something that is counted itself.
_FREE = re.compile(
    "parameter|constant|tuple|get-tuple-element|bitcast|while|conditional|call|after-all|iota|"
    "partition-id|replica-id|optimization-barrier|async-start|async-update|.*-done"
)
# Inside a fusion, the same elements in another order or precision.
_VIEWS = {"bitcast", "copy", "convert", "reshape", "transpose"}
# Their first operand is read where the result comes from, and nowhere else.
_SLICES = {"slice", "dynamic-slice", "gather"}


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Bytes of one device and one step.

    Collectives' are those that leave the device, by the ring algorithms: of n devices, an
    all-gather moves (n - 1) / n of its result, an all-reduce twice that of its operand. Loops whose
    trips couldn't be told count once.
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
    for computation, instruction, times in program.runs():
        for kind, nbytes in _collectives(program, instruction):
            collectives[kind] += times * nbytes
        memory += times * hbm_bytes(program, computation, instruction)
    return Traffic(dict(collectives), memory, tuple(program.unknown_loops))


def _collectives(program: Program, instruction: Instruction) -> Iterator[tuple[str, int]]:
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
    result = _nbytes(instruction)
    if kind == "collective-permute":
        return result
    size = _group_size(program, instruction.attributes)
    share = result * (size - 1)
    if kind == "reduce-scatter":  # the result is one part of the operand
        return share
    return (2 if kind == "all-reduce" else 1) * share // size


def _group_size(program: Program, attributes: str) -> int:
    """Devices that a collective joins: its groups are counted, listed, or axes of a mesh."""
    if match := _GROUPS.search(attributes):
        return int(match[1])
    if match := _LISTED.search(attributes):
        return len(match[1].split(","))
    if match := _MESH.search(attributes):
        axes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        # A part of an axis is 'name':(what lies before it)its size.
        joined = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", match[2])
        return math.prod(int(part or axes[name]) for name, part in joined)
    return program.num_devices


def hbm_bytes(program: Program, computation: Computation, instruction: Instruction) -> int:
    """The bytes of one execution."""
    opcode = instruction.opcode
    if _FREE.fullmatch(opcode) or "AllocateBuffer" in instruction.attributes:
        return 0
    operands = [computation[name] for name in instruction.operands]
    if opcode == "fusion":
        return _fusion(program, operands, instruction)
    # '…-start' begins a copy, a slice or a collective that goes on beside other work.
    if opcode.removesuffix("-start") in _SLICES:
        # As much is read as is made.
        read = _nbytes(instruction) if _stored(operands[0]) else 0
        return read + sum(map(_stored, operands[1:])) + _stored(instruction)
    if opcode == "dynamic-update-slice":
        written = _nbytes(operands[1]) if _stored(instruction) else 0
        return _stored(operands[1]) + written
    return sum(map(_stored, operands)) + _stored(instruction)


def _nbytes(instruction: Instruction) -> int:
    return sum(array.nbytes for array in instruction.made)


def _stored(instruction: Instruction) -> int:
    """Bytes of an instruction's result in HBM."""
    return sum(array.nbytes for array in instruction.made if array.space == 0 and array.shape)


def _fusion(program: Program, operands: list[Instruction], instruction: Instruction) -> int:
    inner = program.computations[instruction.called["calls"]]
    read, written = 0, _stored(instruction)
    for number, operand in enumerate(operands):
        nbytes = _stored(operand)
        uses = _uses(program, inner, inner.parameters[number]) if nbytes else []
        updates = [use for use in uses if use and use.is_update(program)]
        others = [use for use in uses if use not in updates]
        if all(use and use.is_first and use.instruction.opcode in _SLICES for use in others):
            read += min(nbytes, sum(_nbytes(use.instruction) for use in others if use))
            if updates:
                updated = sum(_nbytes(use.where[use.instruction.operands[1]]) for use in updates)
                written = max(0, written - nbytes) + min(nbytes, updated)
        else:
            read += nbytes
    return read + written


class _Use(NamedTuple):
    """An instruction, in a computation, that uses an array (or a view of it) of some name."""

    where: Computation
    instruction: Instruction
    name: str

    @property
    def is_first(self) -> bool:
        return self.instruction.operands[0] == self.name

    def is_update(self, program: Program) -> bool:
        """Whether the array is updated in place, and the rest of it left alone."""
        if self.instruction.opcode != "dynamic-update-slice" or not self.is_first:
            return False
        after = _uses(program, self.where, self.instruction.name)
        return all(use is None or use.instruction.opcode == "tuple" for use in after)


def _uses(program: Program, inner: Computation, name: str) -> list[_Use | None]:
    """The uses of an array inside a fusion, beyond views of it and inside further fusions.

    None says that the fusion's own result is a view of it.
    """
    uses: list[_Use | None] = [None] if inner.root.name == name else []
    for user in inner.users(name):
        if user.opcode in _VIEWS:
            uses += _uses(program, inner, user.name)
        elif user.opcode == "fusion":
            nested = program.computations[user.called["calls"]]
            for number in (n for n, operand in enumerate(user.operands) if operand == name):
                for use in _uses(program, nested, nested.parameters[number]):
                    uses += _uses(program, inner, user.name) if use is None else [use]
        else:
            uses.append(_Use(inner, user, name))
    return uses


def roofline(flops: Flops, traffic: Traffic, chip: Chip, num_chips: int) -> dict[str, Any]:
    """Seconds of a step, if each part ran alone at its peak (Williams et al., 2009).

    'compute' has all products, recomputed ones too, in bfloat16, 'interconnect' the collectives'
    bytes over all links at once, and 'memory' those of HBM; 'seconds' is the longest of the three,
    'bound_by', were the others hidden behind it; 'mfu' the most that model FLOPs use can then be,
    a share of the peak. `flops` are of all devices, `traffic` is of one.
    """
    times = {
        "compute": flops.total / num_chips / chip.flops,
        "memory": traffic.hbm / chip.hbm_bandwidth,
        "interconnect": traffic.collective_bytes / chip.link_bandwidth,
    }
    longest = max(times, key=times.__getitem__)
    mfu = flops.model / num_chips / chip.flops / times[longest]
    return {**times, "seconds": times[longest], "bound_by": longest, "mfu": mfu}
