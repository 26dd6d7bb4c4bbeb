"""What a compiled program moves, each device: between chips, and to and from memory."""

import collections
import dataclasses
import math
import re

from poison_t5x.precompile.hlo import Computation, Instruction, Program

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
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
    "iota",
}
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
    hbm = 0
    for run in program.runs():
        for kind, nbytes in _collectives(program, run.instruction):
            collectives[kind] += run.times * nbytes
        hbm += run.times * _hbm(program, run.computation, run.instruction)
    return Traffic(dict(collectives), hbm, tuple(program.unknown_loops))


def _collectives(program: Program, instruction: Instruction):
    """(kind, bytes) of an instruction; a fusion's are those inside."""
    kind = instruction.opcode.removesuffix("-start")
    if kind in KINDS:
        yield kind, _moved(kind, instruction)
    elif instruction.opcode == "fusion":
        name = instruction.called["calls"]
        for inner in program.computations[name].instructions.values():
            for kind, nbytes in _collectives(program, inner):
                # TPU's reduce-scatter: an all-reduce in a fusion that keeps a part of it.
                if kind == "all-reduce" and name.startswith("all-reduce-scatter"):
                    yield "reduce-scatter", nbytes // 2
                else:
                    yield kind, nbytes


def _moved(kind: str, instruction: Instruction) -> int:
    sizes = [array.nbytes for array in instruction.arrays]
    if instruction.opcode.endswith("-start") and kind != "all-reduce":
        # (operands, results, context): TPU's permutes name the result first; equal sizes.
        result = sizes[1] if len(sizes) > 1 else sizes[0]
    else:
        result = sum(sizes)
    if kind == "collective-permute":
        return result
    size = _group_size(instruction.attributes)
    if size <= 1:
        return 0
    share = result * (size - 1)
    if kind == "reduce-scatter":  # the result is one part of the operand
        return share
    return (2 if kind == "all-reduce" else 1) * share // size


def _group_size(attributes: str) -> int:
    """Devices that a collective joins."""
    if found := _GROUPS.search(attributes):
        return int(found[1])
    if found := _LISTED.search(attributes):
        return len(found[1].split(","))
    if found := _MESH.search(attributes):
        axes = dict(re.findall(r"'(\w+)'=(\d+)", found[1]))
        return math.prod(int(axes[name]) for name in re.findall(r"'(\w+)'", found[2]))
    return 1


def _hbm(program: Program, computation: Computation, instruction: Instruction) -> int:
    opcode = instruction.opcode
    if opcode in _FREE or opcode.endswith("-done") or "AllocateBuffer" in instruction.attributes:
        return 0
    read, result = _operands(computation, instruction), _space_bytes(instruction)
    if opcode.endswith("-start"):
        # Its tuple holds the operand too.
        arrays = [array for array in instruction.arrays if array.shape]
        written = arrays[0] if opcode == "copy-start" else arrays[-1]
        return sum(read) + (written.nbytes if written.space == 0 else 0)
    if opcode == "dynamic-slice":
        return 2 * result
    if opcode == "dynamic-update-slice":
        update = computation.instructions[instruction.operands[1]]
        return 2 * _space_bytes(update)
    if opcode == "fusion":
        inner = program.computations[instruction.called["calls"]]
        return _fusion(program, inner, read, result)
    return sum(read) + result


def _space_bytes(instruction: Instruction) -> int:
    return sum(array.nbytes for array in instruction.arrays if array.space == 0)


def _operands(computation: Computation, instruction: Instruction) -> list[int]:
    return [_space_bytes(computation.instructions[name]) for name in instruction.operands]


def _fusion(program: Program, inner: Computation, read: list[int], result: int) -> int:
    """A fusion's operands and results, of slices the slice alone."""
    total, written = 0, result
    for number, nbytes in enumerate(read):
        parameter = inner.parameter(number)
        if parameter is None or not nbytes:
            continue
        used = _beyond_views(_users(inner), parameter.name)
        if used and all(_updates(inner, user, parameter.name) for user in used):
            # In place: what is updated is neither read nor written but for the update.
            updates = sum(_nbytes(inner.instructions[user.operands[1]]) for user in used)
            written = max(0, written - nbytes) + updates
        else:
            total += min(nbytes, _read(program, inner, parameter.name, nbytes))
    return total + written


def _read(program: Program, inner: Computation, name: str, nbytes: int) -> int:
    """Bytes of an array that its users inside a fusion, and fusions in it, read."""
    total = 0
    for user in _beyond_views(_users(inner), name):
        if user.opcode == "dynamic-slice":
            total += _nbytes(user)
        elif user.opcode == "fusion":
            nested = program.computations[user.called["calls"]]
            for number, operand in enumerate(user.operands):
                parameter = nested.parameter(number)
                if parameter is not None and _origin(inner, operand) == name:
                    total += _read(program, nested, parameter.name, nbytes)
        else:
            return nbytes
    return total


def _users(inner: Computation) -> dict[str, list[Instruction]]:
    users: dict[str, list[Instruction]] = collections.defaultdict(list)
    for instruction in inner.instructions.values():
        for name in instruction.operands:
            users[name].append(instruction)
    return users


def _origin(inner: Computation, name: str) -> str:
    """The array that a view is of."""
    while inner.instructions[name].opcode in _VIEWS:
        name = inner.instructions[name].operands[0]
    return name


def _nbytes(instruction: Instruction) -> int:
    return sum(array.nbytes for array in instruction.arrays)


_VIEWS = {"bitcast", "copy", "convert", "reshape", "transpose"}


def _beyond_views(users: dict[str, list[Instruction]], name: str) -> list[Instruction]:
    """What uses an array, through its views."""
    found = []
    for user in users[name]:
        found += _beyond_views(users, user.name) if user.opcode in _VIEWS else [user]
    return found


def _updates(inner: Computation, user: Instruction, parameter: str) -> bool:
    is_update = user.opcode == "dynamic-update-slice"
    return is_update and _origin(inner, user.operands[0]) == parameter
