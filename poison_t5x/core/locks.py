"""One writer of a folder: a second command is refused, and told who is at work there."""

import contextlib
import fcntl
import json
import os
import pathlib
import platform
import shlex
import sys
import time
from collections.abc import Iterator

from poison_t5x.core import errors

SUFFIX = ".lock"


@contextlib.contextmanager
def alone(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Holds a folder, which need not be there yet, for this process's writing.

    A file beside it names the process; the system lets go of it where that one is killed, and it
    is removed at the end, with the folders above that were made for it and are empty.

    Raises:
      BusyError: another process, on this machine or on another one of the shared disk, holds it.
      InputError: nothing can be written there.
    """
    target = pathlib.Path(os.path.abspath(folder))
    path = target.with_name(target.name + SUFFIX)
    new = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path, folder):
            yield
    finally:
        for parent in new:
            with contextlib.suppress(OSError):  # there is something in it by now
                parent.rmdir()


@contextlib.contextmanager
def _locked(path: pathlib.Path, folder: object) -> Iterator[None]:
    while True:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(open(path, "a+", encoding="utf-8"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise errors.BusyError(f"{folder}: {_holder(file.read(1000))}") from None
            if not _is_at(path, file):  # its last holder has removed it meanwhile
                continue
            file.truncate(0)
            file.write(_me())
            file.flush()
            stack.callback(path.unlink, missing_ok=True)
            yield
            return


def _is_at(path: pathlib.Path, file) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


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
