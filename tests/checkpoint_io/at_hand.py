"""Checkpoints for tests: random ones in memory, and ways to compare any two."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from poison_t5x.checkpoint_io import architecture, optimizer_state, source
from poison_t5x.checkpoint_io.source import Source
from poison_t5x.core.errors import InputError
from poison_t5x.model import network
from poison_t5x.model.config import T5Config
from poison_t5x.train import optimizers


def in_memory(arrays, slot_arrays=None, optimizer=None, step=7, network=None) -> Source:
    """A source of arrays."""
    params, slots = (
        {name: source.in_memory(array) for name, array in some.items()}
        for some in (arrays, slot_arrays or {})
    )
    return Source("memory", "arrays in memory", params, slots, optimizer, step, network or {})


def replace_read(one: Source, read) -> None:
    """Has `read(tensor, name, index)` read a source's tensors."""

    def reading(name, tensor):
        return dataclasses.replace(tensor, read_part=lambda index: read(tensor, name, index))

    one.params = {name: reading(name, tensor) for name, tensor in one.params.items()}


def watch(one: Source) -> list[tuple]:
    """(name, index, numbers) of each reading of a parameter from now on."""
    seen = []

    def watched(tensor, name, index):
        array = tensor.read(index)
        seen.append((name, index, array.size))
        return array

    replace_read(one, watched)
    return seen


def random_source(config: T5Config, optimizer: str | None = "adamw", seed: int = 0, **kw):
    """A network of `config` with random parameters and, of `optimizer`, random moments."""
    rng = np.random.default_rng(seed)

    def draw(shape, dtype=np.float32):
        if dtype == "int32":  # the count
            return np.array(kw.get("step", 7), np.int32)
        return rng.normal(size=shape).astype(dtype)

    params = {name: draw(shape) for name, shape in architecture.shapes(config).items()}
    if optimizer is None:
        return in_memory(params, **kw)
    template = optimizer_state.restarted(in_memory(params), optimizer)
    moments = {name: draw(info.shape, info.dtype) for name, info in template.slots.items()}
    return in_memory(params, moments, optimizer, **kw)


def assert_same(one, other, *, ignore_momentum: bool = False) -> None:
    """Two sources hold the same tensors, bit for bit."""
    assert one.params.keys() == other.params.keys()
    left, right = set(one.slots), set(other.slots)
    if ignore_momentum:  # zeros that T5X's Adafactor has where it has no momentum
        left, right = ({n for n in s if n[:2] != "m/"} for s in (left, right))
    assert left == right
    assert (one.optimizer, one.step) == (other.optimizer, other.step)
    for name in [*one.params, *left]:
        first, second = one.read(name), other.read(name)
        assert (first.shape, first.dtype) == (second.shape, second.dtype), name
        assert first.tobytes() == second.tobytes(), name


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


def slices(shape):
    """A strategy: parts of an array, none of them empty, as shards are."""

    def one(size):
        return st.tuples(st.integers(0, size - 1), st.integers(1, size)).map(
            lambda pair: slice(min(pair), max(pair) if pair[0] != pair[1] else pair[0] + 1)
        )

    return st.tuples(*map(one, shape))


def error(function, *args, **kw) -> str:
    """The one line of the InputError that a call raises."""
    with pytest.raises(InputError) as caught:
        function(*args, **kw)
    assert "\n" not in str(caught.value)
    return str(caught.value)
