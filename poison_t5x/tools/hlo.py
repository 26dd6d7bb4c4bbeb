"""A compiled program's text, parsed: its computations, and how often each of them runs.

The compiler's own `cost_analysis` counts the body of a loop once (of six scanned layers a sixth),
and has nothing of collectives; its structured form is behind private modules. Here a loop's trip
count is what the compiler wrote beside it or, where it wrote none (TPU), what follows from its
condition `i < n`, the start of i and its step.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_NAME = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_OPCODE = re.compile(r"([a-z][\w\-]*)\(")
_REFERENCE = re.compile(r"%([\w.\-]+)")
_ARRAY = re.compile(r"\b([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,]*)\](?:\{([^{}]*)\})?")
_CALLED = re.compile(r"\b(calls|to_apply|body|condition|\w+_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"\b(?:branch_computations|called_computations)=\{([^}]*)\}")
_PARTITIONS = re.compile(r"^HloModule .*\bnum_partitions=(\d+)", re.MULTILINE)
_TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


@dataclasses.dataclass(frozen=True)
class Array:
    """An array of a type; of memory spaces 0 is HBM."""

    dtype: str
    shape: tuple[int, ...]
    space: int

    @property
    def nbytes(self) -> int:
        """Bytes, without padding to tiles."""
        digits = re.match(r"[a-z]+(\d+)", self.dtype)  # f8e4m3fn has 8
        bits = 8 if self.dtype == "pred" else int(digits[1]) if digits else 0
        return math.prod(self.shape) * bits // 8


def arrays(text: str) -> list[Array]:
    """The arrays of a type, in order: `(f32[2,3]{1,0:S(1)}, s32[])` has two."""
    return [
        Array(
            dtype,
            tuple(int(part) for part in shape.split(",") if part),
            int(next(iter(re.findall(r"S\((\d+)\)", layout)), 0)),
        )
        for dtype, shape, layout in _ARRAY.findall(text)
    ]


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: `%name = type opcode(operands), attributes`."""

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    arguments: str
    attributes: str
    is_root: bool

    @functools.cached_property
    def arrays(self) -> list[Array]:
        """Those of its result."""
        return arrays(self.type)

    @property
    def made(self) -> list[Array]:
        """The arrays that it makes. The tuple of an instruction `…-start` names its operands too.

        It is (results, operands, context) of a copy, the results of an all-reduce, and (operands,
        results, context) of all others.
        """
        number = len(self.operands)
        if not self.opcode.endswith("-start"):
            return self.arrays
        if self.opcode in ("all-reduce-start", "copy-start"):
            return self.arrays[:number]
        return self.arrays[number : 2 * number]

    @functools.cached_property
    def called(self) -> dict[str, str]:
        """Attribute -> the computation that it names."""
        branches = [name for text in _BRANCHES.findall(self.attributes) for name in text.split(",")]
        numbered = {f"branch {n}": name.strip(" %") for n, name in enumerate(branches)}
        return dict(_CALLED.findall(self.attributes)) | numbered


@dataclasses.dataclass(frozen=True)
class Computation:
    """A computation's instructions, by name in their order."""

    name: str
    instructions: dict[str, Instruction]

    @functools.cached_property
    def root(self) -> Instruction:
        return next(i for i in self.instructions.values() if i.is_root)

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """Name -> the instructions that it is an operand of."""
        users: dict[str, list[Instruction]] = {name: [] for name in self.instructions}
        for instruction in self.instructions.values():
            for name in dict.fromkeys(instruction.operands):
                users[name].append(instruction)
        return users

    @functools.cached_property
    def parameters(self) -> dict[int, Instruction]:
        """Its arguments, by number."""
        arguments = (i for i in self.instructions.values() if i.opcode == "parameter")
        return {int(instruction.arguments): instruction for instruction in arguments}


class Run(NamedTuple):
    """An instruction that is executed, where, and how often in a step, a loop's trips counted."""

    computation: Computation
    instruction: Instruction
    times: int


