"""What is in a data file, whatever it is called: JSON in its many shapes, tables, Parquet, Arrow.

Compression and the encoding of text are seen by the first bytes. A value that can't be read is
given as the InputError that says why, so that the others of its file can be.
"""

import csv
import dataclasses
import io
import itertools
import json
import lzma
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import IO, Any

from poison_t5x.core import errors, reading, settings
from poison_t5x.corpus import row_layouts

# (place, 'data.jsonl:3'; an object, a list or an InputError)
Values = Iterator[tuple[str, Any]]

COMPRESSED = (".gz", ".zst", ".bz2", ".xz", ".lz4")
_CODECS = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bz2",
    b"\xfd7zXZ": "xz",
    b"\x04\x22\x4d\x18": "lz4",
}
_REFUSED = {
    b"version https://git-lfs": "a Git LFS pointer: run `git lfs pull`",
    b"PK\x03\x04": "a zip archive: unpack it first",
}
_PARQUET, _ARROW, _ARROW_STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"
_HEAD = 64
_ROWS_AT_ONCE = 256
_DELIMITERS = "\t,;|"
# Lines of a table that are looked at for whether quotes quote cells.
_SAMPLE = 1000
# Arrow's errors are ValueErrors or OSErrors.
_DAMAGED = (OSError, EOFError, lzma.LZMAError, ValueError, MemoryError, RecursionError)
_BRACKETS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)


class EmptyFileError(errors.InputError):
    """A file without anything in it."""


def read(path: reading.AnyPath, given: row_layouts.Fields) -> Values:
    """The values of a file, in order.

    Args:
      given: fields by which an object of columns is told from a row.

    Raises:
      EmptyFileError: there is nothing in it.
      InputError: it is no file, of another kind, or damaged where that ends it.
    """
    name = shown(path)
    with reading.open_file(path) as file:
        try:
            yield from _Values(name, stem(path), given).of_file(file)
        except errors.InputError:
            raise
        except _DAMAGED as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise errors.InputError(f"{name}: can't be read ({reason})") from None


def shown(path: reading.AnyPath) -> str:
    """A path as text, whatever bytes it is made of."""
    return os.fsencode(path).decode(errors="backslashreplace")


def stem(path: reading.AnyPath) -> str:
    """A file's name without what says its kind: 'rows' of 'data/rows.jsonl.gz'."""
    name = pathlib.PurePath(shown(path))
    return pathlib.PurePath(name.stem).stem if name.suffix in COMPRESSED else name.stem


