"""The one door for files that are read: a regular file, of a known size, decoded into a type.

All functions raise InputError, one line with the file's name, where a file is missing, is no file
(a FIFO, a device, a loop of links), is too large or can't be read, and where its text is no UTF-8,
no JSON, nested too deep, or not of the type: a number that is NaN, infinite or out of range, a
field that is missing, half a character.
"""

import itertools
import os
import stat
from collections.abc import Iterator
from typing import IO, Any, TypeVar

import msgspec

from poison_t5x.core import errors

T = TypeVar("T")
AnyPath = str | os.PathLike[str]
# Bytes. A line, and a whole file that is decoded at once.
LINE_LIMIT = 2**26
FILE_LIMIT = 2**31


def open_file(path: AnyPath) -> IO[bytes]:
    """A regular file, to be read from its beginning."""
    try:
        # A FIFO's other end would be waited for.
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except OSError as error:
        raise _error(path, error) from None
    mode = os.fstat(file.fileno()).st_mode
    if stat.S_ISREG(mode):
        return file
    file.close()
    found = "a folder" if stat.S_ISDIR(mode) else "a device or a pipe"
    raise errors.InputError(f"{path}: expected a file, found {found}")


def read_bytes(path: AnyPath, limit: int = FILE_LIMIT) -> bytes:
    """A file's content, of at most `limit` bytes."""
    with open_file(path) as file:
        try:
            content = file.read(limit + 1)
        except OSError as error:
            raise _error(path, error) from None
    if len(content) > limit:
        raise errors.InputError(f"{path}: expected at most {limit:,} bytes, found more")
    return content


def read_text(path: AnyPath, limit: int = FILE_LIMIT) -> str:
    """A file's text, which is UTF-8."""
    content = read_bytes(path, limit)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise errors.InputError(f"{path}: can't be read ({error})") from None


def decode(content: bytes | str, kind: type[T], place: object) -> T:
    """JSON as a value of a type (msgspec's); `place` names it in messages."""
    try:
        return msgspec.json.decode(content, type=kind)
    except RecursionError:
        reason = "nested too deep"
    # The third for a number of thousands of digits.
    except (msgspec.DecodeError, UnicodeError, ValueError) as error:
        reason = errors.first_line(error)
    raise errors.InputError(f"{place}: can't be read ({reason})")


def read_json(path: AnyPath, kind: type[T] = dict[str, Any], limit: int = FILE_LIMIT) -> T:  # type: ignore[assignment]
    """A JSON file as a value of a type."""
    return decode(read_bytes(path, limit), kind, path)


def lines(path: AnyPath, limit: int = LINE_LIMIT) -> Iterator[tuple[str, bytes]]:
    """(place, 'rows.jsonl:3'; line) of each line of a file that isn't blank."""
    with open_file(path) as file:
        for number in itertools.count(1):
            try:
                line = file.readline(limit + 1)
            except OSError as error:
                raise _error(path, error) from None
            if not line:
                return
            if len(line) > limit:
                raise errors.InputError(f"{path}:{number}: a line of over {limit:,} bytes")
            if not line.isspace():
                yield f"{path}:{number}", line


def read_jsonl(path: AnyPath, kind: type[T] = dict[str, Any]) -> list[T]:  # type: ignore[assignment]
    """The rows of a file with a JSON value in each line."""
    return [decode(line, kind, place) for place, line in lines(path)]


def _error(path: AnyPath, error: OSError) -> errors.InputError:
    return errors.InputError(f"{path}: can't be read ({error.strerror or error})")
