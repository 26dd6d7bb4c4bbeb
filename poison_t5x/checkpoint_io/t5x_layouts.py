"""T5X's two layouts, and ours, whose tensors TensorStore holds: read, and written one by one.

The layout of the public T5X checkpoints is a folder with a msgpack index, the file `checkpoint`,
and a zarr folder a tensor; small arrays lie in the index itself. Today's T5X, like us, writes with
Orbax: `_METADATA`, a JSON file, lists the tree, and zarr tensors lie in one OCDBT store (older:
one folder each). Orbax's own reader needs TensorFlow for buckets, and holds whole tensors.
"""

import contextlib
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import jax
import msgspec
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from flax import serialization, traverse_util

from poison_t5x.checkpoint_io import optimizer_state, storage
from poison_t5x.checkpoint_io.source import Index, Source, Tensor, in_memory
from poison_t5x.core import errors, reading
from poison_t5x.core.settings import Whole
from poison_t5x.train import checkpoints

LAYOUTS = ("t5x", "t5x-orbax", "poison-t5x")
INDEX = "checkpoint"
METADATA = "_METADATA"
STATE = "state"  # the folder of the training state in T5X's Orbax checkpoints
# Files of a checkpoint's folder, one of which is there once it is whole.
MARKS = (INDEX, METADATA, f"{STATE}/{METADATA}")
# Of an Orbax tree's leaves, those that aren't tensors.
_EMPTY = {"None", "Dict", "List", "Tuple", "NamedTuple", ""}
_CHUNK_BYTES = 64 * 2**20  # as T5X's
_SMALL_CHUNK = 2**24  # numbers


def _stored(path: str, place: optimizer_state.Path, spec: Mapping[str, Any]) -> Tensor:
    """A tensor in the files of the checkpoint at `path`; `spec` is TensorStore's description."""
    name = "/".join(place).removeprefix("target/")
    damaged = f"{path}: the tensor {name} is damaged: "
    remedy = "; fetch the checkpoint again"

    @functools.cache
    def opened() -> ts.TensorStore:
        with storage.refusing(damaged, remedy):
            description = {key: spec[key] for key in ("driver", "kvstore")} | {"open": True}
            try:
                store = ts.open(ts.Spec(description), read=True).result()
            except (ValueError, OSError) as error:
                if "NOT_FOUND" in str(error):
                    raise OSError("its files aren't there") from None
                raise
            # One is held whole, however little of it is the tensor's.
            chunk = math.prod(store.chunk_layout.read_chunk.shape or ())
            if chunk > max(2 * store.size, _SMALL_CHUNK):
                raise OSError("its chunks are larger than it is")
            return store

    def read(index: Index) -> np.ndarray:
        stored = tuple(opened().shape)
        with storage.refusing(damaged, remedy):
            if stored != shape:
                raise OSError(f"its shape is {shape} in the index and {stored} in its files")
            part = opened()[index]
            # Of moments, writers leave chunks of zeros out.
            missing = place[0] == "target" and not (
                part.storage_statistics(query_fully_stored=True).result().fully_stored
            )
            if missing:
                raise OSError(f"chunks of its {stored} are missing")
            return np.asarray(part.read().result())

    if "metadata" in spec:  # the index states the shape: nothing need be opened
        shape, dtype = tuple(spec["metadata"]["shape"]), np.dtype(spec["dtype"]).name
    else:
        shape, dtype = tuple(opened().shape), opened().dtype.numpy_dtype.name
    return Tensor(shape, dtype, read)


def open_index(directory: str, content: bytes) -> Source:
    """A checkpoint in the layout of the public ones; `content` is its file `checkpoint`."""
    held = storage.held_bytes(directory)
    try:
        tree = serialization.msgpack_restore(content)
        if "version" in tree:
            tree = tree["optimizer"]
        leaves = {place: _leaf(directory, place, leaf) for place, leaf in _flat(tree)}
        if not any(place[0] == "target" for place in leaves):
            raise ValueError(f"it has {', '.join(sorted(map(str, tree)))} in place of 'target'")
    except errors.InputError:
        raise
    # What msgpack and flax raise of bytes that nobody wrote.
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as e:
        problem = errors.first_line(e)
        raise errors.InputError(
            f"{directory}/{INDEX}: not the index of a T5X checkpoint, or a damaged one ({problem})"
        ) from None
    return _source(directory, "a T5X checkpoint", held, leaves)


