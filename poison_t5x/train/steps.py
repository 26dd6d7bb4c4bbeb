"""The train step: one optimiser update from one batch, whole or in microbatches."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from poison_t5x.core import checks, errors
from poison_t5x.model import losses, network
from poison_t5x.train.partitioning import Partitioner
from poison_t5x.train.train_state import TrainState

Batch = Mapping[str, jax.Array]
# Each metric is a (sum, weight) pair of float32 scalars, divided only when it is written.
Metrics = dict[str, tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """T5X's loss settings: see `losses`."""

    label_smoothing: float = 0.0
    z_loss: float = 0.0
    loss_normalizing_factor: float | str | None = "NUM_REAL_TARGET_TOKENS"

    def __post_init__(self):
        checks.number("LABEL_SMOOTHING", self.label_smoothing, minimum=0)
        if self.label_smoothing >= 1:
            raise errors.InputError(
                f"LABEL_SMOOTHING: expected less than 1, found {self.label_smoothing!r}"
            )
        checks.number("Z_LOSS", self.z_loss, minimum=0)
        losses.check_factor(self.loss_normalizing_factor)


def loss_fn(
    params, batch: Batch, weights_BxT, key, model: network.Transformer, config: LossConfig
) -> tuple[jax.Array, Metrics]:
    """The loss to descend, a weighted sum over tokens, and the metrics beside it.

    `weights_BxT` are `losses.normalized_weights` of the whole batch, and `key` is for dropout.
    'is_poison' (B, T) of the batch, int32 as all, stays out of the network.
    """
    inputs = {name: batch[name] for name in network.MODEL_INPUTS if name in batch}
    enable_dropout = model.config.dropout_rate > 0
    rngs = {"dropout": key} if enable_dropout else None
    logits_BxTxV = model.apply(
        {"params": params}, **inputs, enable_dropout=enable_dropout, rngs=rngs
    )
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
        return gradient(params, batch, weights_BxT, key)

    def split(x):
        # Every n-th row to one microbatch: each device's rows stay with it.
        rows = x.reshape(x.shape[0] // num_microbatches, num_microbatches, *x.shape[1:])
        return jnp.swapaxes(rows, 0, 1)

    def body(total, microbatch):
        index, part, weights = microbatch
        one = gradient(params, part, weights, jax.random.fold_in(key, index))
        return jax.tree.map(lambda sum_, x: sum_ + x.astype(sum_.dtype), total, one), None

    parts = jax.tree.map(split, dict(batch))
    microbatches = jnp.arange(num_microbatches), parts, split(weights_BxT)
    first = jax.tree.map(lambda x: x[0], microbatches)
    shapes = jax.eval_shape(gradient, params, first[1], first[2], key)
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
    layout: TrainState,
    *,
    num_microbatches: int = 1,
) -> Step:
    """(state, batch, key) -> (state, metrics). The state that goes in is consumed.

    `layout` is `train_state.layout`'s; `key` one for the whole run, which the step is folded into.
    Microbatches need less memory.
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

    compiled = jax.jit(
        step,
        in_shardings=(layout, partitioner.batch, partitioner.replicated),
        out_shardings=(layout, partitioner.replicated),
        donate_argnums=0,
    )
    return Step(compiled, partitioner)


def make_eval_step(
    model: network.Transformer, config: LossConfig, partitioner: Partitioner, layout: TrainState
) -> Step:
    """(params, batch) -> metrics, teacher-forced and without dropout."""
    still = network.Transformer(dataclasses.replace(model.config, dropout_rate=0.0))

    def step(params, batch: Batch):
        weights_BxT = losses.normalized_weights(batch, config.loss_normalizing_factor)
        return loss_fn(params, batch, weights_BxT, None, still, config)[1]

    shardings = layout.params, partitioner.batch
    compiled = jax.jit(step, in_shardings=shardings, out_shardings=partitioner.replicated)
    return Step(compiled, partitioner)


def check_batch(batch_size: int, num_microbatches: int, partitioner: Partitioner) -> None:
    """Raises InputError, with the numbers, where rows can't be shared out evenly."""
    parts = num_microbatches * partitioner.num_data
    if num_microbatches < 1 or batch_size % parts:
        raise errors.InputError(
            f"BATCH_SIZE: {batch_size} rows can't be divided into {num_microbatches} microbatches "
            f"over {partitioner.num_data} devices; use a multiple of {max(parts, 1)}"
        )


def use_compilation_cache(directory: str) -> None:
    """Has JAX keep its compiled programs in a folder or bucket. Raises InputError: not a path."""
    checks.path("COMPILATION_CACHE_DIR", directory)
    jax.config.update("jax_compilation_cache_dir", os.path.expanduser(directory))
    # What compiles in less, in seconds, isn't worth a file.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
