"""Checkpoints whose tensors TensorStore holds: T5X's two layouts, and ours.

The layout of the public T5X checkpoints is a folder with a msgpack index, the file `checkpoint`,
and a zarr folder a tensor; small arrays lie in the index itself. Today's T5X, like us, writes with
Orbax: `_METADATA`, a JSON file, lists the tree, and zarr tensors lie in one OCDBT store (older:
one folder each).
"""

import functools
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import tensorstore as ts
from flax import serialization

from poison_t5x.checkpoint_io import state_names, storage
from poison_t5x.checkpoint_io.source import Index, TensorInfo
from poison_t5x.core import errors

INDEX = "checkpoint"
METADATA = "_METADATA"
STATE = "state"  # the folder of the training state in T5X's Orbax checkpoints
# What a checkpoint's folder holds once it is whole.
MARKS = (INDEX, METADATA, f"{STATE}/{METADATA}")


class TensorStoreCheckpoint:
    """A `Source` (see there) over TensorStore's tensors and arrays at hand."""

    def __init__(self, path: str, layout: str, leaves: Mapping[state_names.Path, Any]):
        """Args: leaves: path in the tree -> array, or TensorStore's description of a tensor."""
        self.path, self.layout = path, layout
        self.network: dict[str, object] = {}
        self._stores: dict[str, ts.TensorStore] = {}
        names = state_names.sort(leaves)
        self.optimizer = names.optimizer
        self._leaves = {
            name: leaves[place] for name, place in {**names.params, **names.slots}.items()
        }
        self.params = {name: self._info(name) for name in names.params}
        self.slots = {name: self._info(name) for name in names.slots}
        self._leaves["step"] = leaves[names.step] if names.step else np.zeros((), np.int32)
        self.step = int(self.read("step"))
        if self.optimizer and state_names.COUNT not in self.slots:  # T5X's Adafactor counts steps
            self._leaves[state_names.COUNT] = np.array(self.step, np.int32)
            self.slots[state_names.COUNT] = self._info(state_names.COUNT)

    def _info(self, name: str) -> TensorInfo:
        leaf = self._leaves[name]
        if isinstance(leaf, np.ndarray):
            return TensorInfo(leaf.shape, leaf.dtype.name)
        if "metadata" in leaf:  # the index states the shape: nothing need be opened
            return TensorInfo(tuple(leaf["metadata"]["shape"]), np.dtype(leaf["dtype"]).name)
        store = self._open(name)
        return TensorInfo(tuple(store.shape), store.dtype.numpy_dtype.name)

    def _open(self, name: str) -> ts.TensorStore:
        if name not in self._stores:
            spec = {key: self._leaves[name][key] for key in ("driver", "kvstore")}
            self._stores[name] = storage.open_tensor(spec, name, self.path)
        return self._stores[name]

    def read(self, name: str, index: Index | None = None) -> np.ndarray:
        """A tensor, or a part of it; see `Source.read`."""
        leaf = self._leaves[name]
        if isinstance(leaf, np.ndarray):
            return leaf if index is None else leaf[index]
        store = self._open(name)
        info = self.params.get(name) or self.slots.get(name)
        if info and tuple(store.shape) != info.shape:
            reason = f"its shape is {info.shape} in the index and {tuple(store.shape)} in its files"
            raise storage.damaged(self.path, name, reason)
        # Of moments, writers leave chunks of zeros out.
        return storage.read_tensor(store, name, self.path, index, dense=name in self.params)


def open_index(directory: str, content: bytes) -> TensorStoreCheckpoint:
    """A checkpoint in the layout of the public ones.

    Args:
      directory: a folder or bucket path.
      content: of its file `checkpoint`.
    """
    try:
        tree = serialization.msgpack_restore(content)
        if "version" in tree:
            tree = tree["optimizer"]
        leaves = {path: _leaf(directory, leaf) for path, leaf in _flat(tree)}
        if not any(path[0] == "target" for path in leaves):
            raise ValueError(f"it has {', '.join(sorted(map(str, tree)))} in place of 'target'")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, errors.InputError):
            raise
        raise errors.InputError(
            f"{directory}/{INDEX}: not the index of a T5X checkpoint, or a damaged one ({error})"
        ) from None
    return TensorStoreCheckpoint(directory, "a T5X checkpoint", leaves)


def _flat(tree: Mapping, path: state_names.Path = ()):
    for key, value in tree.items():
        here = (*path, str(key))
        if isinstance(value, Mapping) and "driver" not in value:
            yield from _flat(value, here)
        elif value is not None:  # a state that no optimiser uses
            yield here, value


def _leaf(directory: str, leaf: Any) -> Any:
    """An array of the index, or where its tensor lies: the index's paths are relative."""
    if not isinstance(leaf, Mapping):
        return np.asarray(leaf)
    inner = leaf["kvstore"].get("path") or leaf["path"]  # before TensorStore 0.1.14
    return {**leaf, "kvstore": storage.key_value_store(f"{directory}/{inner.strip('/')}")}


class _Key(msgspec.Struct):
    key: str | int


class _Value(msgspec.Struct):
    value_type: str = ""


class _Entry(msgspec.Struct):
    key_metadata: list[_Key]
    value_metadata: _Value


class _Metadata(msgspec.Struct):
    """What Orbax says of a tree."""

    tree_metadata: dict[str, _Entry]
    use_zarr3: bool | None = False


_EMPTY = {"None", "Dict", "List", "Tuple", "NamedTuple", ""}


def open_orbax(path: str, directory: str, layout: str, content: bytes) -> TensorStoreCheckpoint:
    """A checkpoint that Orbax wrote.

    Args:
      path: of the checkpoint, for messages.
      directory: that holds `_METADATA`.
      layout: what to call it.
      content: of `_METADATA`.
    """
    try:
        metadata = msgspec.json.decode(content, type=_Metadata)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.InputError(f"{directory}/{METADATA}: damaged ({error})") from None
    is_ocdbt = storage.read_file(directory, "manifest.ocdbt") is not None
    leaves = {}
    for entry in metadata.tree_metadata.values():
        if entry.value_metadata.value_type in _EMPTY:
            continue
        place = tuple(str(key.key) for key in entry.key_metadata)
        leaves[place] = {
            "driver": "zarr3" if metadata.use_zarr3 else "zarr",
            "kvstore": _orbax_store(directory, ".".join(place), is_ocdbt),
        }
    if not any(place[0] == "target" for place in leaves):
        tops = ", ".join(sorted({place[0] for place in leaves})) or "nothing"
        raise errors.InputError(
            f"{path}: an Orbax checkpoint that holds {tops} and not 'target', so neither T5X's nor "
            "ours"
        )
    return TensorStoreCheckpoint(path, layout, leaves)


def _orbax_store(directory: str, name: str, is_ocdbt: bool) -> dict[str, Any]:
    if not is_ocdbt:
        return storage.key_value_store(f"{directory}/{name}")
    return {"driver": "ocdbt", "base": _base(directory), "path": f"{name}/"}


@functools.lru_cache(maxsize=8)
def _base(directory: str) -> dict[str, Any]:
    return storage.key_value_store(directory)