def _source(
    path: str, layout: str, held: int | None, tree: Mapping[optimizer_state.Path, Tensor]
) -> Source:
    storage.check_tensors(path, held, {"/".join(place): tensor for place, tensor in tree.items()})
    return optimizer_state.from_tree(path, layout, tree)


def _flat(
    tree: Mapping, place: optimizer_state.Path = ()
) -> Iterator[tuple[optimizer_state.Path, Any]]:
    for key, value in tree.items():
        here = (*place, str(key))
        if isinstance(value, Mapping) and "driver" not in value:
            yield from _flat(value, here)
        elif value is not None:  # a state that no optimiser uses
            yield here, value


class _Place(msgspec.Struct):
    path: str = ""


class _Shape(msgspec.Struct):
    shape: list[Whole]


class _Spec(msgspec.Struct):
    """A tensor's entry in the index."""

    driver: Literal["zarr"]
    kvstore: _Place
    dtype: str
    metadata: _Shape
    path: str = ""  # before TensorStore 0.1.14


def _leaf(directory: str, place: optimizer_state.Path, leaf: Any) -> Tensor:
    """An array of the index, or a tensor whose place it gives, relative to the folder."""
    if not isinstance(leaf, Mapping):
        return in_memory(np.asarray(leaf))
    name = "/".join(place)
    spec = reading.converted(leaf, _Spec, f"{directory}/{INDEX}: the tensor {name}")
    inner = (spec.kvstore.path or spec.path).strip("/")
    if not inner or ".." in inner.split("/"):
        raise errors.InputError(
            f"{directory}/{INDEX}: places the tensor {name} in {inner!r}, outside its folder"
        )
    kvstore = storage.key_value_store(f"{directory}/{inner}")
    return _stored(directory, place, {**leaf, "kvstore": kvstore})


class _Key(msgspec.Struct):
    key: str | int


class _Value(msgspec.Struct):
    value_type: str = ""


class _Entry(msgspec.Struct):
    key_metadata: Annotated[list[_Key], msgspec.Meta(min_length=1)]
    value_metadata: _Value


class _Metadata(msgspec.Struct):
    """The part of `_METADATA` that is read."""

    tree_metadata: dict[str, _Entry]
    use_zarr3: bool | None = None


def open_orbax(path: str, directory: str, layout: str, content: bytes) -> Source:
    """A checkpoint that Orbax wrote; `content` is `_METADATA` of `directory`, at `path` or below"""
    held = storage.held_bytes(directory)
    metadata = reading.decode(content, _Metadata, f"{directory}/{METADATA}", "it is damaged")
    driver = "zarr3" if metadata.use_zarr3 else "zarr"
    places = [
        tuple(str(key.key) for key in entry.key_metadata)
        for entry in metadata.tree_metadata.values()
        if entry.value_metadata.value_type not in _EMPTY
    ]
    tops = sorted({place[0] for place in places})
    if "target" not in tops:
        raise errors.InputError(
            f"{path}: an Orbax checkpoint that holds {', '.join(tops) or 'nothing'} and not "
            "'target', so neither T5X's nor ours"
        )
    is_ocdbt = storage.read_file(directory, "manifest.ocdbt") is not None
    base = storage.key_value_store(directory)
    tree = {}
    for place in places:
        name = ".".join(place)
        inner = {"driver": "ocdbt", "base": base, "path": f"{name}/"}
        kvstore = inner if is_ocdbt else storage.key_value_store(f"{directory}/{name}")
        tree[place] = _stored(path, place, {"driver": driver, "kvstore": kvstore})
    return _source(path, layout, held, tree)


