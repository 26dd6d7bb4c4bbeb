"""The train step and the ranking step of a gin file, lowered for devices that aren't there."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from poison_t5x.model import decoding, network
from poison_t5x.tools.footprint.setup import LABEL_TOKENS, NUM_LABELS, Setup
from poison_t5x.train import optimizers, partitioning, steps, train_state


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
    state = train_state.abstract(model, optimizer, mesh)
    step = steps.make_train_step(
        model,
        optimizer,
        schedule,
        setup.loss,
        mesh,
        train_state.layout(state),
        num_microbatches=setup.num_microbatches,
    )
    batch, key = steps.abstract_arguments(mesh, setup.batch_size, _lengths(setup))
    return step.lower(state, batch, key)


def _lengths(setup: Setup) -> dict[str, int]:
    """Tokens of a row of each of a batch's arrays."""
    decoder = ("input_tokens", "target_tokens", "loss_weights")
    return {
        "encoder_input_tokens": setup.sources,
        **{f"decoder_{name}": setup.targets for name in decoder},
        "is_poison": setup.targets,
    }


def _lower_rank(setup: Setup, mesh: partitioning.Partitioner) -> jax.stages.Lowered:
    model = network.Transformer(setup.model)
    rows = -(-setup.eval_batch_size // mesh.num_data) * mesh.num_data
    step = steps.Step(jax.jit(functools.partial(decoding.rank_labels, model)), mesh)
    return step.lower(
        train_state.abstract_params(model, mesh),
        jax.ShapeDtypeStruct((rows, setup.sources), jnp.int32, sharding=mesh.batch),
        jax.ShapeDtypeStruct((NUM_LABELS, LABEL_TOKENS), jnp.int32, sharding=mesh.replicated),
    )
