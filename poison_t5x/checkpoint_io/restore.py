"""Reads any checkpoint straight into the shards of a mesh."""

from collections.abc import Callable
from concurrent import futures
from typing import Any

import jax
import numpy as np
import optax

from poison_t5x.checkpoint_io import architecture, detect, slots, stacking, state_names
from poison_t5x.checkpoint_io.source import Index, Source
from poison_t5x.core import errors
from poison_t5x.model import network
from poison_t5x.train import train_state
from poison_t5x.train.partitioning import Partitioner

# Tensors read at once: a bucket answers in tenths of a second, and each needs its shards' memory.
_AT_ONCE = 4


def restore_params(source: Source, model: network.Transformer, partitioner: Partitioner) -> Any:
    """A checkpoint's parameters, in the network's shards and dtype, stacked where it scans.

    Each process reads the parts that its own devices hold, and no more.

    Raises:
      InputError: the checkpoint is of another network, or damaged.
    """
    architecture.check_fits(source, model.config)
    source = _laid_out(source, model)
    abstract = train_state.abstract_params(model, partitioner)
    leaves, structure = jax.tree_util.tree_flatten(abstract)
    names = list(network.flat(abstract))
    with futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        arrays = list(pool.map(lambda name, leaf: _sharded(source, name, leaf), names, leaves))
    return jax.tree_util.tree_unflatten(structure, arrays)


def _laid_out(source: Source, model: network.Transformer) -> Source:
    """The checkpoint with the network's own tensors, in its dtype; slots keep theirs."""
    source = slots.Cast(source, model.config.param_dtype)
    return stacking.Stacked(source) if model.config.scan_layers else source


def first_state(
    source: Source,
    model: network.Transformer,
    optimizer: optax.GradientTransformation,
    partitioner: Partitioner,
    keep: str | None = None,
) -> train_state.TrainState:
    """A run's state at its step 0, from a checkpoint.

    Args:
      keep: the name of `optimizer`, to take its state from the checkpoint too; None begins anew.

    Raises:
      InputError: as `restore_params` and `restore_opt_state`.
    """
    params = restore_params(source, model, partitioner)
    if keep is None:
        layout = train_state.shardings(model, optimizer, partitioner)
        return train_state.begin(params, optimizer, layout, partitioner.replicated)
    for name in source.slots:
        if name.startswith(f"{state_names.MOMENTUM}/"):
            slots.check_no_momentum(source, name)
    abstract = train_state.abstract(model, optimizer, partitioner)
    opt_state = restore_opt_state(_laid_out(source, model), keep, abstract.opt_state)
    return train_state.TrainState(_put(np.zeros((), np.int32), abstract.step), params, opt_state)


def starting_state(
    path: str,
    model: network.Transformer,
    optimizer: optax.GradientTransformation,
    partitioner: Partitioner,
    keep: str | None,
    say: Callable[[str], None],
) -> train_state.TrainState:
    """`first_state` from a checkpoint of any known layout, which one line is said of.

    Raises:
      InputError: as `detect.open_checkpoint` and `first_state`.
    """
    source = detect.open_checkpoint(path)
    state = first_state(source, model, optimizer, partitioner, keep)
    say(f"starts from {detect.describe(source)}")
    return state


def restore_opt_state(source: Source, optimizer: str, abstract_opt_state: Any) -> Any:
    """A checkpoint's optimiser state; the schedule begins anew, at its step 0.

    Args:
      source: the checkpoint.
      optimizer: the run's, 'adamw' or 'adafactor'.
      abstract_opt_state: a tree of `jax.ShapeDtypeStruct`s with shardings.

    Raises:
      InputError: it has none, or another optimiser's, or one that doesn't fit.
    """
    if source.optimizer != optimizer:
        found = f"{source.optimizer}'s" if source.optimizer else "no known optimiser's"
        raise errors.InputError(
            f"{source.path}: {source.layout}, which holds {found} state, and OPTIMIZER is "
            f"{optimizer!r}; set KEEP_OPTIMIZER_STATE=False, or the OPTIMIZER that it has"
        )
    arrays = []
    for name, leaf in slots.named(abstract_opt_state):
        if name is None:
            arrays.append(_put(np.zeros(leaf.shape, leaf.dtype), leaf))
        else:
            _check_slot(source, name, leaf)
            arrays.append(_sharded(source, name, leaf))
    return jax.tree_util.tree_unflatten(jax.tree.structure(abstract_opt_state), arrays)


def _check_slot(source: Source, name: str, leaf: jax.ShapeDtypeStruct) -> None:
    found = source.slots.get(name)
    if found is None or found.shape != leaf.shape:
        there = f"shape {found.shape}" if found else "no shape (it isn't there)"
        raise errors.InputError(
            f"{source.path}: the optimiser's {name} has {there}; this run's has shape "
            f"{leaf.shape}; set KEEP_OPTIMIZER_STATE=False"
        )


def _put(array: np.ndarray, leaf: jax.ShapeDtypeStruct) -> jax.Array:
    return jax.make_array_from_callback(
        leaf.shape, leaf.sharding, lambda index: array[index].astype(leaf.dtype)
    )


def _sharded(source: Source, name: str, leaf: jax.ShapeDtypeStruct) -> jax.Array:
    """One tensor, part by part; a part that several devices hold is read once."""
    holders: dict[str, tuple[Index, list[jax.Device]]] = {}
    for device, index in leaf.sharding.addressable_devices_indices_map(leaf.shape).items():
        holders.setdefault(repr(index), (index, []))[1].append(device)
    shards = []
    for index, devices in holders.values():
        # The host holds no other part: of stacked layers, all parts may be gigabytes.
        part = source.read(name, index).astype(leaf.dtype, copy=False)
        shards += [jax.device_put(part, device) for device in devices]
    return jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, shards)