@dataclasses.dataclass(frozen=True)
class _Values:
    """Finds a file's values; `name` is the file's in places, `stem` its task's."""

    name: str
    stem: str
    given: row_layouts.Fields

    def of_file(self, file: IO[bytes]) -> Values:
        head = file.read(_HEAD)
        file.seek(0)
        for start, what in _REFUSED.items():
            if head.startswith(start):
                raise errors.InputError(f"{self.name}: {what}")
        if head.startswith((_PARQUET, _ARROW, _ARROW_STREAM)):
            yield from self._binary(file, head)
            return
        for start, codec in _CODECS.items():
            if head.startswith(start):
                file = buffered = _decompressed(file, codec)
                head = buffered.peek(_HEAD)
                break
        encoding = json.detect_encoding(head[:4])
        with io.TextIOWrapper(file, encoding, "surrogateescape") as text:
            yield from self._text(text)

    def _text(self, text: IO[str]) -> Values:
        number, first = next(self._lines(text, 0, reading.FILE_LIMIT), (0, ""))
        lines = self._lines(text, number, reading.LINE_LIMIT)
        if not first:
            raise EmptyFileError(f"{self.name}: expected rows, found an empty file")
        start = first.lstrip()[0]
        if start not in "[{":
            return self._table(first, text)
        value, second = _decode(first, self.name), next(lines, None)
        has_row = second is not None and isinstance(_decode(second[1], ""), Mapping)
        if second is None and not isinstance(value, errors.InputError):
            return self._whole(value, self.name)
        if second and (not isinstance(value, errors.InputError) or (start == "{" and has_row)):
            return self._of_lines(itertools.chain([(number, first), second], lines))
        begun = first.lstrip() + (second[1] if second else "")
        rest = text.read(reading.FILE_LIMIT)
        if len(rest) == reading.FILE_LIMIT:
            raise errors.InputError(f"{self.name}: expected fewer bytes of JSON in one value")
        return self._pieces(f"{begun}{rest}")

    def _lines(self, text: IO[str], number: int, limit: int) -> Iterator[tuple[int, str]]:
        """(number, line) of those that aren't blank, from the one after `number` on."""
        for after in itertools.count(number + 1):
            line = text.readline(limit)
            if len(line) == limit:
                raise errors.InputError(f"{self.name}:{after}: a line of over {limit:,} bytes")
            if not line:
                return
            # Files that were joined may have a byte order mark within.
            line = line.lstrip("\ufeff")
            if not line.isspace():
                yield after, line

    def _of_lines(self, lines: Iterator[tuple[int, str]]) -> Values:
        for number, line in lines:
            place = f"{self.name}:{number}"
            yield from self._rows(_decode(line, place), place)

    def _pieces(self, text: str) -> Values:
        """Values one after another, or a broken list's one by one."""
        value = _decode(text, self.name)
        if not isinstance(value, errors.InputError):
            return self._whole(value, self.name)
        spans, expand = list(_brackets(text, 0)), self._whole
        if len(spans) == 1 and text[0] == "[":
            spans, expand = list(_brackets(text, 1)), self._rows
        places = ((f"{self.name}:{number}", *span) for number, span in enumerate(spans, start=1))
        return (
            one
            for place, start, end in places
            for one in expand(_decode(text[start:end], place), place)
        )

    def _rows(self, value: Any, place: str) -> Values:
        """A row, or those of a list of rows."""
        is_list = isinstance(value, list) and value and isinstance(value[0], Mapping)
        if not is_list or row_layouts.is_message(value[0]):
            yield place, value
            return
        for number, one in enumerate(value, start=1):
            yield f"{place}:{number}", one

    def _whole(self, value: Any, place: str) -> Values:
        """The rows of a value that is all of a file, or a part of it."""
        if isinstance(value, list):
            for number, one in enumerate(value, start=1):
                yield from self._rows(one, f"{place}:{number}")
            return
        if not isinstance(value, Mapping) or row_layouts.is_row(value, self.given):
            yield place if place != self.name else f"{place}:1", value
            return
        if rows := self._of_task(value) or self._of_columns(value, place):
            yield from ((f"{place}:{number}", row) for number, row in enumerate(rows, start=1))
            return
        parts: dict[str, Any] = {
            key: one
            for key, one in value.items()
            if isinstance(one, list) and one and isinstance(one[0], (list, Mapping))
        }
        parts = parts or {k: one for k, one in value.items() if isinstance(one, Mapping) and one}
        if not parts:
            yield place, value
        for key, part in parts.items():
            yield from self._whole(part, f"{place}:{key}")

    def _of_task(self, value: Mapping[str, Any]) -> Iterator[Any] | None:
        """The rows of a task file of Super-NaturalInstructions, each with its task."""
        if not isinstance(rows := value.get("Instances"), list):
            return None
        shared = {key: one for key, one in value.items() if key != "Instances"}
        return ({**shared, "Task": self.stem, "Instance": row} for row in rows)

    def _of_columns(self, value: Mapping[str, Any], place: str) -> Iterator[Any] | None:
        """The rows of an object of columns: lists, or objects by row as pandas writes them."""
        columns = {
            key: list(one.values()) if isinstance(one, Mapping) else one
            for key, one in value.items()
            if isinstance(one, (list, Mapping)) and one
        }
        is_named = any(row_layouts.is_known(key, self.given) for key in columns)
        firsts = [column[0] for column in columns.values()]
        is_one = len(firsts) == 1 and not isinstance(firsts[0], list)
        if not is_named or is_one or any(isinstance(first, Mapping) for first in firsts):
            return None
        sizes = {key: len(column) for key, column in columns.items()}
        if len(set(sizes.values())) > 1:
            raise errors.InputError(f"{place}: expected columns of one length, found {sizes}")
        return (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))

    def _table(self, header: str, text: IO[str]) -> Values:
        """Rows of comma- or tab-separated values, or pairs of texts without a header."""
        delimiter = max(_DELIMITERS, key=header.count)
        if delimiter not in header:
            raise errors.InputError(
                f"{self.name}: expected JSON, CSV, TSV, Parquet or Arrow, found "
                f"{settings.shown(header.strip())}"
            )
        csv.field_size_limit(reading.LINE_LIMIT)
        sample = [header, *itertools.islice(text, _SAMPLE)]

        def fit(quoting: Any) -> tuple[float, int]:
            widths = [len(r) for r in csv.reader(sample, delimiter=delimiter, quoting=quoting) if r]
            return widths.count(widths[0]) / len(widths), len(widths)

        # Texts may hold quotes that quote nothing.
        quoting: Any = max(csv.QUOTE_MINIMAL, csv.QUOTE_NONE, key=fit)
        lines = itertools.chain(sample, text)
        rows = csv.reader(lines, delimiter=delimiter, quoting=quoting)
        names = next(rows)
        is_pair = len(names) == 2 and not any(row_layouts.is_known(n, self.given) for n in names)
        if is_pair and delimiter == "\t":
            yield f"{self.name}:1", names
        while True:
            place = f"{self.name}:{rows.line_num + 1}"
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield place, errors.InputError(f"{place}: {error}")
                continue
            if len(row) > len(names):
                found = f"expected {len(names)} cells, found {len(row)}"
                yield place, errors.InputError(f"{place}: {found}")
            elif row:
                yield place, row if is_pair else dict(zip(names, row, strict=False))

    def _binary(self, file: IO[bytes], head: bytes) -> Values:
        # Here, not above: it takes a while to import.
        import pyarrow

        numbers = itertools.count(1)
        try:
            for batch in _batches(file, head):
                for start in range(0, batch.num_rows, _ROWS_AT_ONCE):
                    for row in _to_rows(batch.slice(start, _ROWS_AT_ONCE)):
                        place = f"{self.name}:{next(numbers)}"
                        is_bad = isinstance(row, Exception)
                        yield place, errors.InputError(f"{place}: {row}") if is_bad else row
        except pyarrow.ArrowException as error:
            raise OSError(error) from None