def write(source: Source, directory: str, layout: str) -> str:
    """Writes `<directory>/checkpoint_<step>`, and returns its path.

    `layout` is 't5x' (as the public checkpoints; the one that buckets take), 't5x-orbax' (as
    today's T5X writes) or 'poison-t5x' (as our train loop does, committed). Raises InputError
    where something is there already, or can't be written.
    """
    if storage.is_bucket(directory) and layout != "t5x":
        raise errors.InputError(
            f"{directory}: Orbax's layouts are written to folders; copy the folder there, or "
            "write the public checkpoints' layout (--to=t5x)"
        )
    is_ours = layout == "poison-t5x"
    step = optimizer_state.written_step(source, t5x=not is_ours)
    final = f"{storage.absolute(directory)}/checkpoint_{step}"
    with _place(final) as place:
        tree = optimizer_state.to_tree(source, t5x=not is_ours)
        if layout == "t5x":
            _write_index(tree, place)
        else:
            _write_orbax(tree, place if is_ours else f"{place}/{STATE}")
    if is_ours:
        checkpoints.commit(directory, step)
    return final


@contextlib.contextmanager
def _place(final: str) -> Iterator[str]:
    """Where to write what becomes `final` when it is whole.

    In a folder that is a temporary name; a bucket can't rename, and there the file that is written
    last makes the checkpoint count.
    """
    if not storage.is_bucket(final):
        with storage.new_folder(final) as partial:
            yield partial
        return
    if any(storage.read_file(final, name) for name in MARKS):
        raise storage.occupied(final)
    yield final


def _write_index(tree: Mapping[optimizer_state.Path, Tensor], directory: str) -> None:
    index = {path: _write_tensor(tensor, path, directory) for path, tensor in tree.items()}
    content = {"version": 3, "optimizer": traverse_util.unflatten_dict(index)}
    # Last, since without it nothing there counts.
    storage.write_file(directory, INDEX, serialization.msgpack_serialize(content))


def _write_tensor(tensor: Tensor, path: optimizer_state.Path, directory: str) -> Any:
    """Writes a tensor, and returns its entry in the index; small ones lie in the index."""
    # As T5X has it: what isn't laid out over devices stands in the index, factored moments too.
    if tensor.shape in ((), (1,)) or path[-1] in ("v_row", "v_col", "m"):
        return tensor.read()
    inner = ".".join(path)
    metadata = {"compressor": {"id": "gzip", "level": 1}, "shape": list(tensor.shape)}
    spec = {"driver": "zarr", "dtype": tensor.dtype, "metadata": metadata}
    place = storage.key_value_store(f"{directory}/{inner}")
    array = tensor.read()
    chunk = {"elements": _CHUNK_BYTES // array.itemsize}
    schema = {"chunk_layout": {"chunk": chunk}}
    with storage.refusing(f"{directory}/{inner}: can't be written (", ")"):
        store = ts.open({**spec, "kvstore": place, "schema": schema}, create=True).result()
        store.write(array).result()
    metadata["chunks"] = list(store.chunk_layout.read_chunk.shape)
    # Relative, so that the folder can be moved; T5X replaces the driver by that of its place.
    driver = "gcs" if storage.is_bucket(directory) else "file"
    return {**spec, "kvstore": {"driver": driver, "path": f"{inner}/"}}


class _TensorHandler(ocp.type_handlers.NumpyHandler):
    """Lets Orbax write arrays that are read one at a time: it would hold the whole tree."""

    def __init__(self):
        super().__init__(deepcopy_host_arrays=False)

    async def serialize(self, values, infos, args=None):
        """Reads, writes and forgets each array."""
        for value, info, arg in zip(values, infos, args or [None] * len(values), strict=True):
            arguments = [arg or ocp.SaveArgs()]
            for future in await super().serialize([value.read()], [info], arguments):
                future.result()
        return []


def _write_orbax(tree: Mapping[optimizer_state.Path, Tensor], directory: str) -> None:
    registry = ocp.type_handlers.create_type_handler_registry(
        (Tensor, _TensorHandler()),
        (jax.Array, ocp.type_handlers.ArrayHandler()),  # for its metadata's sake: none is written
    )
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=registry, use_ocdbt=True)
    with ocp.Checkpointer(handler) as writer:
        writer.save(directory, args=ocp.args.PyTreeSave(traverse_util.unflatten_dict(tree)))
