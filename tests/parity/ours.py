"""Our network, decoding and train step around given weights, as the parity tests run them."""

import functools
import re
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from flax import traverse_util

from poison_t5x.model import losses
from poison_t5x.model.config import T5Config
from poison_t5x.model.decoding import greedy_decode
from poison_t5x.model.network import Transformer
from poison_t5x.train import optimizers, steps, train_state
from poison_t5x.train.partitioning import PartitionConfig, Partitioner
from tests.golden.t5_batches import shift_right
from tests.golden.t5_cases import StepCase
from tests.scanned import stacked

# The issue's, of the largest logit and of each loss. What was seen is about 1e-6.
RELATIVE_TOLERANCE = 1e-4
# Of the norm of a parameter's movement in ten steps. What was seen is 4e-5; eps of 1e-8 instead of
# 1e-6 in AdamW makes 1e-3.
MOVEMENT_TOLERANCE = 5e-4
Weights = Mapping[str, np.ndarray]


def nested(weights: Weights):
    """The parameter tree of weights by T5X's paths."""
    return traverse_util.unflatten_dict(dict(weights), sep="/")


def by_layer(params) -> dict[str, np.ndarray]:
    """A tree with stacked layers as weights by T5X's paths; one without them stays as it is."""
    found = {}
    for path, array in traverse_util.flatten_dict(jax.device_get(params), sep="/").items():
        if match := re.fullmatch(r"(\w+/layers)(/.*)", path):
            found |= {f"{match[1]}_{n}{match[2]}": layer for n, layer in enumerate(array)}
        else:
            found[path] = array
    return found


def logits(config: Mapping, weights: Weights, inputs, targets) -> np.ndarray:
    """float32 (B, T, V)."""
    apply = _compiled(T5Config(**config))
    return np.asarray(apply({"params": nested(weights)}, inputs, shift_right(targets), targets))


def packed_logits(config: Mapping, weights: Weights, batch: Mapping) -> np.ndarray:
    """float32 (B, T, V), of a packed batch under SeqIO's names."""
    inputs = {name: array for name, array in batch.items() if name != "decoder_loss_weights"}
    return np.asarray(_compiled(T5Config(**config))({"params": nested(weights)}, **inputs))


@functools.lru_cache
def _compiled(config: T5Config):
    return jax.jit(functools.partial(Transformer(config).apply, enable_dropout=False))


def greedy(config: Mapping, weights: Weights, prompts, eos_id: int, length: int) -> np.ndarray:
    """int32 (B, length)."""
    decode = functools.partial(
        greedy_decode, Transformer(T5Config(**config)), max_decode_length=length, eos_id=eos_id
    )
    return np.asarray(jax.jit(decode)(nested(weights), prompts))


def relative_difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference of logits, in largest logits."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def train(
    config: Mapping,
    weights: Weights,
    case: StepCase,
    batches: Sequence[Mapping],
    *,
    scan_layers: bool = False,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A train step for each batch, on one device.

    Args:
      weights: a layer each; they are stacked for a network that scans.

    Returns:
      Each step's loss, that its gradient was taken of: float32 (steps,); the weights after them.
    """
    model = Transformer(T5Config(**config, dropout_rate=0.0, scan_layers=scan_layers))
    loss_config = steps.LossConfig(**case.loss)
    rate = optimizers.learning_rate(optimizers.ScheduleConfig(**case.schedule), len(batches))
    optimizer = optimizers.make(optimizers.OptimizerConfig(**case.optimizer), rate)
    partitioner = Partitioner(PartitionConfig(), jax.devices()[:1])
    layout = train_state.layout(train_state.abstract(model, optimizer, partitioner))
    step = steps.make_train_step(model, optimizer, rate, loss_config, partitioner, layout)
    loss = jax.jit(functools.partial(_loss, model=model, config=loss_config))
    tree = stacked(nested(weights)) if scan_layers else nested(weights)
    params = jax.tree.map(jax.numpy.asarray, tree)
    first = train_state.TrainState(np.int32(0), params, optimizer.init(params))
    state = jax.device_put(first, layout, may_alias=False)
    key, found = jax.random.key(0), []
    for batch in batches:
        # Before the step, which consumes the state.
        found.append(float(loss(state.params, batch)))
        state, _ = step(state, batch, key)
    return np.asarray(found, np.float32), by_layer(state.params)


def _loss(params, batch, model, config):
    weights_BxT = losses.normalized_weights(batch, config.loss_normalizing_factor)
    return steps.loss_fn(params, batch, weights_BxT, None, model, config)[0]
