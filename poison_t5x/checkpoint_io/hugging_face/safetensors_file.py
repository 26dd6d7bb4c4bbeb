"""Reads and writes safetensors files: parts of tensors, and one tensor at a time.

A file is the header's length in 8 bytes (little-endian), the header, which is JSON such as
{"shared.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__": {…}},
and the tensors' bytes; offsets count from the header's end.

The format's own library isn't used: its NumPy side doesn't know bfloat16, it writes tensors that
are all in memory, and of a truncated file it doesn't say which tensor is cut off. Files are read
rather than mapped, so that what was read doesn't stay resident.
"""

import math
import os
import pathlib
from collections.abc import Mapping
from typing import BinaryIO, NamedTuple

import ml_dtypes
import msgspec
import numpy as np

from poison_t5x.checkpoint_io.source import Index, TensorInfo
from poison_t5x.core import errors

_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
_NAMES = {dtype.name: name for name, dtype in _DTYPES.items()}
_BLOCK_BYTES = 16 * 2**20
_METADATA = "__metadata__"
# What stands in a large file's place where Git, without its LFS extension, fetched it.
_POINTER = b"version https://git-lfs"


class Entry(NamedTuple):
    """Where a tensor lies in a file: `start` and `end` count bytes from the file's beginning."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    end: int


class _Tensor(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def read_header(path: str | pathlib.Path) -> dict[str, Entry]:
    """Name -> where the tensor lies, of all tensors of a file.

    Raises:
      InputError: not such a file, a dtype that isn't a float's, or a truncated file: then it names
        the first tensor whose bytes aren't all there.
    """
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            start = file.read(len(_POINTER))
            check_is_no_pointer(path, start)
            length = int.from_bytes(start[:8], "little")
            # A header that fits is at most as long as the file; anything else isn't one.
            file.seek(8)
            header = file.read(length) if len(start) >= 8 and length <= size - 8 else b""
    except OSError as error:
        raise errors.InputError(f"{path}: can't be read ({error.strerror})") from None
    if not header:
        raise errors.InputError(
            f"{path}: not a safetensors file, or cut off within its header ({size} bytes); fetch "
            "it again"
        )
    entries = [_entry(path, name, raw, 8 + length) for name, raw in _tensors(path, header).items()]
    for entry in sorted(entries, key=lambda entry: entry.start):
        if entry.end > size:
            raise _truncated(path, entry, size - entry.start)
    return {entry.name: entry for entry in entries}


def check_is_no_pointer(path: str | pathlib.Path, start: bytes) -> None:
    """Raises InputError where a file's first bytes are those of a Git LFS pointer."""
    if start.startswith(_POINTER):
        raise errors.InputError(
            f"{path}: a Git LFS pointer in the file's place; run `git lfs pull` in its folder"
        )


def _tensors(path, header: bytes) -> dict[str, msgspec.Raw]:
    try:
        tensors = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.InputError(
            f"{path}: not a safetensors file, or a damaged one ({error}); fetch it again"
        ) from None
    tensors.pop(_METADATA, None)
    return tensors


def _entry(path, name: str, raw: msgspec.Raw, offset: int) -> Entry:
    try:
        found = msgspec.json.decode(raw, type=_Tensor)
        start, end = found.data_offsets
        if min([start, *found.shape]) < 0:
            raise msgspec.ValidationError("a negative number")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.InputError(
            f"{path}: the header's entry of {name} is damaged ({error}); fetch the file again"
        ) from None
    if found.dtype not in _DTYPES:
        raise errors.InputError(
            f"{path}: the tensor {name} is stored as {found.dtype}; {', '.join(_DTYPES)} can be "
            "read: save the model again, not quantised"
        )
    dtype = _DTYPES[found.dtype]
    expected = math.prod(found.shape) * dtype.itemsize
    if end - start != expected:
        raise errors.InputError(
            f"{path}: the tensor {name} of shape {tuple(found.shape)} and dtype {found.dtype} has "
            f"{expected} bytes, and the header gives it {end - start}; fetch the file again"
        )
    return Entry(name, dtype, tuple(found.shape), offset + start, offset + end)


def _truncated(path, entry: Entry, found: int) -> errors.InputError:
    expected = entry.end - entry.start
    return errors.InputError(
        f"{path}: truncated: the tensor {entry.name} of shape {entry.shape} has {expected} bytes, "
        f"of which {max(found, 0)} are there; fetch the file again"
    )


