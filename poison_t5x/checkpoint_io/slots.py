"""Which leaf of an optax state is which slot, and states that begin anew."""

from typing import Any

import jax
import numpy as np
from flax import traverse_util

from poison_t5x.checkpoint_io.source import Index, Source, TensorInfo
from poison_t5x.core import errors
from poison_t5x.train import optimizers


def named(opt_state: Any) -> list[tuple[str | None, Any]]:
    """(slot, leaf) of each leaf of our optimiser's state, in the tree's order.

    The slot is 'mu/<parameter>' and so on, 'count' for the updates that the moments have seen, or
    None for the schedule's own count.
    """
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(opt_state):
        where, kind, *parameter = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        is_moments = where == "0"
        found.append(("/".join((kind, *parameter)) if is_moments else None, leaf))
    return found


class Cast:
    """A `Source` with its parameters in another dtype; the optimiser's state keeps its own."""

    def __init__(self, source: Source, dtype: str):
        self._source, self._dtype = source, dtype
        self.path, self.layout, self.step = source.path, source.layout, source.step
        self.network, self.optimizer = source.network, source.optimizer
        self.params = {name: TensorInfo(info.shape, dtype) for name, info in source.params.items()}
        self.slots = source.slots

    def read(self, name: str, index: Index | None = None) -> np.ndarray:
        """A tensor, or a part of it; see `Source.read`."""
        array = self._source.read(name, index)
        return array.astype(self._dtype, copy=False) if name in self.params else array


class Dropped:
    """A `Source` without its optimiser's state."""

    def __init__(self, source: Source):
        self._source = source
        self.path, self.layout, self.step = source.path, source.layout, source.step
        self.network, self.params = source.network, source.params
        self.optimizer: str | None = None
        self.slots: dict[str, TensorInfo] = {}

    def read(self, name: str, index: Index | None = None) -> np.ndarray:
        """A tensor, or a part of it; see `Source.read`."""
        return self._source.read(name, index)


class Restarted:
    """A `Source` at step 0, with the state that an optimiser begins with in place of its own."""

    def __init__(self, source: Source, optimizer: str):
        """Args: optimizer: one of `optimizers.NAMES`."""
        self._source = source
        self.path, self.layout, self.step = source.path, source.layout, 0
        self.network, self.params = source.network, source.params
        self.optimizer: str | None = optimizer
        transform = optimizers.make(optimizers.OptimizerConfig(name=optimizer), lambda step: step)
        params = {
            name: jax.ShapeDtypeStruct(info.shape, np.float32)
            for name, info in source.params.items()
        }
        tree = traverse_util.unflatten_dict(params, sep="/")
        self.slots = {
            slot: TensorInfo(tuple(leaf.shape), leaf.dtype.name)
            for slot, leaf in named(jax.eval_shape(transform.init, tree))
            if slot is not None
        }

    def read(self, name: str, index: Index | None = None) -> np.ndarray:
        """A tensor, or a part of it; see `Source.read`. All moments begin at zero."""
        if name not in self.slots:
            return self._source.read(name, index)
        info = self.slots[name]
        # One zero, seen as many.
        zeros = np.broadcast_to(np.zeros((), info.dtype), info.shape)
        return np.array(zeros if index is None else zeros[index])


def check_no_momentum(source: Source, name: str) -> None:
    """Raises InputError where T5X's Adafactor had a momentum, which ours has not."""
    if source.slots[name].shape != (1,):
        raise errors.InputError(
            f"{source.path}: {name} is an Adafactor's momentum, of shape "
            f"{source.slots[name].shape}, which ours has not; leave the optimiser's state out"
        )
