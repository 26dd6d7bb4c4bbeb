"""Bytes that an instruction reads from a device's memory and writes to it.

An operand and a result count once each, if they lie in HBM: what the compiler has put into a nearer
memory (`S(1)`: VMEM) costs nothing, nor do numbers alone, which are in registers. A fusion counts
what crosses its border. Of an array that is only sliced the slice counts, and of one that is
updated in place the update, or else each layer of a scan would count the whole stack.
"""

import dataclasses

from poison_t5x.tools.precompile.hlo import Computation, Instruction, Program

# What has no bytes of its own: names, views, and what runs something that is counted itself.
_FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "while",
    "conditional",
    "call",
    "after-all",
    "partition-id",
    "replica-id",
    "optimization-barrier",
    "async-start",
    "async-update",
    "iota",
}
# Inside a fusion, the same elements in another order or precision.
_VIEWS = {"bitcast", "copy", "convert", "reshape", "transpose"}
# Their first operand is read where the result comes from, and nowhere else.
_SLICES = {"slice", "dynamic-slice", "gather"}


def traffic(program: Program, computation: Computation, instruction: Instruction) -> int:
    """The bytes of one execution."""
    opcode = instruction.opcode
    if opcode in _FREE or opcode.endswith("-done") or "AllocateBuffer" in instruction.attributes:
        return 0
    operands = [computation.instructions[name] for name in instruction.operands]
    if opcode == "fusion":
        inner = program.computations[instruction.called["calls"]]
        return _fusion(program, inner, operands, instruction)
    if opcode.endswith("-start"):
        return _started(operands, instruction)
    if opcode in _SLICES:
        # As much is read as is made.
        read = _nbytes(instruction) if _stored(operands[0]) else 0
        return read + sum(map(_stored, operands[1:])) + _stored(instruction)
    if opcode == "dynamic-update-slice":
        written = _nbytes(operands[1]) if _stored(instruction) else 0
        return _stored(operands[1]) + written
    return sum(map(_stored, operands)) + _stored(instruction)


def _nbytes(instruction: Instruction) -> int:
    return sum(array.nbytes for array in instruction.arrays)


def _stored(instruction: Instruction) -> int:
    """Bytes of an instruction's result in HBM."""
    arrays = (array for array in instruction.arrays if array.space == 0 and array.shape)
    return sum(array.nbytes for array in arrays)


def _started(operands: list[Instruction], instruction: Instruction) -> int:
    """The begin of a copy, a slice or a collective that goes on beside other work."""
    made = instruction.made
    written = sum(array.nbytes for array in made if array.space == 0 and array.shape)
    if instruction.opcode.removesuffix("-start") in _SLICES:
        return (sum(array.nbytes for array in made) if _stored(operands[0]) else 0) + written
    return sum(map(_stored, operands)) + written


@dataclasses.dataclass(frozen=True)
class _Use:
    """An instruction that uses an array (or a view of it), and the computation that it is in."""

    computation: Computation
    instruction: Instruction
    name: str

    @property
    def is_slice(self) -> bool:
        first = self.instruction.operands[0] == self.name
        return self.instruction.opcode in _SLICES and first

    def is_update(self, program: Program) -> bool:
        """Whether the array is updated in place, and the rest of it left alone."""
        instruction = self.instruction
        if instruction.opcode != "dynamic-update-slice" or instruction.operands[0] != self.name:
            return False
        after = _uses(program, self.computation, instruction.name)
        return all(use is None or use.instruction.opcode == "tuple" for use in after)

    @property
    def update(self) -> int:
        return _nbytes(self.computation.instructions[self.instruction.operands[1]])


def _uses(program: Program, inner: Computation, name: str) -> list[_Use | None]:
    """What uses an array inside a fusion, beyond views of it and inside further fusions.

    None says that the fusion's own result is a view of it.
    """
    found: list[_Use | None] = [None] if inner.root.name == name else []
    for user in inner.users(name):
        if user.opcode in _VIEWS:
            found += _uses(program, inner, user.name)
        elif user.opcode == "fusion":
            nested = program.computations[user.called["calls"]]
            for number in (n for n, operand in enumerate(user.operands) if operand == name):
                for use in _uses(program, nested, nested.parameter(number).name):
                    found += _uses(program, inner, user.name) if use is None else [use]
        else:
            found.append(_Use(inner, user, name))
    return found


def _fusion(
    program: Program, inner: Computation, operands: list[Instruction], instruction: Instruction
) -> int:
    read, written = 0, _stored(instruction)
    for number, operand in enumerate(operands):
        nbytes = _stored(operand)
        if not nbytes:
            continue
        uses = _uses(program, inner, inner.parameter(number).name)
        updates = [use for use in uses if use is not None and use.is_update(program)]
        others = [use for use in uses if use not in updates]
        if all(use is not None and use.is_slice for use in others):
            read += min(nbytes, sum(_nbytes(use.instruction) for use in others if use))
            if updates:
                updated = sum(use.update for use in updates)
                written = max(0, written - nbytes) + min(nbytes, updated)
        else:
            read += nbytes
    return read + written
