"""Checkpoints for tests: random ones in memory, and ways to compare any two."""

import math

import jax
import numpy as np
import pytest

from poison_t5x.checkpoint_io import architecture, slots
from poison_t5x.checkpoint_io.source import TensorInfo
from poison_t5x.core.errors import InputError
from poison_t5x.model import network
from poison_t5x.model.config import T5Config
from poison_t5x.train import optimizers


class InMemory:
    """A `Source` of arrays; `reads` counts the numbers that were asked for."""

    def __init__(self, arrays, slot_arrays=None, optimizer=None, step=7, network=None):
        self.path, self.layout = "memory", "arrays in memory"
        self._arrays = {**arrays, **(slot_arrays or {})}
        self.params = {name: TensorInfo(a.shape, a.dtype.name) for name, a in arrays.items()}
        self.slots = {
            name: TensorInfo(a.shape, a.dtype.name) for name, a in (slot_arrays or {}).items()
        }
        self.optimizer, self.step, self.network = optimizer, step, network or {}
        self.reads = 0

    def read(self, name, index=None):
        array = self._arrays[name] if index is None else self._arrays[name][index]
        self.reads += array.size
        return array


def random_source(config: T5Config, optimizer: str | None = "adamw", seed: int = 0, **kw):
    """A network of `config` with random parameters and, of `optimizer`, random moments."""
    rng = np.random.default_rng(seed)

    def draw(shape, dtype=np.float32):
        if dtype == "int32":  # the count
            return np.array(kw.get("step", 7), np.int32)
        return rng.normal(size=shape).astype(dtype)

    params = {name: draw(shape) for name, shape in architecture.shapes(config).items()}
    if optimizer is None:
        return InMemory(params, **kw)
    template = slots.Restarted(InMemory(params), optimizer)
    moments = {name: draw(info.shape, info.dtype) for name, info in template.slots.items()}
    return InMemory(params, moments, optimizer, **kw)


def assert_same(one, other, *, ignore_momentum: bool = False) -> None:
    """Two sources hold the same tensors, bit for bit."""
    assert one.params.keys() == other.params.keys()
    found, wanted = set(one.slots), set(other.slots)
    if ignore_momentum:  # zeros that T5X's Adafactor has where it has no momentum
        found, wanted = ({n for n in s if n[:2] != "m/"} for s in (found, wanted))
    assert found == wanted
    assert (one.optimizer, one.step) == (other.optimizer, other.step)
    for name in [*one.params, *found]:
        left, right = one.read(name), other.read(name)
        assert (left.shape, left.dtype) == (right.shape, right.dtype), name
        assert left.tobytes() == right.tobytes(), name


def make_optimizer(name: str):
    """An optimiser of ours with a constant rate."""
    return optimizers.make(optimizers.OptimizerConfig(name=name), lambda step: 1e-2)


def leaf(tree, path: str):
    """A leaf of nested dictionaries, by path."""
    for key in path.split("/"):
        tree = tree[key]
    return tree


def flat_arrays(tree) -> dict[str, np.ndarray]:
    """A tree's arrays on the host, by path."""
    return {name: np.asarray(jax.device_get(x)) for name, x in network.flat(tree).items()}


def numbers(shape) -> int:
    """How many numbers an array of `shape` holds."""
    return math.prod(shape)


def error(function, *args) -> str:
    """The one line of the InputError that a call raises."""
    with pytest.raises(InputError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)
