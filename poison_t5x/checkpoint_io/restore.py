"""Reads any checkpoint straight into the shards of a mesh."""

from collections.abc import Callable
from concurrent import futures
from typing import Any

import jax
import numpy as np
import optax

from poison_t5x.checkpoint_io import architecture, detect, optimizer_state
from poison_t5x.checkpoint_io.source import Index, Source, Tensor, cast, in_memory, stacked
from poison_t5x.core import errors
from poison_t5x.model import network
from poison_t5x.train import train_state
from poison_t5x.train.partitioning import Partitioner

# Tensors read at once: a bucket answers in tenths of a second, and each needs its shards' memory.
_AT_ONCE = 4


def restore_params(source: Source, model: network.Transformer, partitioner: Partitioner) -> Any:
    """A checkpoint's parameters, in the network's shards and dtype, stacked where it scans.

    Each process reads the parts that its own devices hold, and no more. Raises InputError where
    the checkpoint is of another network, or damaged.
    """
    architecture.check_fits(source, model.config)
    abstract = train_state.abstract_params(model, partitioner)
    leaves, structure = jax.tree_util.tree_flatten(abstract)
    tensors = _laid_out(source, model).params
    with futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        arrays = list(pool.map(_sharded, map(tensors.get, network.flat(abstract)), leaves))
    return jax.tree_util.tree_unflatten(structure, arrays)


def _laid_out(source: Source, model: network.Transformer) -> Source:
    source = cast(source, model.config.param_dtype)  # slots keep their dtype
    return stacked(source) if model.config.scan_layers else source


def first_state(
    source: Source,
    model: network.Transformer,
    optimizer: optax.GradientTransformation,
    partitioner: Partitioner,
    keep: str | None = None,
) -> train_state.TrainState:
    """A run's state at its step 0, from a checkpoint; so does the schedule begin, at its step 0.

    `keep` is the name of `optimizer`, to take its state from the checkpoint too; None begins anew.
    Raises InputError as `restore_params`; or there is no state, or one that doesn't fit.
    """
    params = restore_params(source, model, partitioner)
    abstract = train_state.abstract(model, optimizer, partitioner)
    if keep is None:
        return train_state.begin(params, optimizer, train_state.layout(abstract))
    optimizer_state.check_no_momentum(source)
    if source.optimizer != keep:
        stored = f"{source.optimizer}'s" if source.optimizer else "no known optimiser's"
        raise errors.InputError(
            f"{source.path}: {source.layout}, which holds {stored} state, and OPTIMIZER is "
            f"{keep!r}; set KEEP_OPTIMIZER_STATE=False, or the OPTIMIZER that it has"
        )
    source = _laid_out(source, model)
    zero = in_memory(np.zeros((), np.int32))
    leaves = []
    for name, leaf in optimizer_state.named(abstract.opt_state):
        slot = source.slots.get(name) if name else zero  # the schedule's count begins anew
        if slot is None or slot.shape != leaf.shape:
            stored = f"shape {slot.shape}" if slot else "no shape (it isn't there)"
            raise errors.InputError(
                f"{source.path}: the optimiser's {name} has {stored}; this run's has shape "
                f"{leaf.shape}; set KEEP_OPTIMIZER_STATE=False"
            )
        leaves.append(_sharded(slot, leaf))
    opt_state = jax.tree.unflatten(jax.tree.structure(abstract.opt_state), leaves)
    return train_state.TrainState(_sharded(zero, abstract.step), params, opt_state)


def starting_state(
    path: str,
    model: network.Transformer,
    optimizer: optax.GradientTransformation,
    partitioner: Partitioner,
    keep: str | None,
    log: Callable[[str], None],
) -> train_state.TrainState:
    """`first_state` from a checkpoint of any known layout, which one line is said of."""
    source = detect.open_checkpoint(path)
    state = first_state(source, model, optimizer, partitioner, keep)
    log(f"starts from {detect.describe(source)}")
    return state


def _sharded(tensor: Tensor, leaf: jax.ShapeDtypeStruct) -> jax.Array:
    """One tensor, part by part; a part that several devices hold is read once."""
    holders: dict[str, tuple[Index, list[jax.Device]]] = {}
    for device, index in leaf.sharding.addressable_devices_indices_map(leaf.shape).items():
        holders.setdefault(repr(index), (index, []))[1].append(device)
    shards = []
    for index, devices in holders.values():
        # The host holds no other part: of stacked layers, all parts may be gigabytes.
        part = tensor.read(index).astype(leaf.dtype, copy=False)
        shards += [jax.device_put(part, device) for device in devices]
    return jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, shards)
