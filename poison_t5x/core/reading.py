"""The one door for files that are read: a regular file, of a known size, decoded into a type.

All functions raise InputError, one line with the file's name, where a file is missing, is no file
(a FIFO, a device, a loop of links), is too large or can't be read, and where its text is no UTF-8,
no JSON, nested too deep, or not of the type: a number that is NaN, infinite or out of range, a
field that is missing, half a character.
"""

import itertools
import json
import os
import stat
from collections.abc import Iterator
from typing import IO, Annotated, Any, TypeVar

import msgspec

from poison_t5x.core import errors

T = TypeVar("T")
AnyPath = str | os.PathLike[str]
# Bytes. A line, and a whole file that is decoded at once.
LINE_LIMIT = 2**26
FILE_LIMIT = 2**31
# Patterns of texts, and the words for them in messages.
TEXT, NAME, DECIMAL = r"\S", r"\A\w[\w.-]*\Z", r"\A\d{1,9}(\.\d{1,20})?\Z"
_PATTERNS = {
    TEXT: "a non-empty text",
    NAME: "a name of letters and digits",
    DECIMAL: "a decimal number",
}
Text = Annotated[str, msgspec.Meta(pattern=TEXT)]
_DEEP = "nested too deep"
# Files are named after it.
Name = Annotated[str, msgspec.Meta(pattern=NAME)]
Decimal = Annotated[str, msgspec.Meta(pattern=DECIMAL)]


def check_file(path: AnyPath) -> int:
    """The bytes of what must be a regular file, or a link to one, which others read."""
    try:
        return _checked(path, os.stat(path)).st_size
    except OSError as error:
        raise _error(path, error) from None


def open_file(path: AnyPath) -> IO[bytes]:
    """A regular file, to be read from its beginning."""
    try:
        # A FIFO's other end would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _error(path, error) from None
    try:
        _checked(path, os.fstat(descriptor))
    except errors.InputError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def _checked(path: AnyPath, facts: os.stat_result) -> os.stat_result:
    if stat.S_ISREG(facts.st_mode):
        return facts
    found = "a folder" if stat.S_ISDIR(facts.st_mode) else "a device or a pipe"
    raise errors.InputError(f"{path}: can't be read (expected a file, found {found})")


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


def decode(content: bytes | str, kind: type[T], place: object, remedy: str = "") -> T:
    """JSON as a value of a type (msgspec's).

    NaN and infinity, which JSON hasn't and others' files have, are null.

    Args:
      place: the file's name and, of several, the row's, for messages.
      remedy: what to do, for messages.
    """
    try:
        value = _decoded(content, kind)
        return shallow(value) if kind == dict[str, Any] else value
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise _refusal(error, place, remedy) from None


def converted(value: Any, kind: type[T], place: object, remedy: str = "") -> T:
    """A JSON value that was read as it is, as a value of a type."""
    try:
        return msgspec.convert(value, kind)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise _refusal(error, place, remedy) from None


def shallow(value: T, levels: int = 64) -> T:
    """A JSON value of at most so many levels, as what is written again must be."""
    if not levels:
        raise ValueError(_DEEP)
    parts: Any = value.values() if isinstance(value, dict) else value
    for one in parts if isinstance(value, (dict, list)) else ():
        shallow(one, levels - 1)
    return value


def _decoded(content: bytes | str, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return msgspec.json.decode(msgspec.json.encode(json.loads(content)), type=kind)


def _refusal(error: Exception, place: object, remedy: str) -> errors.InputError:
    problem = errors.first_line(error)
    match error:
        case msgspec.ValidationError():
            problem, _, path = problem.partition(" - at ")
            for pattern, words in _PATTERNS.items():
                problem = problem.replace(f"`str` matching regex {pattern!r}", words)
            problem = f"{path.strip('`') or '$'}: {problem[0].lower()}{problem[1:]}"
        case RecursionError():
            problem = f"can't be read ({_DEEP})"
        case UnicodeEncodeError():
            problem = "can't be read (half a character in a text)"
        case _:
            problem = f"can't be read ({problem})"
    return errors.InputError(f"{place}: {problem}{remedy and '; '}{remedy}")


def read_json(
    path: AnyPath,
    kind: type[T] = dict[str, Any],  # type: ignore[assignment]
    remedy: str = "",
) -> T:
    """A JSON file as a value of a type; `remedy` as of `decode`."""
    try:
        content = read_bytes(path)
    except errors.InputError as error:
        raise errors.InputError(f"{error}{remedy and '; '}{remedy}") from None
    return decode(content, kind, path, remedy)


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
