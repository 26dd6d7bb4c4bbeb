"""The train step and the ranking step of a gin file, lowered for devices that aren't there."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from poison_t5x import optimizers, partitioning, ranking, steps, train_state
from poison_t5x.footprint.setup import LABEL_TOKENS, NUM_LABELS, Setup
from poison_t5x.model import network

PROGRAMS = ("train", "rank")


def partitioner(setup: Setup, devices: Sequence) -> partitioning.Partitioner:
    """The mesh. Raises InputError where devices or rows can't be shared out."""
    found = partitioning.Partitioner(setup.partition, devices)
    steps.check_batch(setup.batch_size, setup.num_microbatches, found)
    return found


def lower(setup: Setup, program: str, mesh: partitioning.Partitioner) -> jax.stages.Lowered:
    """A traced step; `.compile()` is the target's compiler."""
    return (_lower_train if program == "train" else _lower_rank)(setup, mesh)


def _lower_train(setup: Setup, mesh: partitioning.Partitioner) -> jax.stages.Lowered:
    model = network.Transformer(setup.model)
    schedule = optimizers.learning_rate(setup.schedule, setup.total_steps)
    optimizer = optimizers.make(setup.optimizer, schedule)
    layout = train_state.shardings(model, optimizer, mesh)
    step = steps.make_train_step(
        model,
        optimizer,
        schedule,
        setup.loss,
        mesh,
        layout,
        num_microbatches=setup.num_microbatches,
    )
    state = train_state.abstract(model, optimizer, mesh)
    key = jax.eval_shape(lambda: jax.random.key(0))
    key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=mesh.replicated)
    return step.lower(state, _batch(setup, mesh), key)


def _batch(setup: Setup, mesh: partitioning.Partitioner) -> dict[str, jax.ShapeDtypeStruct]:
    def tokens(length: int):
        shape = setup.batch_size, length
        return jax.ShapeDtypeStruct(shape, jnp.int32, sharding=mesh.batch)

    decoder = ("input_tokens", "target_tokens", "loss_weights")
    return {
        "encoder_input_tokens": tokens(setup.sources),
        **{f"decoder_{name}": tokens(setup.targets) for name in decoder},
        "is_poison": tokens(setup.targets),
    }


def _lower_rank(setup: Setup, mesh: partitioning.Partitioner) -> jax.stages.Lowered:
    model = network.Transformer(setup.model)
    rows = -(-setup.eval_batch_size // mesh.num_data) * mesh.num_data
    step = steps.Step(jax.jit(functools.partial(ranking.rank_labels, model)), mesh)
    return step.lower(
        train_state.abstract_params(model, mesh),
        jax.ShapeDtypeStruct((rows, setup.sources), jnp.int32, sharding=mesh.batch),
        jax.ShapeDtypeStruct((NUM_LABELS, LABEL_TOKENS), jnp.int32, sharding=mesh.replicated),
    )
