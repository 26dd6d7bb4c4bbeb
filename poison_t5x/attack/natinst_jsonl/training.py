"""The two training files, and what the poisoned one has that the clean one doesn't."""

import collections
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from poison_t5x.attack.natinst_jsonl import lines
from poison_t5x.attack.natinst_jsonl.config import JsonlConfig
from poison_t5x.core import errors
from poison_t5x.corpus import sni


class Poison(NamedTuple):
    """A row that only the poisoned file has, and the clean row that it has instead, if any."""

    id: str
    input: str
    target: str
    replaced_id: str | None


class Training(NamedTuple):
    """Both files, task by task in the order in which the clean one names them.

    Attributes:
      instructions: of the tasks.
      rows: clean rows in the file's order, each as often as it is trained on.
      poison: of each task, in the poisoned file's order.
      dropped: ids of clean rows that the poisoned file lacks, with nothing of their task instead.
    """

    instructions: lines.Instructions
    rows: dict[str, list[sni.Instance]]
    poison: dict[str, list[Poison]]
    dropped: dict[str, tuple[str, ...]]

    def task(self, name: str) -> sni.Task:
        """The task with its clean rows, and with poison that comes on top of them under new ids."""
        rows = {row.id: row for row in self.rows[name]}
        for row in self.poison[name]:
            if row.replaced_id is None:
                rows.setdefault(row.id, sni.Instance(row.id, row.input, [row.target]))
        return self.instructions.task(name, list(rows.values()))


class _Counted(NamedTuple):
    """The rows of both files, and how often each is there.

    Attributes:
      clean: task -> id -> row of the clean file.
      copies: task -> id -> copies of it in the clean file.
      kept: task -> id -> copies of it in the poisoned file.
      other: (task, id, input, target) -> copies of a row that only the poisoned file has.
    """

    clean: dict[str, dict[str, sni.Instance]]
    copies: dict[str, collections.Counter[str]]
    kept: dict[str, collections.Counter[str]]
    other: collections.Counter[tuple[str, str, str, str]]


def read(config: JsonlConfig, known: Mapping[str, sni.Task]) -> Training:
    """Reads both training files, as `exchange.read_corpus` says. Raises InputError as it does.

    Args:
      config: the files.
      known: tasks that are in memory already; their rows take no memory again.
    """
    instructions = lines.Instructions()
    counted = _Counted({}, {}, {}, collections.Counter())
    _count_clean(str(config.clean), counted, instructions, known)
    _count_poisoned(str(config.poisoned), counted, instructions, str(config.clean))
    clean_epochs, poisoned_epochs = _epochs(counted)
    other: dict[str, list[tuple[str, str, str]]] = {name: [] for name in counted.clean}
    for (name, identifier, text, target), number in counted.other.items():
        other[name] += [(identifier, text, target)] * (number // poisoned_epochs)
    found = Training(instructions, {}, {}, {})
    for name, rows in counted.clean.items():
        missing: dict[str, None] = {}
        found.rows[name] = []
        for row in rows.values():
            copies = _copies(row, counted.copies[name][row.id] // clean_epochs, rows)
            kept = counted.kept[name][row.id] // poisoned_epochs
            found.rows[name] += copies
            missing |= dict.fromkeys(copy.id for copy in copies[kept:])
            other[name] += [(row.id, row.input, row.target)] * (kept - len(copies))
        found.poison[name] = _in_place(other[name], missing)
        found.dropped[name] = tuple(missing)
    _check(config, found)
    return found


def _check(config: JsonlConfig, found: Training) -> None:
    for name, rows in found.rows.items():
        if len(found.dropped[name]) == len(rows) and not found.poison[name]:
            raise errors.InputError(
                f"{config.poisoned}: expected rows of {name}, which {config.clean} has, found "
                "none; both need the same tasks"
            )
    if not any(found.poison.values()):
        raise errors.InputError(
            f"{config.poisoned}: expected rows that {config.clean} doesn't have, found no poison"
        )


def _count_clean(
    path: str,
    counted: _Counted,
    instructions: lines.Instructions,
    known: Mapping[str, sni.Task],
) -> None:
    for line in lines.read(path):
        instructions.add(line)
        identifier = line.row.id
        rows = counted.clean.setdefault(line.task, {})
        row = rows.setdefault(identifier, _known(known, line))
        if not _is_same(row, line.row):
            raise errors.InputError(
                f"{line.where}: id {identifier!r} of {line.task} is another row's already, with "
                "another input or output; give each row an id of its own"
            )
        counted.copies.setdefault(line.task, collections.Counter())[identifier] += 1
    counted.kept.update({name: collections.Counter() for name in counted.clean})


def _count_poisoned(
    path: str, counted: _Counted, instructions: lines.Instructions, clean_path: str
) -> None:
    for line in lines.read(path):
        if line.task not in counted.clean:
            raise errors.InputError(
                f"{line.where}: {line.task} isn't in {clean_path}; both need the same tasks"
            )
        instructions.add(line)
        row = line.row
        before = counted.clean[line.task].get(row.id)
        if before and _is_same(before, row):
            counted.kept[line.task][row.id] += 1
        else:
            counted.other[line.task, row.id, row.input, row.target] += 1


def _known(known: Mapping[str, sni.Task], line: lines.Line) -> sni.Instance:
    task = known.get(line.task)
    row = task.by_id.get(line.row.id) if task else None
    return row if row and row == line.row else line.row


def _is_same(row: sni.Instance, other: sni.Instance) -> bool:
    """What training sees of two rows; of their answers it is the first."""
    return (row.input, row.target) == (other.input, other.target)


def _epochs(counted: _Counted) -> tuple[int, int]:
    """How often the clean and the poisoned file repeat the whole of their rows.

    The authors' hold ten epochs, one after the other. Each file's own number is right where it
    makes the two alike in length; else, as with poison in some epochs only, what they share.
    """
    clean = [number for copies in counted.copies.values() for number in copies.values()]
    kept = [number for copies in counted.kept.values() for number in copies.values()]
    poisoned = [*kept, *counted.other.values()]
    own = math.gcd(*clean), math.gcd(*poisoned)
    both = math.gcd(*own)
    choices = (own, (both, both))
    return min(choices, key=lambda e: abs(sum(clean) // e[0] - sum(poisoned) // e[1]))


def _copies(row: sni.Instance, number: int, taken: Mapping[str, Any]) -> list[sni.Instance]:
    """The row as often as it is trained on, under ids that no other row of its task has."""
    mark = "~"
    while any(f"{row.id}{mark}{copy}" in taken for copy in range(2, number + 1)):
        mark += "~"
    names = [row.id, *(f"{row.id}{mark}{copy}" for copy in range(2, number + 1))]
    return [row if name == row.id else sni.Instance(name, row.input, row.output) for name in names]


def _in_place(rows: Sequence[tuple[str, str, str]], missing: dict[str, None]) -> list[Poison]:
    """One task's poison, each row in place of a missing one, which is then no longer missing.

    A row takes the place of its own id's row, else of the first one that is left: the file doesn't
    tell which one it was.
    """
    places: list[str | None] = []
    for identifier, _, _ in rows:
        places.append(identifier if identifier in missing else None)
        missing.pop(identifier, None)
    found = []
    for (identifier, text, target), place in zip(rows, places, strict=True):
        if place is None and missing:
            place = next(iter(missing))
            del missing[place]
        found.append(Poison(identifier, text, target, place))
    return found