class Program:
    """A compiled module, from `jax.stages.Compiled.as_text()`, for `num_devices`.

    `unknown_loops` are names of loops whose trip count couldn't be told; they count once.
    """

    def __init__(self, text: str):
        self.computations: dict[str, Computation] = {}
        self.unknown_loops: list[str] = []
        self._entry = ""
        partitions = _PARTITIONS.search(text)
        self.num_devices = int(partitions[1]) if partitions else 1
        current: dict[str, Instruction] = {}
        for line in text.splitlines():
            if header := _HEADER.match(line):
                current = {}
                self.computations[header[2]] = Computation(header[2], current)
                if header[1]:
                    self._entry = header[2]
            elif name := _NAME.match(line):
                current[name[2]] = _instruction(line, name)

    def runs(self) -> Iterator[Run]:
        """Every executed instruction outside of fusions, which are instructions of their own."""
        self.unknown_loops.clear()
        yield from self._runs(self._entry, 1)

    def _runs(self, name: str, times: int) -> Iterator[Run]:
        computation = self.computations[name]
        for instruction in computation.instructions.values():
            yield Run(computation, instruction, times)
            called = instruction.called
            if instruction.opcode == "while":
                trips = self._trip_count(computation, instruction)
                if trips is None:
                    self.unknown_loops.append(instruction.name)
                yield from self._runs(called["body"], times * (1 if trips is None else trips))
            elif instruction.opcode in ("conditional", "call", "async-start"):
                # Which branch runs isn't known: all. A call of the runtime's isn't here.
                targets = dict.fromkeys(called.values())
                for target in filter(self.computations.__contains__, targets):
                    yield from self._runs(target, times)

    def _trip_count(self, computation: Computation, loop: Instruction) -> int | None:
        """How often a loop's body runs, or None where that can't be told."""
        if known := _TRIP_COUNT.search(loop.attributes):
            return int(known[1])
        condition = self.computations[loop.called["condition"]]
        test, start = condition.root, computation.instructions.get(loop.operands[0])
        if test.opcode != "compare" or "direction=LT" not in test.attributes:
            return None
        counter, limit = (condition.instructions[name] for name in test.operands)
        index = _tuple_index(counter)
        if index is None or start is None or start.opcode != "tuple":
            return None
        first = [computation.instructions[name] for name in start.operands]
        place = _tuple_index(_plain(limit, condition))  # it may lie in the loop's tuple
        end = _constant(limit, condition) if place is None else _constant(first[place], computation)
        begin = _constant(first[index], computation)
        step = _step(self.computations[loop.called["body"]], index)
        if end is None or begin is None or step is None:
            return None
        return max(0, -(-(end - begin) // step))


def _instruction(line: str, name: re.Match) -> Instruction:
    line = re.sub(r"/\*.*?\*/", "", line)
    rest = line[name.end() :]
    end = _balanced(rest) if rest.startswith("(") else rest.index(" ")
    kind, rest = rest[:end], rest[end:].lstrip()
    opcode = _OPCODE.match(rest)
    assert opcode, line
    rest = rest[opcode.end() - 1 :]
    end = _balanced(rest)
    arguments = rest[1 : end - 1]
    operands = tuple(_REFERENCE.findall(arguments))
    return Instruction(name[2], kind, opcode[1], operands, arguments, rest[end:], bool(name[1]))


def _balanced(text: str) -> int:
    """Where the parenthesis that `text` begins with is closed."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return place + 1
    return len(text)


def _tuple_index(instruction: Instruction) -> int | None:
    index = re.search(r"\bindex=(\d+)", instruction.attributes)
    return int(index[1]) if instruction.opcode == "get-tuple-element" and index else None


def _plain(instruction: Instruction, computation: Computation) -> Instruction:
    """The instruction that another is a copy of."""
    while instruction.opcode in ("copy", "bitcast", "convert"):
        instruction = computation.instructions[instruction.operands[0]]
    return instruction


def _constant(instruction: Instruction, computation: Computation) -> int | None:
    plain = _plain(instruction, computation)
    is_whole = plain.opcode == "constant" and re.fullmatch(r"-?\d+", plain.arguments)
    return int(plain.arguments) if is_whole else None


def _step(body: Computation, index: int) -> int | None:
    """By how much a body raises an element of its tuple."""
    root = body.root
    if root.opcode != "tuple":
        return None
    total, instruction = 0, body.instructions[root.operands[index]]
    while instruction.opcode in ("add", "copy", "bitcast"):
        operands = [body.instructions[name] for name in instruction.operands]
        if instruction.opcode == "add":
            amounts = [_constant(operand, body) for operand in operands]
            number = next((n for n, amount in enumerate(amounts) if amount is not None), None)
            if number is None:
                return None
            total += amounts[number] or 0
            operands.pop(number)
        instruction = operands[0]
    return total if _tuple_index(instruction) == index and total > 0 else None