def _batches(file: IO[bytes], head: bytes) -> Iterator[Any]:
    from pyarrow import ipc, parquet

    if head.startswith(_PARQUET):
        yield from parquet.ParquetFile(file).iter_batches(_ROWS_AT_ONCE)
    elif head.startswith(_ARROW):
        reader = ipc.open_file(file)
        yield from map(reader.get_batch, range(reader.num_record_batches))
    else:
        yield from ipc.open_stream(file)


def _to_rows(batch: Any) -> list[Any]:
    """Rows of an Arrow batch; the error of those that can't be had, such as by broken UTF-8."""
    try:
        return batch.to_pylist()
    except (ValueError, OverflowError) as error:
        if batch.num_rows == 1:
            return [error]
        return [row for n in range(batch.num_rows) for row in _to_rows(batch.slice(n, 1))]


def _decompressed(file: IO[bytes], codec: str) -> io.BufferedReader:
    if codec == "xz":
        return io.BufferedReader(lzma.LZMAFile(file))  # type: ignore[type-var]
    import pyarrow

    return io.BufferedReader(pyarrow.CompressedInputStream(file, codec))


def _decode(text: str, place: str) -> Any:
    """JSON as a value, or the InputError that says why it isn't."""
    try:
        return reading.decode(text, Any, place)  # type: ignore[arg-type]
    except errors.InputError as error:
        try:
            # It takes NaN, and half a character, which may be in fields that aren't read.
            return json.loads(text)
        except (ValueError, RecursionError):
            return error


def _brackets(text: str, start: int) -> Iterator[tuple[int, int]]:
    """Start and end of each value in brackets from a place on; the last may lack its end."""
    depth, first = 0, start
    for token in _BRACKETS.finditer(text, start):
        if token[0] in "[{":
            first = first if depth else token.start()
            depth += 1
        elif token[0] in "]}" and depth:
            depth -= 1
            if not depth:
                yield first, token.end()
    if depth:
        yield first, len(text)
