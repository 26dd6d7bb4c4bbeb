"""The state that training carries from step to step, and how it is made, sharded from the start."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from poison_t5x.model import network
from poison_t5x.train.partitioning import Partitioner


class TrainState(NamedTuple):
    """step: int32 (); params: float32 tree under T5X's paths; opt_state: the optimiser's tree."""

    step: jax.Array
    params: Any
    opt_state: Any


@functools.lru_cache(maxsize=4)
def abstract(
    model: network.Transformer, optimizer: optax.GradientTransformation, partitioner: Partitioner
) -> TrainState:
    """Shapes, dtypes and shardings of a state, worked out without making an array."""
    opt_state = jax.eval_shape(optimizer.init, _boxed(model))
    return TrainState(
        jax.ShapeDtypeStruct((), jnp.int32, sharding=partitioner.replicated),
        abstract_params(model, partitioner),
        partitioner.abstract(opt_state, is_state=True),
    )


def abstract_params(model: network.Transformer, partitioner: Partitioner):
    """Shapes, dtypes and shardings of the parameters alone."""
    return partitioner.abstract(_boxed(model))


def _boxed(model: network.Transformer):
    return jax.eval_shape(lambda key: network.boxed_params(model, key), jax.random.key(0))


def layout(state):
    """The shardings of an abstract state, or of a part of one."""
    return jax.tree.map(lambda leaf: leaf.sharding, state)


def create(model, optimizer, partitioner, seed: int) -> TrainState:
    """A fresh state, each array made on the devices that hold it, the same on any mesh."""
    with partitioner.scope():
        return _initializer(model, optimizer, partitioner)(jax.random.key(seed))


@functools.lru_cache(maxsize=1)
def _initializer(model, optimizer, partitioner):
    def init(key):
        params = network.initial_params(model, key)
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))

    return jax.jit(init, out_shardings=layout(abstract(model, optimizer, partitioner)))


def begin(params: Any, optimizer: optax.GradientTransformation, layout: TrainState) -> TrainState:
    """The state of step 0 with parameters that lie in their shards, as in `layout`."""

    def init(tree):
        return jnp.zeros((), jnp.int32), optimizer.init(tree)

    step, opt_state = jax.jit(init, out_shardings=(layout.step, layout.opt_state))(params)
    return TrainState(step, params, opt_state)
