"""Writes checkpoints in T5X's two layouts and in ours, one tensor at a time."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from flax import serialization, traverse_util

from poison_t5x.checkpoint_io import optimizer_state, storage, tensor_store
from poison_t5x.checkpoint_io.source import Source
from poison_t5x.core import errors
from poison_t5x.train import checkpoints

_CHUNK_BYTES = 64 * 2**20  # as T5X's


class _Leaf:
    """A tensor that is read when it is written."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, read: Callable[[], np.ndarray]):
        self.shape, self.dtype, self.read = shape, np.dtype(dtype), read


_Tree = dict[optimizer_state.Path, _Leaf]


def _at_hand(array: np.ndarray) -> _Leaf:
    return _Leaf(array.shape, array.dtype, lambda: array)


def _leaves(source: Source, *, t5x: bool) -> _Tree:
    """All that is written, by its path in the tree; `t5x`: with T5X's own Adafactor's names."""

    def leaf(name: str) -> _Leaf:
        return _Leaf(*source.info(name), functools.partial(source.read, name))

    leaves = {optimizer_state.param_path(name): leaf(name) for name in sorted(source.params)}
    leaves[optimizer_state.STEP] = _at_hand(np.array(_step(source, t5x=t5x), np.int32))
    optimizer = source.optimizer
    if optimizer is None:
        return leaves
    if not t5x:
        optimizer_state.check_no_momentum(source)
    place = functools.partial(optimizer_state.slot_path, optimizer, t5x=t5x)
    for name in sorted(source.slots):
        if name != optimizer_state.COUNT and (t5x or not optimizer_state.is_momentum(name)):
            leaves[place(name)] = leaf(name)
    if optimizer == "adafactor" and t5x:
        for name in source.params:
            momentum = place(f"{optimizer_state.MOMENTUM}/{name}")
            leaves.setdefault(momentum, _at_hand(np.zeros(1, np.float32)))
        return leaves
    count = _at_hand(source.read(optimizer_state.COUNT))
    return leaves | dict.fromkeys(optimizer_state.count_paths(), count)


def _step(source: Source, *, t5x: bool) -> int:
    """The step to write: T5X's Adafactor has no count of its own, and takes the step for it."""
    if t5x and source.optimizer == "adafactor":
        return int(source.read(optimizer_state.COUNT))
    return source.step


def _write_index(leaves: _Tree, place: str) -> None:
    index = {path: _write_tensor(leaf, path, place) for path, leaf in leaves.items()}
    tree = {"version": 3, "optimizer": traverse_util.unflatten_dict(index)}
    # Last, since without it nothing there counts.
    storage.write_file(place, tensor_store.INDEX, serialization.msgpack_serialize(tree))


def _write_tensor(leaf: _Leaf, path: optimizer_state.Path, directory: str) -> Any:
    """Writes a tensor, and returns its entry in the index; small ones lie in the index."""
    # As T5X has it: what isn't laid out over devices stands in the index, factored moments too.
    if leaf.shape in ((), (1,)) or path[-1] in ("v_row", "v_col", optimizer_state.MOMENTUM):
        return leaf.read()
    inner = ".".join(path)
    metadata = {"compressor": {"id": "gzip", "level": 1}, "shape": list(leaf.shape)}
    chunk = {"elements": _CHUNK_BYTES // leaf.dtype.itemsize}
    spec = {"driver": "zarr", "dtype": leaf.dtype.name, "metadata": metadata}
    place = storage.key_value_store(f"{directory}/{inner}")
    try:
        store = ts.open(
            {**spec, "kvstore": place, "schema": {"chunk_layout": {"chunk": chunk}}}, create=True
        ).result()
        store.write(leaf.read()).result()
    except (ValueError, OSError) as error:
        if isinstance(error, errors.InputError):
            raise
        raise errors.InputError(
            f"{directory}/{inner}: can't be written ({storage.first(error)})"
        ) from None
    metadata["chunks"] = list(store.chunk_layout.read_chunk.shape)
    # Relative, so that the folder can be moved; T5X replaces the driver by that of its place.
    driver = "gcs" if storage.is_bucket(directory) else "file"
    return {**spec, "kvstore": {"driver": driver, "path": f"{inner}/"}}


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


def _write_orbax(leaves: _Tree, directory: str) -> None:
    registry = ocp.type_handlers.create_type_handler_registry(
        (_Leaf, _LeafHandler()),
        (jax.Array, ocp.type_handlers.ArrayHandler()),  # for its metadata's sake: none is written
    )
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=registry, use_ocdbt=True)
    with ocp.Checkpointer(handler) as writer:
        writer.save(directory, args=ocp.args.PyTreeSave(traverse_util.unflatten_dict(leaves)))


class _Layout(NamedTuple):
    write: Callable[[_Tree, str], None]
    is_t5x: bool
    inner: str = ""  # the tensors' folder within the checkpoint's


_LAYOUTS = {
    "t5x": _Layout(_write_index, True),
    "t5x-orbax": _Layout(_write_orbax, True, f"/{tensor_store.STATE}"),
    "poison-t5x": _Layout(_write_orbax, False),
}
LAYOUTS = tuple(_LAYOUTS)


def write(source: Source, directory: str, layout: str) -> str:
    """Writes `<directory>/checkpoint_<step>`, and returns its path.

    Args:
      directory: a folder or, of 't5x', a bucket path.
      layout: 't5x' (as the public checkpoints), 't5x-orbax' (as today's T5X writes) or 'poison-t5x'
        (as our train loop does, committed).

    Raises:
      InputError: something is there already, or can't be written.
    """
    how = _LAYOUTS[layout]
    if storage.is_bucket(directory) and layout != "t5x":
        raise errors.InputError(
            f"{directory}: Orbax's layouts are written to folders; copy the folder there, or "
            "write the public checkpoints' layout (--to=t5x)"
        )
    step = _step(source, t5x=how.is_t5x)
    final = f"{storage.absolute(directory)}/checkpoint_{step}"
    with _place(final) as place:
        how.write(_leaves(source, t5x=how.is_t5x), place + how.inner)
    if layout == "poison-t5x":
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
    if any(storage.read_file(final, name) for name in tensor_store.MARKS):
        raise storage.occupied(final)
    yield final
