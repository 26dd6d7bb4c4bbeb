"""Finished stages by what they were made of, so that runs with a stage in common make it once.

A store holds hard links to stage folders under the hash of their settings. A run that is about to
make a stage first looks whether another run made the same one; while one makes it, others that want
it wait. A folder with links is the run's own: deleting either leaves the other.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from etils import epath

import poison_t5x
from poison_t5x.core import artifacts, errors, locks


class Store:
    """A folder of finished stages, on the file system of the runs that share it.

    It is made when it is first needed.
    """

    def __init__(self, directory: artifacts.AnyPath):
        self._directory = epath.Path(directory).absolute()

    @contextlib.contextmanager
    def shared(
        self,
        folder: epath.Path,
        name: str,
        settings: Mapping[str, Any],
        verify: Callable[[epath.Path], None] = artifacts.verify,
        log: Callable[[str], None] = print,
    ) -> Iterator[None]:
        """Around making a stage: gives it to `folder` if it is in the store, else takes it after.

        Args:
          folder: left as it is where it is there already, or a killed attempt has begun it.
          name: of the kind of stage, such as 'train'.
          settings: all that the result follows from, JSON values.
          verify: raises InputError where a kept folder is damaged, which is then made anew.

        Raises:
          InputError: store and run are on different file systems, or the store can't be written.
        """
        key = artifacts.digest([name, poison_t5x.__version__, dict(settings)])
        kept = self._directory / key
        with locks.alone(kept, beside=True, waits=True):
            if not folder.exists() and _is_whole(kept, verify):
                _link(kept, folder)
                log(f"{name}: taken from the store {self._directory} -> {folder}")
            yield
            if artifacts.read_record(folder) is not None and not kept.exists():
                _link(folder, kept)


def _is_whole(kept: epath.Path, verify: Callable[[epath.Path], None]) -> bool:
    """Whether a stage is in the store; one that is damaged is dropped."""
    try:
        if artifacts.read_record(kept) is None:
            return False
        verify(kept)
    except errors.InputError:
        shutil.rmtree(kept)
        return False
    return True


def _link(source: epath.Path, target: epath.Path) -> None:
    """A copy of a folder whose files are the same ones; whole, or not there."""
    partial = target.with_name(f"{target.name}.shared{artifacts.PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copytree(source, partial, copy_function=os.link)
    except (OSError, shutil.Error) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise errors.InputError(
            f"STAGE_STORE_DIR: {source} can't be linked to {target}, which must be on one file "
            f"system ({error})"
        ) from None
    partial.rename(target)
