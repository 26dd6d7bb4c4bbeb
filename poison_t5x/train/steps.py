"""The train step: one optimiser update from one batch, whole or in microbatches."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from poison_t5x.core import errors, settings
from poison_t5x.model import losses, network
from poison_t5x.train import train_state
from poison_t5x.train.partitioning import Partitioner
from poison_t5x.train.train_state import TrainState

Batch = Mapping[str, jax.Array]
# Each metric is a (sum, weight) pair of float32 scalars, divided only when it is written.
Metrics = dict[str, tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True)
class LossConfig(settings.Settings):
    """T5X's loss settings: see `losses`."""

    label_smoothing: settings.Share = 0.0
    z_loss: settings.NotNegative = 0.0
    loss_normalizing_factor: losses.Factor = "NUM_REAL_TARGET_TOKENS"


def loss_fn(
    params, batch: Batch, model: network.Transformer, config: LossConfig, key=None, weights_BxT=None
) -> tuple[jax.Array, Metrics]:
    """The loss to descend, a weighted sum over tokens, and the metrics beside it.

    Args:
      batch: with 'is_poison' (B, T), int32 as all, its and the other tokens' losses are told apart.
      key: for dropout, of which there is none without it.
      weights_BxT: `losses.normalized_weights` of the whole batch, where this is a part.
    """
    if weights_BxT is None:
        weights_BxT = losses.normalized_weights(batch, config.loss_normalizing_factor)
    logits_BxTxV = network.batch_logits(model, params, batch, key)
    targets_BxT = batch["decoder_target_tokens"]
    losses_BxT, z_losses_BxT = losses.token_losses(
        logits_BxTxV, targets_BxT, label_smoothing=config.label_smoothing, z_loss=config.z_loss
    )
    real_BxT = batch["decoder_loss_weights"].astype(jnp.float32)
    plain_BxT = losses_BxT - z_losses_BxT
    correct_BxT = (jnp.argmax(logits_BxTxV, axis=-1) == targets_BxT).astype(jnp.float32)
    metrics = {
        "loss": _pair(plain_BxT, real_BxT),
        "z_loss": _pair(z_losses_BxT, real_BxT),
        "accuracy": _pair(correct_BxT, real_BxT),
    }
    if "is_poison" in batch:
        poison_BxT = batch["is_poison"].astype(jnp.float32) * real_BxT
        metrics["loss_poison"] = _pair(plain_BxT, poison_BxT)
        metrics["loss_clean"] = _pair(plain_BxT, real_BxT - poison_BxT)
    return jnp.sum(losses_BxT * weights_BxT), metrics


def _pair(values_BxT: jax.Array, weights_BxT: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.sum(values_BxT * weights_BxT), jnp.sum(weights_BxT)


def _gradients(params, batch: Batch, key, model, config: LossConfig, num_microbatches: int):
    """Gradients and metrics of a whole batch, summed over its microbatches."""
    # Normalised over the whole batch, so that the number of microbatches doesn't change the sum.
    weights_BxT = losses.normalized_weights(batch, config.loss_normalizing_factor)
    gradient = jax.grad(functools.partial(loss_fn, model=model, config=config), has_aux=True)
    if num_microbatches == 1:
        return gradient(params, batch, key=key, weights_BxT=weights_BxT)

    def of_part(part):
        index, rows, weights = part
        part_key = jax.random.fold_in(key, index)
        return gradient(params, rows, key=part_key, weights_BxT=weights)

    def body(total, part):
        return jax.tree.map(lambda sum_, x: sum_ + x.astype(sum_.dtype), total, of_part(part)), None

    split = network.split_rows((dict(batch), weights_BxT), num_microbatches)
    microbatches = jnp.arange(num_microbatches), *split
    shapes = jax.eval_shape(of_part, jax.tree.map(lambda x: x[0], microbatches))
    # One float32 sum, into which each microbatch's gradients go.
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), shapes)
    return jax.lax.scan(body, zeros, microbatches)[0]


class Step:
    """A jitted function that is traced, compiled and called on its partitioner's mesh."""

    def __init__(self, jitted, partitioner: Partitioner):
        self._jitted = jitted
        self._partitioner = partitioner

    def __call__(self, *arguments):
        with self._partitioner.scope():
            return self._jitted(*arguments)

    def lower(self, *arguments) -> jax.stages.Lowered:
        with self._partitioner.scope():
            return self._jitted.lower(*arguments)


def abstract_arguments(
    partitioner: Partitioner, batch_size: int, lengths: Mapping[str, int]
) -> tuple[Batch, jax.ShapeDtypeStruct]:
    """A batch and a key to lower a train step with; `lengths`: array -> tokens of a row."""
    batch = {
        name: jax.ShapeDtypeStruct((batch_size, length), jnp.int32, sharding=partitioner.batch)
        for name, length in lengths.items()
    }
    key = jax.eval_shape(lambda: jax.random.key(0))
    return batch, jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=partitioner.replicated)


def make_train_step(
    model: network.Transformer,
    optimizer: optax.GradientTransformation,
    learning_rate: Callable,
    config: LossConfig,
    partitioner: Partitioner,
    *,
    num_microbatches: int = 1,
) -> Step:
    """(state, batch, key) -> (state, metrics). The state that goes in is consumed.

    `key` is one for the whole run, which the step is folded into; microbatches need less memory.
    """

    def step(state: TrainState, batch: Batch, key: jax.Array):
        step_key = jax.random.fold_in(key, state.step)
        gradients, metrics = _gradients(
            state.params, batch, step_key, model, config, num_microbatches
        )
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer powers
            updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
        one = jnp.ones((), jnp.float32)
        metrics["gradient_norm"] = (optax.tree.norm(gradients), one)
        metrics["parameter_norm"] = (optax.tree.norm(params), one)
        metrics["learning_rate"] = (learning_rate(state.step), one)
        return TrainState(state.step + 1, params, opt_state), metrics

    layout = train_state.layout(train_state.abstract(model, optimizer, partitioner))
    compiled = jax.jit(
        step,
        in_shardings=(layout, partitioner.batch, partitioner.replicated),
        out_shardings=(layout, partitioner.replicated),
        donate_argnums=0,
    )
    return Step(compiled, partitioner)


def make_eval_step(
    model: network.Transformer, config: LossConfig, partitioner: Partitioner
) -> Step:
    """(params, batch) -> metrics, teacher-forced and without dropout."""

    layout = train_state.layout(train_state.abstract_params(model, partitioner))
    compiled = jax.jit(
        lambda params, batch: loss_fn(params, batch, model, config)[1],
        in_shardings=(layout, partitioner.batch),
        out_shardings=partitioner.replicated,
    )
    return Step(compiled, partitioner)


def check_batch(batch_size: int, num_microbatches: int, partitioner: Partitioner) -> None:
    """Raises InputError, with the numbers, where rows can't be shared out evenly."""
    parts = num_microbatches * partitioner.num_data
    if num_microbatches < 1 or batch_size % parts:
        raise errors.InputError(
            f"BATCH_SIZE: {batch_size} rows can't be divided into {num_microbatches} microbatches "
            f"over {partitioner.num_data} devices; use a multiple of {max(parts, 1)}"
        )
