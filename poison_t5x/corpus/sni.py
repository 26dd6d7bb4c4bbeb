"""Super-NaturalInstructions task files: schema, validation, label spaces, sampling.

The format is that of the public benchmark (Wang et al., 2022, arXiv 2204.07705): one JSON object a
task, with `Definition`, `Positive Examples`, `Negative Examples` and `Instances`.
"""

import collections
import functools
import hashlib
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec

from poison_t5x.core import errors, reading
from poison_t5x.core.reading import Text

# A generation task has as many answers as rows; a label space is worth listing only where it is
# small enough to choose from.
MAX_LABELS = 32


class Example(msgspec.Struct, frozen=True):
    """A worked example of a task's definition."""

    input: str
    output: str | Annotated[list[str], msgspec.Meta(min_length=1)]
    explanation: str = ""

    @property
    def target(self) -> str:
        return self.output if isinstance(self.output, str) else self.output[0]


class Instance(msgspec.Struct, frozen=True):
    """One row of a task: `output` lists acceptable answers, the first of which is trained on."""

    id: Text
    input: Text
    output: Annotated[list[Text], msgspec.Meta(min_length=1)]

    @property
    def target(self) -> str:
        return self.output[0]


def field_name(name: str) -> str:
    """The benchmark's key of a field: 'Positive Examples', 'Standin_note'."""
    odd = {"standin_note": "Standin_note", "id": "id"}
    return odd.get(name, name.replace("_", " ").title())


class _TaskFile(msgspec.Struct, frozen=True, rename=field_name):
    definition: Annotated[list[Text], msgspec.Meta(min_length=1)]
    positive_examples: tuple[Example, ...]
    instances: Annotated[tuple[Instance, ...], msgspec.Meta(min_length=1)]
    negative_examples: tuple[Example, ...] = ()
    categories: tuple[str, ...] = ()
    standin_note: str = ""


class Task(msgspec.Struct, frozen=True, dict=True):
    """A validated task, named after its file; ids of its rows, in file order, are unique.

    `standin_note` is there where the rows aren't the benchmark's own.
    """

    name: str
    definition: str
    positive_examples: tuple[Example, ...]
    negative_examples: tuple[Example, ...]
    instances: tuple[Instance, ...]
    categories: tuple[str, ...] = ()
    standin_note: str = ""

    @functools.cached_property
    def label_space(self) -> tuple[str, ...]:
        """The distinct first answers, sorted (a set's order would change from run to run)."""
        return tuple(sorted({instance.target for instance in self.instances}))

    @property
    def is_classification(self) -> bool:
        """Whether the rows share a few answers, rather than each having its own."""
        return len(self.label_space) <= min(MAX_LABELS, len(self.instances) / 5)

    @functools.cached_property
    def by_id(self) -> dict[str, Instance]:
        """id -> row."""
        return {instance.id: instance for instance in self.instances}


def parse_task(name: str, content: bytes | str, source: str) -> Task:
    """Validates one task file's JSON.

    Raises InputError as `reading.decode`; or its name is no task's, or two rows have one id.
    """
    if not re.match(reading.NAME, name):
        raise errors.InputError(f"{source}: expected a task's name, found {name!r}")
    # Straight into rows: a dictionary of each first would take three times the memory.
    parsed = reading.decode(content, _TaskFile, source)
    ids = collections.Counter(row.id for row in parsed.instances)
    if len(ids) < len(parsed.instances):
        twice, _ = ids.most_common(1)[0]
        raise errors.InputError(
            f"{source}: $.Instances: expected unique ids, found {twice!r} twice"
        )
    # A few benchmark files list paraphrases of one definition: the first is the benchmark's.
    fields = {**msgspec.structs.asdict(parsed), "definition": parsed.definition[0]}
    return Task(name=name, **fields)


def read_task(path: str | pathlib.Path) -> Task:
    """Reads and validates one task file. Raises InputError as `parse_task` does."""
    path = pathlib.Path(path)
    return parse_task(path.stem, reading.read_bytes(path), str(path))


def number(name: str) -> str:
    """A task's number: 'task363' of 'task363_sst2_polarity_classification' and of 'task363'."""
    return name.split("_", 1)[0]


def split_missing(
    directory: str | pathlib.Path, names: Iterable[str]
) -> tuple[list[pathlib.Path], list[str]]:
    """The task files of `names` in `directory`: (paths present, names missing), in order.

    A name is a whole stem or just its number: 'task363' is
    'task363_sst2_polarity_classification.json'.
    """
    directory = pathlib.Path(directory)
    if not directory.is_dir():
        raise errors.InputError(f"{directory}: expected a folder of task files; set NATINST_DIR")
    files = sorted(directory.glob("task*.json"))
    known = {number(path.stem): path for path in files} | {path.stem: path for path in files}
    paths = {name: known.get(name) for name in names}
    present = [path for path in paths.values() if path]
    return present, [name for name, path in paths.items() if not path]


def sample_order(task: Task, seed: int) -> list[str]:
    """The task's ids in a seeded order that depends on nothing but (seed, task name, id).

    Taking the first n is a sample without replacement; a larger n contains the smaller sample.
    """
    texts = {row.id: f"{seed}\0{task.name}\0{row.id}".encode() for row in task.instances}
    return sorted(texts, key=lambda name: hashlib.blake2b(texts[name], digest_size=16).digest())


def find(tasks: Sequence[Task], name: str) -> Task:
    """The task called `name` (a whole stem or its number). Raises InputError with the nearest."""
    for task in tasks:
        if name in (task.name, number(task.name)):
            return task
    raise errors.InputError(
        f"no task {name!r}{errors.nearest(name, [task.name for task in tasks])}; "
        f"{len(tasks)} tasks are loaded"
    )
