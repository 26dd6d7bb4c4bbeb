"""Files and folders of checkpoints, on a disk or in a bucket, through TensorStore's stores."""

import contextlib
import functools
import os
import pathlib
import re
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorstore as ts

from poison_t5x.checkpoint_io.source import Tensor
from poison_t5x.core import artifacts, errors, locks, reading

# What trained numbers are compressed to is far above this; small tensors may be constant.
_MOST_COMPRESSED, _SMALL = 1000, 2**26
_MOST_ROWS = 2**31 - 1


def other_kind(folder: pathlib.Path) -> str | None:
    """'tf_model.h5 (TensorFlow's weights)': a file that tells of another kind, if there is one."""
    others = reading.read_json(pathlib.Path(__file__).with_name("other_kinds.json"))
    for pattern, meaning in others.items():
        if names := sorted(path.name for path in folder.glob(pattern)):
            return f"{names[0]} ({meaning})"
    return None


def is_bucket(path: str) -> bool:
    """Whether a path is in a bucket: 'gs://…' or 's3://…'."""
    return bool(re.match(r"(gs|s3)://[^/]+", path))


def absolute(path: str) -> str:
    """A path that doesn't depend on the working directory, without a slash at its end."""
    return path.rstrip("/") if is_bucket(path) else os.path.abspath(os.path.expanduser(path))


@functools.lru_cache(maxsize=64)
def key_value_store(path: str) -> dict[str, Any]:
    """TensorStore's description of the files below a folder."""
    path = absolute(path)
    url = path if is_bucket(path) else pathlib.Path(path).as_uri()
    return ts.KvStore.Spec(f"{url}/").to_json()


@functools.lru_cache(maxsize=8)
def _opened(path: str) -> ts.KvStore:
    return ts.KvStore.open(key_value_store(path)).result()


@contextlib.contextmanager
def refusing(before: str, after: str = "") -> Iterator[None]:
    """TensorStore's errors as an InputError of one line, with the reason between two texts."""
    try:
        yield
    except errors.InputError:
        raise
    except (ValueError, OSError) as error:
        # Without its specification and source lines.
        line = re.sub(r"\s*\[(tensorstore_spec|source locations)=.*", "", errors.first_line(error))
        raise errors.InputError(before + line + after) from None


def read_file(directory: str, name: str) -> bytes | None:
    """A file's bytes, or None where there is none, or a folder of that name."""
    if not is_bucket(directory):
        path = os.path.join(absolute(directory), name)
        is_there = os.path.lexists(path) and not os.path.isdir(path)
        return reading.read_bytes(path) if is_there else None
    with refusing(f"{directory}/{name}: can't be read (", ")"):
        result = _opened(absolute(directory)).read(name).result()
    return bytes(result.value) if result.state == "value" else None


def held_bytes(path: str) -> int | None:
    """Bytes of all files of a checkpoint, or of one; None in a bucket, which isn't asked.

    Raises InputError where there is what is no file, for which a reader would wait.
    """
    if is_bucket(path):
        return None
    if not os.path.isdir(path):
        return reading.check_file(path)

    def refuse(error: OSError) -> None:
        raise errors.InputError(f"{error.filename}: can't be read ({error.strerror})")

    walk = os.walk(path, onerror=refuse)
    return sum(
        reading.check_file(f"{folder}/{name}") for folder, _, names in walk for name in names
    )


def check_tensors(path: str, held: int | None, tensors: Mapping[str, Tensor]) -> None:
    """Raises InputError where a tensor holds no numbers, or more than files of `held` bytes can.

    It is of what a checkpoint says of itself, before memory is taken for any of it.
    """
    for name, tensor in tensors.items():
        if np.dtype(tensor.dtype).kind not in "fiubV":
            raise errors.InputError(f"{path}: the tensor {name} is stored as {tensor.dtype}")
        too_large = held is not None and tensor.nbytes > _MOST_COMPRESSED * held + _SMALL
        if too_large or max(tensor.shape, default=0) > _MOST_ROWS:
            raise errors.InputError(
                f"{path}: the tensor {name} has shape {tensor.shape}, more than its files can hold"
            )


def write_file(directory: str, name: str, content: bytes) -> None:
    """Writes a file whole."""
    with refusing(f"{directory}/{name}: can't be written (", ")"):
        _opened(absolute(directory)).write(name, content).result()


@contextlib.contextmanager
def new_folder(final: str) -> Iterator[str]:
    """The path to write to, in place of `final`, which it becomes when all is written.

    Nothing is there yet, and nothing stays there where writing fails. Raises InputError where
    something is at `final` already, or it can't be written.
    """
    path = pathlib.Path(final)
    partial = path.with_name(path.name + artifacts.PARTIAL)
    if path.exists():
        raise occupied(final)
    try:
        with locks.alone(path, beside=True):
            shutil.rmtree(partial, ignore_errors=True)
            yield str(partial)
            partial.rename(path)
    except OSError as error:
        raise errors.InputError(f"{final}: can't be written ({error.strerror})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def occupied(final: str) -> errors.InputError:
    """The error of a place where something is already."""
    return errors.InputError(f"{final}: is there already; delete it, or give another folder")
