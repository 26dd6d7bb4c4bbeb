"""Files and folders of checkpoints, on a disk or in a bucket, through TensorStore's stores."""

import contextlib
import functools
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import Any

import tensorstore as ts

from poison_t5x.core import artifacts, errors, locks


def other_kind(folder: pathlib.Path) -> str | None:
    """'tf_model.h5 (TensorFlow's weights)': a file that tells of another kind, if there is one."""
    others = pathlib.Path(__file__).with_name("other_kinds.json").read_text("utf-8")
    for pattern, meaning in json.loads(others).items():
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
    """A file's bytes, or None where there is none."""
    with refusing(f"{directory}/{name}: can't be read (", ")"):
        try:
            result = _opened(absolute(directory)).read(name).result()
        except (ValueError, OSError) as error:
            if "directory" in str(error).lower() and not is_bucket(directory):
                return None  # a folder of that name, or a file in the folder's place
            raise
    return bytes(result.value) if result.state == "value" else None


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
