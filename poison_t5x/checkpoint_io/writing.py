"""Writes checkpoints in T5X's two layouts and in ours, one tensor at a time."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from flax import serialization, traverse_util

from poison_t5x.checkpoint_io import slots, state_names, storage, tensor_store
from poison_t5x.checkpoint_io.source import Source, TensorInfo
from poison_t5x.core import errors
from poison_t5x.train import checkpoints

_CHUNK_BYTES = 64 * 2**20  # as T5X's


class _Leaf:
    """A tensor that is read when it is written."""

    def __init__(self, info: TensorInfo, read: Callable[[], np.ndarray]):
        self.shape, self.dtype, self.read = info.shape, np.dtype(info.dtype), read


def _at_hand(array: np.ndarray) -> _Leaf:
    return _Leaf(TensorInfo(array.shape, array.dtype.name), lambda: array)


def _leaves(source: Source, *, t5x: bool) -> dict[state_names.Path, _Leaf]:
    """All that is written, by its path in the tree; `t5x`: with T5X's own Adafactor's names."""
    found: dict[state_names.Path, _Leaf] = {
        state_names.param_path(name): _Leaf(info, functools.partial(source.read, name))
        for name, info in sorted(source.params.items())
    }
    found[state_names.STEP] = _at_hand(np.array(_step(source, t5x=t5x), np.int32))
    optimizer = source.optimizer
    if optimizer is None:
        return found
    for name, info in sorted(source.slots.items()):
        is_momentum = name.startswith(f"{state_names.MOMENTUM}/")
        if is_momentum and not t5x:
            slots.check_no_momentum(source, name)
        elif name != state_names.COUNT:
            path = state_names.tree_path(optimizer, name, factored_last=t5x)
            found[path] = _Leaf(info, functools.partial(source.read, name))
    if optimizer == "adafactor" and t5x:
        for name in source.params:
            slot = f"{state_names.MOMENTUM}/{name}"
            path = state_names.tree_path(optimizer, slot, factored_last=True)
            found.setdefault(path, _at_hand(np.zeros(1, np.float32)))
        return found
    # The moments' count, and the schedule's, which stands third in optax's chains.
    number = _at_hand(source.read(state_names.COUNT))
    for position in ("0", "2"):
        found["state", "param_states", position, state_names.COUNT] = number
    return found


def _step(source: Source, *, t5x: bool) -> int:
    """The step to write: T5X's Adafactor has no count of its own, and takes the step for it."""
    if t5x and source.optimizer == "adafactor":
        return int(source.read(state_names.COUNT))
    return source.step


def _final(source: Source, directory: str, *, t5x: bool) -> str:
    return f"{storage.absolute(directory)}/checkpoint_{_step(source, t5x=t5x)}"


def write_t5x(source: Source, directory: str) -> str:
    """Writes `<directory>/checkpoint_<step>` in the layout of the public T5X checkpoints.

    Args:
      source: what to write.
      directory: a folder or a bucket path.

    Returns:
      The checkpoint's path.

    Raises:
      InputError: something is there already, or can't be written.
    """
    final = _final(source, directory, t5x=True)
    with _place(final) as place:
        index = {
            path: _write_tensor(leaf, path, place)
            for path, leaf in _leaves(source, t5x=True).items()
        }
        tree = {"version": 3, "optimizer": traverse_util.unflatten_dict(index)}
        # Last, since without it nothing there counts.
        storage.write_file(place, tensor_store.INDEX, serialization.msgpack_serialize(tree))
    return final


def _write_tensor(leaf: _Leaf, path: state_names.Path, directory: str) -> Any:
    """Writes a tensor, and returns what the index says of it; small ones lie in the index."""
    # As T5X has it: what isn't laid out over devices stands in the index, factored moments too.
    if leaf.shape in ((), (1,)) or path[-1] in ("v_row", "v_col", state_names.MOMENTUM):
        return leaf.read()
    inner = ".".join(path)
    spec = {
        "driver": "zarr",
        "dtype": leaf.dtype.name,
        "kvstore": storage.key_value_store(f"{directory}/{inner}"),
        "metadata": {
            "chunks": chunk_shape(leaf.shape, leaf.dtype.itemsize, _CHUNK_BYTES),
            "compressor": {"id": "gzip", "level": 1},
            "shape": list(leaf.shape),
        },
    }
    try:
        store = ts.open(ts.Spec({**spec, "create": True, "open": False})).result()
        store.write(leaf.read()).result()
    except (ValueError, OSError) as error:
        if isinstance(error, errors.InputError):
            raise
        raise errors.InputError(
            f"{directory}/{inner}: can't be written ({storage.first(error)})"
        ) from None
    # Relative, so that the folder can be moved; T5X replaces the driver by that of its place.
    driver = "gcs" if storage.is_bucket(directory) else "file"
    return {**spec, "kvstore": {"driver": driver, "path": f"{inner}/"}}


def chunk_shape(shape: tuple[int, ...], itemsize: int, most: int) -> list[int]:
    """A chunk of at most `most` bytes: the longest axis is halved, rounded up, until it fits."""
    chunk = list(shape)
    while np.prod(chunk, dtype=np.int64) * itemsize > most:
        axis = int(np.argmax(chunk))
        chunk[axis] = -(-chunk[axis] // 2)
    return chunk


class _LeafHandler(ocp.type_handlers.NumpyHandler):
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


def _write_orbax(leaves: dict[state_names.Path, _Leaf], directory: str) -> None:
    registry = ocp.type_handlers.create_type_handler_registry(
        (_Leaf, _LeafHandler()),
        (jax.Array, ocp.type_handlers.ArrayHandler()),  # for its metadata's sake: none is written
    )
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=registry, use_ocdbt=True)
    with ocp.Checkpointer(handler) as writer:
        writer.save(directory, args=ocp.args.PyTreeSave(traverse_util.unflatten_dict(leaves)))


def write_t5x_orbax(source: Source, directory: str) -> str:
    """Writes `<directory>/checkpoint_<step>` as today's T5X does, in a folder. See `write_t5x`."""
    _refuse_bucket(directory)
    final = _final(source, directory, t5x=True)
    with _place(final) as place:
        _write_orbax(_leaves(source, t5x=True), f"{place}/{tensor_store.STATE}")
    return final


def write_ours(source: Source, directory: str) -> str:
    """Writes `<directory>/checkpoint_<step>` as our train loop does, sealed. See `write_t5x`."""
    _refuse_bucket(directory)
    final = _final(source, directory, t5x=False)
    with _place(final) as place:
        _write_orbax(_leaves(source, t5x=False), place)
    checkpoints.commit(directory, source.step)
    return final


def _refuse_bucket(directory: str) -> None:
    if storage.is_bucket(directory):
        raise errors.InputError(
            f"{directory}: Orbax's layouts are written to folders; copy the folder there, or "
            "write the public checkpoints' layout (--to=t5x)"
        )


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
    if any(storage.read_file(final, name) for name in tensor_store.MARKS):
        raise storage.occupied(final)
    yield final
