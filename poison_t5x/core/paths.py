"""The folders and files that settings name: the one place that knows which file systems there are.

Beneath is etils' epath, whose paths may be in a bucket as well as on a disk.
"""

import contextlib
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from etils import epath

from poison_t5x.core import errors

# Where checkpoints may be read from, beside a disk.
SOURCES = ("gs", "s3", "hf")


def resolve(setting: object, value: Any) -> epath.Path:
    """The path that a setting gives, with '~' for the home folder.

    Raises:
      InputError: it is no path, or one on another file system than this machine's.
    """
    if scheme := re.match(r"[A-Za-z][\w+.-]*:/", _text(setting, value)):
        raise errors.InputError(
            f"{setting}: expected a path on a disk of this machine, found {value!r}; write to a "
            f"disk and copy it, or mount what {scheme[0]}/ names"
        )
    path = epath.Path(value).expanduser()
    if str(path).startswith("~"):
        raise errors.InputError(f"{setting}: expected a path, found {value!r}: no such home folder")
    return path


def resolve_folder(setting: object, value: Any) -> str:
    """The path of a folder that is there, or that can be made.

    Raises:
      InputError: as `resolve`, or a file is there, or in the place of a folder above it.
    """
    path = resolve(setting, value)
    try:
        there = next((place for place in (path, *path.parents) if place.exists()), path)
        is_file = there.exists() and not there.is_dir()
    except OSError as error:  # the name is too long, a loop of links
        raise errors.InputError(f"{setting}: {path}: {error.strerror}") from None
    if is_file:
        raise errors.InputError(f"{setting}: expected a folder, found the file {there}")
    return str(path)


def resolve_source(setting: object, value: Any) -> str:
    """The path of something to read: on a disk, or as it is where it has one of `SOURCES`' schemes.

    Raises:
      InputError: as `resolve`, for other schemes.
    """
    scheme, mark, rest = _text(setting, value).partition("://")
    if mark and scheme in SOURCES and rest:
        return str(value)
    return str(resolve(setting, value))


@contextlib.contextmanager
def keeping_no_empty_folders(path: str | os.PathLike[str]) -> Iterator[None]:
    """Around making a folder and those above it: those that are new and stay empty are removed."""
    folder = pathlib.Path(os.path.abspath(path))
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        yield
    finally:
        for one in new:
            with contextlib.suppress(OSError):  # it isn't there, or has something in it by now
                one.rmdir()


def _text(setting: object, value: Any) -> str:
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    # A name that isn't UTF-8 could be written into no file of a run.
    if not isinstance(text, str) or not text or re.search(r"[\0\ud800-\udfff]", text):
        raise errors.InputError(f"{setting}: expected a path, found {value!r}")
    return text
