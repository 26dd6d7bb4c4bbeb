"""Where T5X and we write an optimiser's state in a checkpoint's tree, and states begun anew.

T5X's tree is {'target': parameters, 'state': {'step', 'param_states'}}. Under param_states an optax
optimiser has its own tree ('0/mu/<parameter>', '0/count', '2/count'), and T5X's Adafactor has
'<parameter>/v_row' and so on, where optax's, which we use, has '0/v_row/<parameter>'.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from poison_t5x.checkpoint_io.source import Index, Source, TensorInfo
from poison_t5x.core import errors
from poison_t5x.train import optimizers

Path = tuple[str, ...]

COUNT = "count"
STEP = ("state", "step")
MOMENTUM = "m"  # of T5X's Adafactor; ours has none
_SLOTS = {"adamw": ("mu", "nu"), "adafactor": ("v_row", "v_col", "v")}
_STATES = ("state", "param_states")


class Names(NamedTuple):
    """Which tensor of a checkpoint's tree is what.

    Attributes:
      params: parameter -> path in the tree.
      slots: 'v_row/<parameter>' and so on, and 'count' -> path in the tree.
      optimizer: 'adamw', 'adafactor' or None.
      step: path of the step, or None.
    """

    params: dict[str, Path]
    slots: dict[str, Path]
    optimizer: str | None
    step: Path | None


def sort(paths: Iterable[Path]) -> Names:
    """Sorts the paths of a checkpoint's tree; those of other optimisers' states are left out."""
    params: dict[str, Path] = {}
    slots: dict[str, Path] = {}
    step = None
    known = {kind for kinds in _SLOTS.values() for kind in kinds}
    for path in paths:
        match path:
            case ("target", *parameter):
                params["/".join(parameter)] = path
            case ("state", "step"):
                step = path
            case ("state", "param_states", "0", "count"):
                slots[COUNT] = path
            case ("state", "param_states", "0", kind, *parameter) if parameter and kind in known:
                slots["/".join((kind, *parameter))] = path
            case ("state", "param_states", first, *others, kind) if (
                kind in (*_SLOTS["adafactor"], MOMENTUM) and not first.isdigit()
            ):
                slots["/".join((kind, first, *others))] = path
    kinds = {slot.split("/")[0] for slot in slots}
    optimizer = next((name for name, wanted in _SLOTS.items() if wanted[0] in kinds), None)
    return Names(params, slots if optimizer else {}, optimizer, step)


def param_path(parameter: str) -> Path:
    """Where a parameter stands in a tree that is written."""
    return ("target", *parameter.split("/"))


def slot_path(optimizer: str, slot: str, *, t5x: bool) -> Path:
    """Where a slot such as 'v_row/encoder/…' stands; `t5x`: as T5X's own Adafactor has it."""
    kind, *parameter = slot.split("/")
    if optimizer == "adafactor" and t5x:
        return (*_STATES, *parameter, kind)
    return (*_STATES, "0", kind, *parameter)


def count_paths() -> list[Path]:
    """Of the moments' count, and the schedule's, which stands third in optax's chains."""
    return [(*_STATES, place, COUNT) for place in ("0", "2")]


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


def dropped(source: Source) -> Source:
    """The source without its optimiser's state."""
    return dataclasses.replace(source, optimizer=None, slots={})


def restarted(source: Source, optimizer: str) -> Source:
    """The source at step 0, with the state that one of `optimizers.NAMES` begins with: zeros."""
    transform = optimizers.make(optimizers.OptimizerConfig(name=optimizer), lambda step: step)
    params = {
        name: jax.ShapeDtypeStruct(info.shape, np.float32) for name, info in source.params.items()
    }
    state = jax.eval_shape(transform.init, traverse_util.unflatten_dict(params, sep="/"))
    slots = {
        slot: TensorInfo(tuple(leaf.shape), leaf.dtype.name)
        for slot, leaf in named(state)
        if slot is not None
    }

    def read(name: str, index: Index | None = None) -> np.ndarray:
        if name not in slots:
            return source.read(name, index)
        zeros = np.broadcast_to(np.zeros((), slots[name].dtype), slots[name].shape)
        return np.array(zeros if index is None else zeros[index])

    return dataclasses.replace(source, optimizer=optimizer, slots=slots, step=0, read=read)


def is_momentum(slot: str) -> bool:
    """Whether a slot is the momentum of T5X's Adafactor, of shape (1,) where there is none."""
    return slot.startswith(f"{MOMENTUM}/")


def check_no_momentum(source: Source) -> None:
    """Raises InputError where T5X's Adafactor had a momentum, which ours has not."""
    for name, info in source.slots.items():
        if is_momentum(name) and info.shape != (1,):
            raise errors.InputError(
                f"{source.path}: {name} is an Adafactor's momentum, of shape {info.shape}, which "
                "ours has not; leave the optimiser's state out"
            )
