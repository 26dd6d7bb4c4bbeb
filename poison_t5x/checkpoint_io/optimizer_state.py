"""A checkpoint's tree in T5X's words, as a source and back; and optimisers' states begun anew.

T5X's tree is {'target': parameters, 'state': {'step', 'param_states'}}. Under param_states an optax
optimiser has its own tree ('0/mu/<parameter>', '0/count', '2/count'), and T5X's Adafactor has
'<parameter>/v_row' and so on, where optax's, which we use, has '0/v_row/<parameter>'.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from poison_t5x.checkpoint_io.source import Source, Tensor, in_memory
from poison_t5x.core import errors
from poison_t5x.train import optimizers

Path = tuple[str, ...]

COUNT = "count"
_STEP = ("state", "step")
_STATES = ("state", "param_states")
_MOMENTUM = "m"  # of T5X's Adafactor; ours has none
_SLOTS = {"adamw": ("mu", "nu"), "adafactor": ("v_row", "v_col", "v")}
_KINDS = {kind for kinds in _SLOTS.values() for kind in kinds}


def from_tree(path: str, layout: str, tree: Mapping[Path, Tensor]) -> Source:
    """The source of a checkpoint's tensors by place; states of other optimisers are left out."""
    params: dict[str, Tensor] = {}
    slots: dict[str, Tensor] = {}
    for place, tensor in tree.items():
        match place:
            case ("target", *parameter):
                params["/".join(parameter)] = tensor
            case ("state", "param_states", "0", "count"):
                slots[COUNT] = tensor
            case ("state", "param_states", "0", kind, *parameter) if parameter and kind in _KINDS:
                slots["/".join((kind, *parameter))] = tensor
            case ("state", "param_states", first, *others, kind) if (
                kind in (*_SLOTS["adafactor"], _MOMENTUM) and not first.isdigit()
            ):
                slots["/".join((kind, first, *others))] = tensor
    kinds = {slot.split("/")[0] for slot in slots}
    optimizer = next((name for name, wanted in _SLOTS.items() if wanted[0] in kinds), None)
    step = _number(path, "step", tree[_STEP]) if _STEP in tree else 0
    if optimizer is None:
        slots = {}
    else:  # T5X's Adafactor counts by the step
        slots.setdefault(COUNT, in_memory(np.array(step, np.int32)))
    return Source(path, layout, params, slots, optimizer, step)


def _number(path: str, name: str, tensor: Tensor) -> int:
    """A count of steps, which is a tensor of one whole number."""
    value = tensor.read() if math.prod(tensor.shape) == 1 else None
    if value is None or value.dtype.kind not in "iu" or not 0 <= value.item() < 2**31:
        found = f"shape {tensor.shape}" if value is None else repr(value.item())
        raise errors.InputError(
            f"{path}: the tensor {name}: expected a whole number, found {found}"
        )
    return value.item()


def to_tree(source: Source, *, t5x: bool) -> dict[Path, Tensor]:
    """All that is written, by place; `t5x`: with T5X's own Adafactor's names.

    Raises InputError where T5X's Adafactor had a momentum, and `t5x` is False: ours has none.
    """
    tree = {("target", *name.split("/")): source.params[name] for name in sorted(source.params)}
    tree[_STEP] = in_memory(np.array(written_step(source, t5x=t5x), np.int32))
    if source.optimizer is None:
        return tree
    if not t5x:
        check_no_momentum(source)
    is_theirs = t5x and source.optimizer == "adafactor"
    for name in sorted(source.slots):
        kind, *parameter = name.split("/")
        if kind != COUNT and (t5x or kind != _MOMENTUM):
            end = (*parameter, kind) if is_theirs else ("0", kind, *parameter)
            tree[(*_STATES, *end)] = source.slots[name]
    if is_theirs:
        for name in source.params:
            zeros = in_memory(np.zeros(1, np.float32))
            tree.setdefault((*_STATES, *name.split("/"), _MOMENTUM), zeros)
        return tree
    count = in_memory(source.read(COUNT))
    # Of the moments, and of the schedule, which stands third in optax's chains.
    return tree | {(*_STATES, number, COUNT): count for number in ("0", "2")}


def written_step(source: Source, *, t5x: bool) -> int:
    """The step to write: T5X's Adafactor has no count of its own, and takes the step for it."""
    if t5x and source.optimizer == "adafactor":
        return _number(source.path, COUNT, source.slots[COUNT])
    return source.step


def named(opt_state: Any) -> list[tuple[str | None, Any]]:
    """(slot, leaf) of each leaf of our optimiser's state, in the tree's order.

    The slot is 'mu/<parameter>' and so on, 'count' for the updates that the moments have seen, or
    None for the schedule's own count.
    """
    pairs: list[tuple[str | None, Any]] = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(opt_state):
        where, _, slot = jax.tree_util.keystr(path, simple=True, separator="/").partition("/")
        pairs.append((slot if where == "0" else None, leaf))
    return pairs


def restarted(source: Source, optimizer: str) -> Source:
    """The source at step 0, with the state that one of `optimizers.NAMES` begins with: zeros."""
    transform = optimizers.make(optimizers.OptimizerConfig(name=optimizer), lambda step: step)
    params = {
        name: jax.ShapeDtypeStruct(tensor.shape, np.float32)
        for name, tensor in source.params.items()
    }
    state = jax.eval_shape(transform.init, traverse_util.unflatten_dict(params, sep="/"))
    slots = {
        slot: in_memory(np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape))
        for slot, leaf in named(state)
        if slot is not None
    }
    return dataclasses.replace(source, optimizer=optimizer, slots=slots, step=0)


def check_no_momentum(source: Source) -> None:
    """Raises InputError where T5X's Adafactor had a momentum: of shape (1,) where there is none."""
    for name, tensor in source.slots.items():
        if name.startswith(f"{_MOMENTUM}/") and tensor.shape != (1,):
            raise errors.InputError(
                f"{source.path}: {name} is an Adafactor's momentum, of shape {tensor.shape}, which "
                "ours has not; leave the optimiser's state out"
            )
