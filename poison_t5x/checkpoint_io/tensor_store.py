"""Checkpoints whose tensors TensorStore holds: T5X's two layouts, and ours.

The layout of the public T5X checkpoints is a folder with a msgpack index, the file `checkpoint`,
and a zarr folder a tensor; small arrays lie in the index itself. Today's T5X, like us, writes with
Orbax: `_METADATA`, a JSON file, lists the tree, and zarr tensors lie in one OCDBT store (older:
one folder each). Orbax's own reader needs TensorFlow for buckets, and holds whole tensors.
"""

import functools
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import tensorstore as ts
from flax import serialization

from poison_t5x.checkpoint_io import optimizer_state, storage
from poison_t5x.checkpoint_io.source import Index, Source, TensorInfo
from poison_t5x.core import errors

INDEX = "checkpoint"
METADATA = "_METADATA"
STATE = "state"  # the folder of the training state in T5X's Orbax checkpoints
# Files of a checkpoint's folder, one of which is there once it is whole.
MARKS = (INDEX, METADATA, f"{STATE}/{METADATA}")


def _source(path: str, layout: str, tree: Mapping[optimizer_state.Path, Any]) -> Source:
    """The source of a tree: path -> array, or TensorStore's description of a tensor."""
    names = optimizer_state.sort(tree)
    leaves = {name: tree[place] for name, place in {**names.params, **names.slots}.items()}
    leaves["step"] = tree[names.step] if names.step else np.zeros((), np.int32)

    @functools.cache
    def opened(name: str) -> ts.TensorStore:
        spec = {key: leaves[name][key] for key in ("driver", "kvstore")}
        return storage.open_tensor(spec, name, path)

    def info(name: str) -> TensorInfo:
        leaf = leaves[name]
        if isinstance(leaf, np.ndarray):
            return TensorInfo(leaf.shape, leaf.dtype.name)
        if "metadata" in leaf:  # the index states the shape: nothing need be opened
            return TensorInfo(tuple(leaf["metadata"]["shape"]), np.dtype(leaf["dtype"]).name)
        return TensorInfo(tuple(opened(name).shape), opened(name).dtype.numpy_dtype.name)

    def read(name: str, index: Index | None = None) -> np.ndarray:
        leaf = leaves[name]
        if isinstance(leaf, np.ndarray):
            return leaf if index is None else leaf[index]
        stated, stored = info(name).shape, tuple(opened(name).shape)
        if stated != stored:
            reason = f"its shape is {stated} in the index and {stored} in its files"
            raise storage.damaged(path, name, reason)
        # Of moments, writers leave chunks of zeros out.
        return storage.read_tensor(opened(name), name, path, index, dense=name in names.params)

    step = int(read("step"))
    slots = list(names.slots)
    if names.optimizer and optimizer_state.COUNT not in slots:  # T5X's Adafactor counts steps
        leaves[optimizer_state.COUNT] = np.array(step, np.int32)
        slots.append(optimizer_state.COUNT)
    return Source(
        path,
        layout,
        params={name: info(name) for name in names.params},
        read=read,
        slots={name: info(name) for name in slots},
        optimizer=names.optimizer,
        step=step,
    )


def open_index(directory: str, content: bytes) -> Source:
    """A checkpoint in the layout of the public ones; `content` is its file `checkpoint`."""
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
    return _source(directory, "a T5X checkpoint", leaves)


def _flat(tree: Mapping, path: optimizer_state.Path = ()):
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
    """Orbax's list of a tree's leaves."""

    tree_metadata: dict[str, _Entry]
    use_zarr3: bool | None = False


_EMPTY = {"None", "Dict", "List", "Tuple", "NamedTuple", ""}


def open_orbax(path: str, directory: str, layout: str, content: bytes) -> Source:
    """A checkpoint that Orbax wrote; `content` is `_METADATA` of `directory`, at `path` or below"""
    try:
        metadata = msgspec.json.decode(content, type=_Metadata)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.InputError(f"{directory}/{METADATA}: damaged ({error})") from None
    base = storage.key_value_store(directory)
    is_ocdbt = storage.read_file(directory, "manifest.ocdbt") is not None
    leaves = {}
    for entry in metadata.tree_metadata.values():
        if entry.value_metadata.value_type in _EMPTY:
            continue
        place = tuple(str(key.key) for key in entry.key_metadata)
        name = ".".join(place)
        leaves[place] = {
            "driver": "zarr3" if metadata.use_zarr3 else "zarr",
            "kvstore": {"driver": "ocdbt", "base": base, "path": f"{name}/"}
            if is_ocdbt
            else storage.key_value_store(f"{directory}/{name}"),
        }
    tops = sorted({place[0] for place in leaves})
    if "target" not in tops:
        raise errors.InputError(
            f"{path}: an Orbax checkpoint that holds {', '.join(tops) or 'nothing'} and not "
            "'target', so neither T5X's nor ours"
        )
    return _source(path, layout, leaves)