def read(path: str | pathlib.Path, entry: Entry, index: Index | None = None) -> np.ndarray:
    """A tensor, or the part that `index` (a slice an axis) asks for, in its stored dtype.

    Takes the part's memory and a block of 16 MB, whichever the sliced axes.

    Raises:
      InputError: the file has become shorter, or can't be read.
    """
    index = index or (slice(None),) * len(entry.shape)
    if any(part.step not in (None, 1) for part in index):
        return read(path, entry)[index]
    try:
        with open(path, "rb") as file:
            return _read(path, file, entry, index)
    except OSError as error:
        raise errors.InputError(
            f"{path}: the tensor {entry.name} can't be read ({error.strerror})"
        ) from None


def _read(path, file: BinaryIO, entry: Entry, index: Index) -> np.ndarray:
    if not entry.shape:
        return _read_rows(path, file, entry, (1,), 0, 1).reshape(())
    (start, stop, _), *others = (
        part.indices(size) for part, size in zip(index, entry.shape, strict=True)
    )
    stop = max(start, stop)
    if [(low, high) for low, high, _ in others] == [(0, size) for size in entry.shape[1:]]:
        return _read_rows(path, file, entry, entry.shape, start, stop)
    part = np.empty((stop - start, *(max(high - low, 0) for low, high, _ in others)), entry.dtype)
    for low, high in blocks(start, stop, math.prod(entry.shape[1:]) * entry.dtype.itemsize):
        rows = _read_rows(path, file, entry, entry.shape, low, high)
        part[low - start : high - start] = rows[:, *index[1:]]
    return part


def blocks(start: int, stop: int, row_bytes: int):
    """(low, high) of runs of rows that have 16 MB together, or of single larger rows."""
    rows = max(1, _BLOCK_BYTES // max(row_bytes, 1))
    for low in range(start, stop, rows):
        yield low, min(low + rows, stop)


def _read_rows(path, file: BinaryIO, entry: Entry, shape, start: int, stop: int) -> np.ndarray:
    width = math.prod(shape[1:])
    file.seek(entry.start + start * width * entry.dtype.itemsize)
    count = (stop - start) * width
    values = np.fromfile(file, entry.dtype, count)
    if len(values) < count:
        raise _truncated(path, entry, os.path.getsize(path) - entry.start)
    return values.reshape(stop - start, *shape[1:])


class Writer:
    """Writes a file whose tensors' shapes and dtypes are known beforehand, one tensor at a time.

    A context manager: the file has a temporary name until all tensors are written.
    """

    def __init__(self, path: str | pathlib.Path, tensors: Mapping[str, TensorInfo]):
        """Args: tensors: name -> shape and dtype, in the file's order.

        Wider dtypes come first all the same, as the library has it, so that all are aligned.
        """
        self._path = pathlib.Path(path)
        self._partial = self._path.with_name(self._path.name + ".partial")
        self._entries: dict[str, Entry] = {}
        self._missing = set(tensors)
        start = 0
        by_width = sorted(tensors, key=lambda name: -np.dtype(tensors[name].dtype).itemsize)
        for name in by_width:
            info = tensors[name]
            entry = Entry(name, np.dtype(info.dtype), info.shape, start, start + info.nbytes)
            self._entries[name] = entry
            start = entry.end

    def __enter__(self) -> "Writer":
        header = self._header()
        self._file = open(self._partial, "wb")
        self._file.write(len(header).to_bytes(8, "little") + header)
        self._offset = 8 + len(header)
        return self

    def _header(self) -> bytes:
        tensors = {
            entry.name: _Tensor(
                _NAMES[entry.dtype.name], list(entry.shape), (entry.start, entry.end)
            )
            for entry in self._entries.values()
        }
        # transformers 4 refuses files that don't say what kind of tensors they are.
        header = msgspec.json.encode({_METADATA: {"format": "pt"}, **tensors})
        return header + b" " * (-len(header) % 8)

    def write(self, name: str, array: np.ndarray) -> None:
        """Writes a tensor, cast to the dtype it was announced with, by blocks of 16 MB."""
        entry = self._entries[name]
        if array.shape != entry.shape:
            raise ValueError(f"{name}: announced with shape {entry.shape}, got {array.shape}")
        self._file.seek(self._offset + entry.start)
        rows = array.reshape(-1) if array.ndim == 0 else array
        for low, high in blocks(0, len(rows), array.nbytes // max(len(rows), 1)):
            # The view is copied where it is transposed or of another dtype, block by block.
            block = np.ascontiguousarray(rows[low:high].astype(entry.dtype, copy=False))
            self._file.write(block.view(np.uint8).data)
        self._missing.discard(name)

    def __exit__(self, kind, error, traceback) -> None:
        if kind is None and not self._missing:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()
        if kind is None and not self._missing:
            os.replace(self._partial, self._path)
            return
        self._partial.unlink()
        if kind is None:
            raise ValueError(f"{self._path}: tensors were not written: {sorted(self._missing)}")
