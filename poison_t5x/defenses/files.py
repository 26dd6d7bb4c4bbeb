"""Instruction data as rows: SNI task files, JSON lines, lists of JSON objects, Parquet."""

import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from poison_t5x.attack.natinst_jsonl import lines
from poison_t5x.core import errors
from poison_t5x.corpus import prompts, sni
from poison_t5x.data.examples import TrainingExample
from poison_t5x.defenses import records
from poison_t5x.defenses.records import Fields, Record

SUFFIXES = (".json", ".jsonl", ".ndjson", ".parquet")
_PARQUET = b"PAR1"
_BOM = b"\xef\xbb\xbf"
# What a file that is one JSON object calls its rows.
_CONTAINERS = ("data", "rows", "examples", "instances", "train")


class Loaded(NamedTuple):
    """What was read.

    Attributes:
      rows: N of them.
      places: of each row, its file and line, or its place in the file.
      files: the files, in order, with the number of rows of each.
    """

    rows: list[TrainingExample]
    places: list[str]
    files: dict[str, int]


def read(paths: Sequence[str], fields: Fields) -> Loaded:
    """Reads files, and the files in folders.

    Args:
      paths: files of whatever name, or folders, of which files with one of SUFFIXES are read.
      fields: names of fields where they are known.

    Raises:
      InputError: a path isn't there, a folder has no such file, a file is in no layout that is
        known, or a row lacks a text. The message names file, line and field.
    """
    found: list[Record] = []
    files: dict[str, int] = {}
    for path in _walk(paths):
        before = len(found)
        found += records.with_tasks(list(_read(path, fields)), path.stem)
        files[str(path)] = len(found) - before
        if len(found) == before:
            raise errors.InputError(f"{path}: expected rows, found none")
    seen: dict[tuple[str, str], int] = {}
    rows = []
    for number, record in enumerate(found):
        identifier = record.id or str(number)
        again = seen.get((record.task, identifier), 0)
        seen[record.task, identifier] = again + 1
        rows.append(
            TrainingExample(
                record.task, identifier, again, record.input, record.target, record.prompt
            )
        )
    return Loaded(rows, [record.where for record in found], files)


def _walk(paths: Iterable[str]) -> Iterator[pathlib.Path]:
    done: set[pathlib.Path] = set()
    for name in paths:
        path = pathlib.Path(name)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES and p.is_file())
            inside = [p for p in inside if not _is_hidden(p.relative_to(path))]
            if not inside:
                raise errors.InputError(
                    f"{path}: expected files that end in {', '.join(SUFFIXES)}, found none"
                )
        elif path.exists():
            inside = [path]
        else:
            raise errors.InputError(f"{path}: no such file or folder")
        for file in inside:
            if file.resolve() not in done:
                done.add(file.resolve())
                yield file


def _is_hidden(path: pathlib.Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _read(path: pathlib.Path, fields: Fields) -> Iterator[Record]:
    """One file's records, by what is in it rather than by its name."""
    try:
        with open(path, "rb") as file:
            start = file.read(len(_PARQUET))
            if start == _PARQUET:
                return _parquet(path, fields)
            file.seek(0)
            content = file.read().removeprefix(_BOM)
    except OSError as error:
        raise errors.InputError(f"{path}: can't be read ({error.strerror})") from None
    if not content.strip():
        raise errors.InputError(f"{path}: expected rows, found an empty file")
    whole = _whole(content)
    if isinstance(whole, dict) and "Instances" in whole:
        return _task_file(path, content)
    if isinstance(whole, dict):
        whole = next((whole[key] for key in _CONTAINERS if _is_table(whole.get(key))), whole)
    if isinstance(whole, list):
        return _mapped(((f"{path}, row {i}", value) for i, value in enumerate(whole)), fields)
    return _json_lines(path, content, fields)


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _whole(content: bytes) -> Any:
    """A file that is one JSON value; None for others, such as JSON lines."""
    if content.lstrip()[:1] not in (b"{", b"["):
        return None
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:
        return json.loads(content)  # takes NaN, which a few of the benchmark's files have
    except (ValueError, RecursionError):
        return None


def _task_file(path: pathlib.Path, content: bytes) -> Iterator[Record]:
    task = sni.parse_task(path.stem, content, str(path))
    shown = [(example.input, example.target) for example in task.positive_examples]
    for place, row in enumerate(task.instances):
        yield Record(
            where=f"{path}, Instances[{place}]",
            task=task.name,
            id=row.id,
            instruction="",
            input=row.input,
            target=row.target,
            prompt=prompts.render(task.definition, shown, row.input),
        )


def _json_lines(path: pathlib.Path, content: bytes, fields: Fields) -> Iterator[Record]:
    values = (
        (f"{path}, line {number}", _decode(line, f"{path}, line {number}"))
        for number, line in enumerate(content.split(b"\n"), start=1)
        if line.strip()
    )
    first = next(values)
    if isinstance(first[1], dict) and {"Task", "Instance"} <= first[1].keys():
        return _authors_lines(path)
    return _mapped(_chain(first, values), fields)


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _decode(line: bytes, where: str) -> Any:
    try:
        return msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise errors.InputError(f"{where}: expected a JSON object, found none ({error})") from None


def _authors_lines(path: pathlib.Path) -> Iterator[Record]:
    """The layout of the authors' code."""
    for line in lines.read(str(path)):
        definition = line.rest.definition
        shown = [(e.checked.input, e.checked.target) for e in line.rest.positive_examples or ()]
        first = definition if isinstance(definition, str) else definition[0]
        yield Record(
            where=line.where,
            task=line.task,
            id=line.row.id,
            instruction="",
            input=line.row.input,
            target=line.row.target,
            prompt=prompts.render(first, shown, line.row.input),
        )


def _mapped(values: Iterator[tuple[str, Any]], fields: Fields) -> Iterator[Record]:
    """Objects whose fields are named in their own way."""
    found = None
    for where, value in values:
        if not isinstance(value, Mapping):
            raise errors.InputError(
                f"{where}: expected a JSON object, found {type(value).__name__}"
            )
        if found is None:
            found = records.find_fields(value.keys(), fields, where)
        yield records.read(value, found, where)


def _parquet(path: pathlib.Path, fields: Fields) -> Iterator[Record]:
    # Here, not above: it takes a while to import.
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            found = records.find_fields(file.schema_arrow.names, fields, f"{path}, row 0")
            number = 0
            for batch in file.iter_batches(columns=[name for name in found if name]):
                for value in batch.to_pylist():
                    yield records.read(value, found, f"{path}, row {number}")
                    number += 1
    except (pyarrow.ArrowException, OSError) as error:
        message = " ".join(str(error).split())
        raise errors.InputError(
            f"{path}: not a Parquet file that can be read ({message})"
        ) from None
