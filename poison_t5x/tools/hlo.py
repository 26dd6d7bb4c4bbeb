"""A compiled program's text, parsed: its computations, and how often each of them runs.

The compiler's own `cost_analysis` counts the body of a loop once (of six scanned layers a sixth),
and has nothing of collectives; its structured form is behind private modules.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
# `%name = type opcode(operands), attributes`; a type has no word with a parenthesis after a space.
_LINE = re.compile(
    r"^\s+(?P<root>ROOT )?%?(?P<name>[\w.\-]+) = (?P<type>.*?) (?P<opcode>[a-z][\w\-]*)"
    r"\((?P<arguments>.*?)\)(?P<attributes>, .*)?$"
)
_ARRAY = re.compile(r"\b([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,]*)\](?:\{([^{}]*)\})?")
_CALLED = re.compile(r"\b(calls|to_apply|body|condition|\w+_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"\b(?:branch_computations|called_computations)=\{([^}]*)\}")
_PARTITIONS = re.compile(r"^HloModule .*\bnum_partitions=(\d+)", re.MULTILINE)
_TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


class Array(NamedTuple):
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
    """One line of a computation."""

    opcode: str
    type: str
    arguments: str
    attributes: str
    name: str

    @functools.cached_property
    def operands(self) -> list[str]:
        """Names of the instructions that it takes."""
        return re.findall(r"%([\w.\-]+)", self.arguments)

    @functools.cached_property
    def made(self) -> list[Array]:
        """The arrays that it makes. The tuple of an instruction `…-start` names its operands too.

        It is (results, operands, context) of a copy, the results of an all-reduce, and (operands,
        results, context) of all others.
        """
        number, every = len(self.operands), arrays(self.type)
        if not self.opcode.endswith("-start"):
            return every
        first = 0 if self.opcode in ("all-reduce-start", "copy-start") else number
        return every[first : first + number]

    @functools.cached_property
    def called(self) -> dict[str, str]:
        """Attribute -> the computation that it names."""
        branches = [name for text in _BRANCHES.findall(self.attributes) for name in text.split(",")]
        numbered = {f"branch {n}": name.strip(" %") for n, name in enumerate(branches)}
        return dict(_CALLED.findall(self.attributes)) | numbered

    @property
    def index(self) -> int | None:
        """The element of a tuple that it takes."""
        index = re.search(r"\bindex=(\d+)", self.attributes)
        return int(index[1]) if self.opcode == "get-tuple-element" and index else None


class Computation:
    """A computation's instructions by name, in their order; `root` makes its result."""

    def __init__(self) -> None:
        self.instructions: dict[str, Instruction] = {}
        self.root: Instruction

    def __getitem__(self, name: str) -> Instruction:
        return self.instructions[name]

    def users(self, name: str) -> list[Instruction]:
        """The instructions that one is an operand of."""
        return [one for one in self.instructions.values() if name in one.operands]

    @functools.cached_property
    def parameters(self) -> dict[int, str]:
        """Names of its arguments, by number."""
        every = self.instructions.values()
        return {int(one.arguments): one.name for one in every if one.opcode == "parameter"}

    def whole_number(self, name: str, elements: Mapping[int, int | None]) -> int | None:
        """An instruction's value, if it follows from constants and its argument's `elements`."""
        instruction = self[name]
        if instruction.opcode == "constant":
            text = instruction.arguments
            return int(text) if re.fullmatch(r"-?\d+", text) else None
        if instruction.index is not None:
            return elements.get(instruction.index)
        if instruction.opcode not in ("copy", "bitcast", "convert", "add"):
            return None
        values = [self.whole_number(operand, elements) for operand in instruction.operands]
        return None if None in values else sum(value or 0 for value in values)


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
        current = Computation()
        for line in re.sub(r"/\*.*?\*/", "", text).splitlines():
            if header := _HEADER.match(line):
                current = self.computations[header[2]] = Computation()
                if header[1]:
                    self._entry = header[2]
            elif match := _LINE.match(line):
                parts = match.group("opcode", "type", "arguments", "attributes", "name")
                instruction = Instruction(*(part or "" for part in parts))
                current.instructions[instruction.name] = instruction
                if match["root"]:
                    current.root = instruction

    def runs(self) -> Iterator[tuple[Computation, Instruction, int]]:
        """(computation, instruction, times in a step) of all that is executed, fusions as one."""
        self.unknown_loops.clear()
        yield from self._runs(self._entry, 1)

    def _runs(self, name: str, times: int) -> Iterator[tuple[Computation, Instruction, int]]:
        computation = self.computations[name]
        for instruction in computation.instructions.values():
            yield computation, instruction, times
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
        """How often a loop's body runs, or None where that can't be told.

        The compiler wrote it beside the loop or, where it didn't (TPU), it follows from the
        condition `i < n`, the start of i and its step.
        """
        if known := _TRIP_COUNT.search(loop.attributes):
            return int(known[1])
        condition, body = (self.computations[loop.called[name]] for name in ("condition", "body"))
        test, start = condition.root, computation[loop.operands[0]]
        if test.opcode != "compare" or "direction=LT" not in test.attributes:
            return None
        place = condition[test.operands[0]].index
        if place is None or start.opcode != "tuple" or body.root.opcode != "tuple":
            return None
        first = {n: computation.whole_number(name, {}) for n, name in enumerate(start.operands)}
        begin, end = first[place], condition.whole_number(test.operands[1], first)
        if begin is None or end is None:
            return None
        after = body.whole_number(body.root.operands[place], {place: begin})
        if after is None or after <= begin:
            return None
        return max(0, -(-(end - begin) // (after - begin)))
