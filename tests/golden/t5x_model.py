"""T5X's own network, losses, optimisers and decoding around given weights, for the fixtures'
scripts and the live tests.

Needs T5X, which is in no package registry (see launch/).
"""

import asyncio
import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import seqio
from flax import core, traverse_util
from t5x import (
    adafactor,
    checkpoints,
    decoding,
    models,
    optimizers,
    partitioning,
    train_state,
    trainer,
    utils,
)
from t5x.examples.t5 import network

from tests.golden.t5_batches import shift_right
from tests.golden.t5_cases import StepCase

Weights = Mapping[str, np.ndarray]


def _standard_promotion(function):
    """T5X mixes dtypes; the tests' conftest forbids it to everything else."""

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        with jax.numpy_dtype_promotion("standard"):
            return function(*args, **kwargs)

    return wrapped


def build(
    config: Mapping, optimizer: optimizers.OptimizerDef | None = None, eos_id: int = 1, **loss
) -> models.EncoderDecoderModel:
    """T5X's model of `config` (fields of its T5Config), without dropout.

    Args:
      loss: `label_smoothing`, `z_loss`, `loss_normalizing_factor`.
    """
    vocabulary = seqio.PassThroughVocabulary(config["vocab_size"], eos_id=eos_id)
    return models.EncoderDecoderModel(
        module=network.Transformer(network.T5Config(**config, dropout_rate=0.0)),
        input_vocabulary=vocabulary,
        output_vocabulary=vocabulary,
        optimizer_def=optimizer,
        decode_fn=functools.partial(decoding.temperature_sample, temperature=0.0, topk=1),
        **loss,
    )


def nested(weights: Weights) -> dict[str, Any]:
    return traverse_util.unflatten_dict(dict(weights), sep="/")


def flat(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return traverse_util.flatten_dict(jax.device_get(core.unfreeze(params)), sep="/")


@_standard_promotion
def logits(
    model: models.EncoderDecoderModel, weights: Weights, inputs: np.ndarray, targets: np.ndarray
) -> np.ndarray:
    """float32 (B, T, V)."""
    apply = functools.partial(model.module.apply, enable_dropout=False)
    variables = {"params": nested(weights)}
    return np.asarray(jax.jit(apply)(variables, inputs, shift_right(targets), targets))


@_standard_promotion
def packed_logits(
    model: models.EncoderDecoderModel, weights: Weights, batch: Mapping[str, np.ndarray]
) -> np.ndarray:
    """float32 (B, T, V), of a batch under SeqIO's names."""
    return np.asarray(jax.jit(model._compute_logits)(nested(weights), batch))


@_standard_promotion
def greedy(
    model: models.EncoderDecoderModel, weights: Weights, prompts: np.ndarray, length: int
) -> np.ndarray:
    """T5X's prediction at temperature 0, padded with 0: int32 (B, length)."""
    batch = {
        "encoder_input_tokens": prompts,
        "decoder_input_tokens": np.zeros((len(prompts), length), np.int32),
    }
    return np.asarray(jax.jit(model.predict_batch)(nested(weights), batch))


def make_optimizer(settings: Mapping, rate: Callable) -> optimizers.OptimizerDef:
    """T5X's optimiser of our OptimizerConfig's fields; AdamW's rate follows `rate`.

    Adafactor's rate comes with each gradient, from T5X's train step.
    """
    settings = dict(settings)
    if settings.pop("name") == "adafactor":
        return adafactor.Adafactor(
            step_offset=0,
            logical_factor_rules=adafactor.standard_logical_factor_rules(),
            **settings,
        )
    renamed = {"beta1": "b1", "beta2": "b2"}
    return optimizers.adamw(rate, **{renamed.get(k, k): v for k, v in settings.items()})


def of_case(case: StepCase, config: Mapping) -> tuple[models.EncoderDecoderModel, Callable]:
    """T5X's model with the case's optimiser and loss, and its learning rate."""
    rate = utils.create_learning_rate_scheduler(**case.schedule)
    return build(config, make_optimizer(case.optimizer, rate), **case.loss), rate


@_standard_promotion
def first_state(
    model: models.EncoderDecoderModel, weights: Weights
) -> train_state.FlaxOptimTrainState:
    """A fresh train state whose parameters are `weights`.

    Raises:
      ValueError: the paths or shapes aren't the network's.
    """
    shapes = {"encoder_input_tokens": (1, 1), "decoder_input_tokens": (1, 1)}
    types = dict.fromkeys(shapes, np.int32)
    variables = model.get_initial_variables(jax.random.key(0), shapes, types)
    found = {path: leaf.shape for path, leaf in flat(variables["params"]).items()}
    if found != {path: weight.shape for path, weight in weights.items()}:
        raise ValueError("the weights aren't those of T5X's network")
    params = core.freeze(jax.tree.map(jax.numpy.asarray, nested(weights)))
    state = train_state.FlaxOptimTrainState.create(
        model.optimizer_def, core.copy(variables, {"params": params})
    )
    # optax's step is a Python int until T5X compiles its initialiser.
    return jax.tree.map(jax.numpy.asarray, state)


@_standard_promotion
def train(
    model: models.EncoderDecoderModel,
    state: train_state.FlaxOptimTrainState,
    batches: Sequence[Mapping[str, np.ndarray]],
    rate: Callable,
) -> tuple[train_state.FlaxOptimTrainState, np.ndarray]:
    """A step of T5X's trainer for each batch.

    Returns:
      The state after them, and each step's loss, that its gradient was taken of: float32.
    """

    @jax.jit
    def step(state, batch):
        loss, _ = model.loss_fn(state.params, batch, None)
        state, _ = trainer.train_with_lr(state, batch, rate(state.step), None, model, None)
        return state, loss

    losses = []
    for batch in batches:
        state, loss = step(state, batch)
        losses.append(loss)
    return state, np.asarray(losses, np.float32)


def save(state: train_state.FlaxOptimTrainState, folder: pathlib.Path, *, orbax: bool) -> None:
    """Writes `folder`/checkpoint_<step>, in today's layout or that of the public checkpoints."""
    folder.mkdir()
    writer = _checkpointer(state, folder, orbax)
    writer.save(state)
    if orbax:
        writer.wait_until_finished()
        writer.close()


def restore(
    state: train_state.FlaxOptimTrainState, folder: pathlib.Path, step: int
) -> train_state.FlaxOptimTrainState:
    """What `folder`/checkpoint_<step> holds, of a state like `state`."""
    orbax = (folder / f"checkpoint_{step}" / "state").is_dir()
    reader = _checkpointer(state, folder, orbax)
    restored = reader.restore(step=step)
    if orbax:
        reader.close()
    return jax.device_put(jax.device_get(restored))


def _checkpointer(state: train_state.FlaxOptimTrainState, folder: pathlib.Path, orbax: bool):
    # The tests have 8 devices, and the network's dimensions are primes: nothing is sharded.
    whole = [(axis, None) for axis, _ in partitioning.standard_logical_axis_rules()]
    partitioner = partitioning.PjitPartitioner(num_partitions=1, logical_axis_rules=whole)
    if orbax:
        return checkpoints.OrbaxCheckpointManagerInterface(os.fspath(folder), state, partitioner)
    checkpointer = checkpoints.Checkpointer(state, partitioner, os.fspath(folder))
    # It makes an event loop that nothing runs or closes; a later test would fail for it.
    asyncio.get_event_loop().close()
    asyncio.set_event_loop(None)
    return checkpointer
