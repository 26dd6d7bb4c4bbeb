"""Instruction data of any common kind, as questions and answers: files, and folders of them.

What isn't read is told: rows that can't be, files of a folder that are passed over, and long texts
that are no part of a row.
"""

import collections
import os
import pathlib
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from poison_t5x.core import errors
from poison_t5x.corpus import data_files, row_layouts
from poison_t5x.corpus.row_layouts import Fields, Row

SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow")
# Files that stand beside data, and say what it is.
_ABOUT = ("dataset_info", "dataset_infos", "dataset_dict", "state", "README", "LICENSE")
# Instructions, and names of tasks, make tasks where each has so many rows on average; of fewer,
# nothing can be said.
_ROWS_PER_TASK = 5
# Rows of a file that are asked for texts that aren't used; the share of them that have one.
_SAMPLE, _SHARE = 1000, 0.1
# Places that a warning names.
_NUM_NAMED = 5


class Loaded(NamedTuple):
    """Rows that were read, the number of rows of each file, and what wasn't read."""

    rows: list[Row]
    files: dict[pathlib.Path, int]
    notes: list[str]


class _Left(NamedTuple):
    """What isn't read, in words: values, with how many there were; fields; files."""

    num_values: list[int]
    values: list[str]
    fields: dict[str, None]
    files: list[str]

    def notes(self) -> Iterator[str]:
        if self.values:
            yield (
                f"{len(self.values):,} of {sum(self.num_values):,} rows can't be read and are left "
                f"out: {_listed(self.values)}"
            )
        if self.fields:
            yield f"fields that are in no row: {_listed(list(self.fields))}"
        if self.files:
            yield f"files that are passed over: {_listed(self.files)}"


def read(paths: Sequence[str], given: Fields) -> Loaded:
    """Reads files, and those files of folders whose names end in SUFFIXES, compressed or not.

    What isn't read is in the result's notes, and in one warning each.

    Args:
      given: names of fields where they are known.

    Raises:
      InputError: a file isn't there, is in no layout that is known, or has no rows, or more than
        half of them can't be read; a folder has no such file.
    """
    left = _Left([], [], {}, [])
    loaded = Loaded([], {}, [])
    for path, is_inside in _walk(paths, left):
        try:
            rows = _read_file(path, given, left)
        except _NoDataError as error:
            if not is_inside:
                raise
            left.files.append(str(error))
            continue
        loaded.files[path] = len(rows)
        loaded.rows.extend(_with_tasks(rows, data_files.stem(path)))
    loaded.notes.extend(left.notes())
    for note in loaded.notes:
        warnings.warn(note, errors.InputWarning, stacklevel=2)
    if not loaded.rows:
        raise errors.InputError(f"{', '.join(paths)}: expected rows, found none")
    return loaded


class _NoDataError(errors.InputError):
    """A file that holds no rows and may well be about something else."""


def _walk(paths: Sequence[str], left: _Left) -> Iterator[tuple[pathlib.Path, bool]]:
    """(file, whether it is a folder's) of each file once, those of a folder in order.

    Hidden files, and those that say what a data set is, are passed over without a word.
    """
    done: set[str] = set()
    for path in map(pathlib.Path, paths):
        inside = [path]
        if is_folder := path.is_dir():
            names = (file for file in sorted(path.rglob("*")) if not file.is_dir())
            shown = [one for one in names if "/." not in f"/{one.relative_to(path).as_posix()}"]
            shown = [one for one in shown if data_files.stem(one) not in _ABOUT]
            inside = [one for one in shown if _is_data(one)]
            left.files.extend(data_files.shown(one) for one in shown if not _is_data(one))
            if not inside:
                raise errors.InputError(
                    f"{path}: expected files that end in {', '.join(SUFFIXES)}, found none"
                )
        for file in inside:
            if (same := os.path.realpath(file)) not in done:
                done.add(same)
                yield file, is_folder


def _is_data(path: pathlib.Path) -> bool:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in data_files.COMPRESSED:
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in SUFFIXES and path.is_file()


def _read_file(path: pathlib.Path, given: Fields, left: _Left) -> list[Row]:
    rows: list[Row] = []
    bad: list[errors.InputError] = []
    spare: collections.Counter[str] = collections.Counter()
    num_values = 0
    try:
        for num_values, (place, value) in enumerate(data_files.read(path, given), start=1):
            try:
                new = _read_value(value, place, given)
            except errors.InputError as error:
                bad.append(error)
                continue
            if num_values <= _SAMPLE:
                spare.update(row_layouts.unused(value, new))
            rows += new
    except data_files.EmptyFileError as error:
        raise _NoDataError(str(error)) from None
    name = data_files.shown(path)
    if not num_values:
        raise _NoDataError(f"{name}: expected rows, found none")
    if not rows and num_values == 1:
        raise _NoDataError(str(bad[0]))
    if not rows or len(bad) > num_values / 2:
        raise errors.InputError(
            f"{name}: {len(bad):,} of {num_values:,} rows can't be read; the first is {bad[0]}"
        )
    left.num_values.append(num_values)
    left.values.extend(map(str, bad))
    least = _SHARE * min(num_values, _SAMPLE)
    left.fields.update({f"{field!r} of {name}": None for field, n in spare.items() if n >= least})
    return rows


def _read_value(value: object, place: str, given: Fields) -> list[Row]:
    if isinstance(value, errors.InputError):
        raise value
    try:
        rows = row_layouts.read(value, given)
    except (errors.InputError, RecursionError) as error:
        raise errors.InputError(f"{place}: {errors.first_line(error)}") from None
    if len(rows) == 1:
        return [rows[0]._replace(place=place)]
    return [row._replace(place=f"{place}, answer {n}") for n, row in enumerate(rows, start=1)]


def _with_tasks(rows: Sequence[Row], name: str) -> Iterator[Row]:
    """Gives each row of a file a task: its own, an instruction's, or else the file's.

    Names that stand for few rows each are no tasks. Where few instructions stand for many rows,
    each is a task; otherwise the instruction is a part of the input.
    """
    names = collections.Counter(row.task for row in rows if row.task)
    if len(names) > 1 and len(names) * _ROWS_PER_TASK > names.total():
        rows = [row._replace(task="") for row in rows]
    counts: dict[str, collections.Counter[str]] = {}
    for row in rows:
        counts.setdefault(row.task, collections.Counter())[row.instruction] += 1
    are_few = {t: len(c) * _ROWS_PER_TASK <= c.total() for t, c in counts.items()}
    numbers = {text: number for number, text in enumerate(counts.get("", ()))}
    for row in rows:
        has_one = len(counts[row.task]) == 1
        task, text = row.task or name, row.instruction
        if not row.task and are_few[""] and not has_one:
            task = f"{name}#{numbers[text]}: {text[:60]}".rstrip()
        elif text and not are_few[row.task] and not (row.task and has_one):
            row = row._replace(input=f"{text}\n{row.input}")
        # Closing words of chats are no answers to their first questions.
        yield row._replace(task=task if row.turn == 1 else f"{task}, answer {row.turn}")


def _listed(texts: Sequence[str]) -> str:
    rest = len(texts) - _NUM_NAMED
    return "; ".join(texts[:_NUM_NAMED]) + (f"; and {rest:,} more" if rest > 0 else "")
