"""One writer of a folder: a second command is refused, and told who is at work there."""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import platform
import shlex
import sys
import time
import warnings
from collections.abc import Iterator
from typing import IO

from poison_t5x.core import errors, paths

NAME = ".lock"
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
_NO_LOCK = "{}: its disk knows no locks, so that a second command there wouldn't be noticed"


@contextlib.contextmanager
def alone(
    folder: str | os.PathLike[str], *, beside: bool = False, waits: bool = False
) -> Iterator[None]:
    """Holds a folder, which need not be there yet, for this process's writing.

    A file in it (or beside it) names the process; the system lets go of it where that one is
    killed, and it is removed at the end, as the folder and those above it are where they are new
    and empty.

    Where nothing can be written, there is nothing to hold: a finished run on a read-only disk can
    be looked at. Where the disk knows no locks, a warning says so.

    Raises:
      BusyError: another process, on this machine or on another one of the shared disk, holds it,
        and this one isn't to wait for it (`waits`).
      InputError: the folder isn't there, and can't be made.
    """
    target = pathlib.Path(os.path.realpath(folder))
    if target.exists() and not target.is_dir():
        raise errors.InputError(f"{folder}: expected a folder, found a file")
    path = target.with_name(target.name + NAME) if beside else target / NAME
    with paths.keeping_no_empty_folders(path.parent):
        if (file := _locked(path, folder, waits)) is None:
            yield
            return
        with file:
            try:
                yield
            finally:
                path.unlink(missing_ok=True)


def _locked(path: pathlib.Path, folder: object, waits: bool) -> IO[str] | None:
    """The file, held; None where there can't be one."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+")
        except OSError as error:
            if path.parent.is_dir() and error.errno in _READ_ONLY:
                return None
            is_file = error.errno in (errno.EEXIST, errno.ENOTDIR)
            reason = "a file is in the way" if is_file else error.strerror
            raise errors.InputError(f"{folder}: can't be made ({reason})") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except BlockingIOError:
            with file:
                raise errors.BusyError(f"{folder}: {_holder(file.read(2000))}") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            warnings.warn(_NO_LOCK.format(folder), errors.InputWarning, stacklevel=2)
        if _is_at(path, file):
            with contextlib.suppress(OSError):  # a full disk: it is held all the same
                file.truncate(0)
                os.write(file.fileno(), _me().encode())
            return file
        file.close()  # its last holder has removed it meanwhile


def _is_at(path: pathlib.Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def holder(folder: str | os.PathLike[str]) -> str | None:
    """Who is at work in a folder, in words; None where nobody is."""
    path = pathlib.Path(folder, NAME)
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
    except BlockingIOError:
        return _holder(path.read_text())
    except OSError:
        return None


def _me() -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    command = shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]])[:500]
    facts = {"host": platform.node(), "process": os.getpid(), "since": since, "command": command}
    return json.dumps(facts, indent=1) + "\n"


def _holder(text: str) -> str:
    try:
        facts = json.loads(text)
        who = f"process {facts['process']} on {facts['host']} is at work there since "
        return f"{who}{facts['since']} ({facts['command']}); wait for it, or take another folder"
    except (ValueError, LookupError, TypeError):  # it is just being written
        return "another process is at work there; wait for it, or take another folder"
