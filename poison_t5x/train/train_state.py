"""What training carries from step to step, and how it is made, sharded from the start."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from poison_t5x.model import network
from poison_t5x.train.partitioning import Partitioner


class TrainState(NamedTuple):
    """step: int32 (); params: float32 tree under T5X's paths; opt_state: the optimiser's tree."""

    step: jax.Array
    params: Any
    opt_state: Any


def shardings(
    model: network.Transformer,
    optimizer: optax.GradientTransformation,
    partitioner: Partitioner,
) -> TrainState:
    """A TrainState of shardings, worked out without making an array."""
    params = jax.eval_shape(lambda key: network.boxed_params(model, key), jax.random.key(0))
    opt_state = jax.eval_shape(optimizer.init, params)
    return TrainState(
        partitioner.replicated,
        partitioner.shardings(params),
        partitioner.state_shardings(params, opt_state),
    )


def _initializer(model: network.Transformer, optimizer: optax.GradientTransformation):
    def init(key):
        params = network.initial_params(model, key)
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))

    return init


def create(
    model: network.Transformer,
    optimizer: optax.GradientTransformation,
    partitioner: Partitioner,
    seed: int,
) -> TrainState:
    """A fresh state, each array made on the devices that hold it.

    Args:
      seed: of the initial parameters, which are the same on any mesh.
    """

    init = _compiled_initializer(model, optimizer, partitioner)
    with partitioner.scope():
        return init(jax.random.key(seed))


@functools.lru_cache(maxsize=1)
def _compiled_initializer(
    model: network.Transformer,
    optimizer: optax.GradientTransformation,
    partitioner: Partitioner,
):
    layout = shardings(model, optimizer, partitioner)
    return jax.jit(_initializer(model, optimizer), out_shardings=layout)


def begin(
    params: Any, optimizer: optax.GradientTransformation, layout: TrainState, replicated
) -> TrainState:
    """The first state from parameters at hand: step 0, and the optimiser's state that they give.

    Args:
      params: arrays in their shards.
      layout: from `shardings`.
      replicated: the sharding of the step.
    """
    init = jax.jit(
        lambda tree: (jnp.zeros((), jnp.int32), optimizer.init(tree)),
        out_shardings=(replicated, layout.opt_state),
    )
    step, opt_state = init(params)
    return TrainState(step, params, opt_state)


def abstract(
    model: network.Transformer,
    optimizer: optax.GradientTransformation,
    partitioner: Partitioner,
) -> TrainState:
    """Shapes, dtypes and shardings of a state, to restore into."""

    shapes = jax.eval_shape(_initializer(model, optimizer), jax.random.key(0))
    return _with_shardings(shapes, shardings(model, optimizer, partitioner))


def layout(state: TrainState) -> TrainState:
    """The shardings of an abstract state, which `shardings` would trace the network again for."""
    return jax.tree.map(lambda leaf: leaf.sharding, state)


def abstract_params(model: network.Transformer, partitioner: Partitioner):
    """Shapes, dtypes and shardings of the parameters alone."""
    boxed = jax.eval_shape(lambda key: network.boxed_params(model, key), jax.random.key(0))
    return _with_shardings(nn.unbox(boxed), partitioner.shardings(boxed))


def _with_shardings(shapes, layout):
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        shapes,
        layout,
    )
