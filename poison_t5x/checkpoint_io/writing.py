"""Writes checkpoints in T5X's two layouts and in ours, one tensor at a time."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
import tensorstore as ts
from flax import serialization, traverse_util

from poison_t5x.checkpoint_io import optimizer_state, storage, tensor_store
from poison_t5x.checkpoint_io.source import Source, Tensor
from poison_t5x.core import errors
from poison_t5x.train import checkpoints

LAYOUTS = ("t5x", "t5x-orbax", "poison-t5x")
_CHUNK_BYTES = 64 * 2**20  # as T5X's


def write(source: Source, directory: str, layout: str) -> str:
    """Writes `<directory>/checkpoint_<step>`, and returns its path.

    Args:
      directory: a folder or, of 't5x', a bucket path.
      layout: 't5x' (as the public checkpoints), 't5x-orbax' (as today's T5X writes) or 'poison-t5x'
        (as our train loop does, committed).

    Raises:
      InputError: something is there already, or can't be written.
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
            _write_orbax(tree, place if is_ours else f"{place}/{tensor_store.STATE}")
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
    if any(storage.read_file(final, name) for name in tensor_store.MARKS):
        raise storage.occupied(final)
    yield final


def _write_index(tree: Mapping[optimizer_state.Path, Tensor], directory: str) -> None:
    index = {path: _write_tensor(tensor, path, directory) for path, tensor in tree.items()}
    content = {"version": 3, "optimizer": traverse_util.unflatten_dict(index)}
    # Last, since without it nothing there counts.
    storage.write_file(directory, tensor_store.INDEX, serialization.msgpack_serialize(content))


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
