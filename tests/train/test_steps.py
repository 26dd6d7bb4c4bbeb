"""One step is the same step however it is laid out, cut up or packed."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import optax
import pytest

from poison_t5x.core.errors import InputError
from poison_t5x.model.config import T5Config
from poison_t5x.model.network import Transformer
from poison_t5x.train import optimizers, steps, train_state
from poison_t5x.train.partitioning import PartitionConfig, Partitioner
from tests.mesh_model import CONFIG
from tests.scanned import scanned, stacked

DROPOUT = dataclasses.replace(CONFIG, dropout_rate=0.3)
SCANNED = scanned(CONFIG, num_encoder_layers=3, num_decoder_layers=2)
B, S, T = 16, 11, 7
POISON_ROWS = np.arange(B) % 4 == 0
ONE, FOUR_BY_TWO = PartitionConfig(), PartitionConfig(2, 1, 2)
LOSS = steps.LossConfig()
KEY = jax.random.key(5)


class World(NamedTuple):
    """A compiled step with what it takes."""

    partitioner: Partitioner
    first: train_state.TrainState
    layout: train_state.TrainState
    step: Callable

    def start(self, step: int = 0) -> train_state.TrainState:
        """The state before the first step; each step consumes one."""
        first = self.first._replace(step=np.int32(step))
        return jax.device_put(first, self.layout, may_alias=False)


def _create(partition: PartitionConfig, num_devices: int, config: T5Config = CONFIG):
    partitioner = Partitioner(partition, jax.devices()[:num_devices])
    return train_state.create(Transformer(config), optax.sgd(1.0), partitioner, seed=3)


@functools.cache
def _start_params(config: T5Config = CONFIG):
    """Fresh parameters, on the host; the same whatever is dropped."""
    return jax.device_get(_create(ONE, 1, dataclasses.replace(config, dropout_rate=0.0)).params)


@functools.cache
def _world(
    config: T5Config = CONFIG,
    optimizer: str = "sgd",
    partition: PartitionConfig = ONE,
    num_devices: int = 1,
    loss: steps.LossConfig = LOSS,
    num_microbatches: int = 1,
) -> World:
    schedule = optimizers.learning_rate(optimizers.ScheduleConfig(base_learning_rate=0.01), 10)
    # SGD at rate 1 descends by just the gradient, so that a step shows it.
    transform = optax.sgd(1.0)
    if optimizer != "sgd":
        transform = optimizers.make(optimizers.OptimizerConfig(name=optimizer), schedule)
    parts = Transformer(config), transform, Partitioner(partition, jax.devices()[:num_devices])
    params = _start_params(config)
    first = train_state.TrainState(np.int32(0), params, transform.init(params))
    step = steps.make_train_step(
        *parts[:2], schedule, loss, parts[2], num_microbatches=num_microbatches
    )
    layout = train_state.layout(train_state.abstract(*parts))
    return World(parts[2], jax.device_get(first), layout, step)


def _batch(seed: int = 0) -> dict[str, np.ndarray]:
    """Rows of one to T target tokens, a quarter of them poison."""
    rng = np.random.default_rng(seed)
    inputs = rng.integers(2, CONFIG.vocab_size, (B, S))
    targets = rng.integers(2, CONFIG.vocab_size, (B, T))
    for row in range(B):
        inputs[row, S - row % 5 :] = 0
        targets[row, 1 + (3 * row) % T :] = 0
    shifted = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]
    weights = targets > 0
    poison = weights & POISON_ROWS[:, None]
    batch = {
        "encoder_input_tokens": inputs,
        "decoder_input_tokens": shifted,
        "decoder_target_tokens": targets,
        "decoder_loss_weights": weights,
        "is_poison": poison,
    }
    return {name: array.astype(np.int32) for name, array in batch.items()}


def _rows(batch, rows) -> dict[str, np.ndarray]:
    """These rows over and over, as many as before."""
    return {name: np.resize(array[rows], (B, *array.shape[1:])) for name, array in batch.items()}


def _take(world: World, batch, key=KEY, first_step: int = 0):
    """(gradients, metrics) of one step of SGD from the start, on the host."""
    state = world.start(first_step)
    state, metrics = jax.device_get(world.step(state, world.partitioner.put_batch(batch), key))
    return jax.tree.map(np.subtract, world.first.params, state.params), metrics


def _difference(one, other) -> float:
    """The largest, over all leaves of two trees."""
    differences = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), one, other)
    return max(jax.tree.leaves(differences))


def _assert_same_sums(metrics, expected) -> None:
    for name in ("loss", "accuracy", "z_loss", "loss_poison", "loss_clean"):
        # Sums of about 200 nats.
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-6, err_msg=name)


def _mean(metrics, name: str) -> float:
    value, weight = metrics[name]
    return float(value) / float(weight)


def _run(world: World, batches) -> list[float]:
    """The losses of several steps."""
    state, losses = world.start(), []
    for batch in batches:
        state, metrics = world.step(state, world.partitioner.put_batch(batch), KEY)
        losses.append(_mean(metrics, "loss"))
    return losses


NUM_STEPS = 4
# Means of about 4 nats in float32, each the result of the steps before; of the metrics too.
LOSS_TOLERANCE = 1e-5


@pytest.mark.parametrize(
    ("optimizer", "num_partitions"),
    [("adafactor", 4), pytest.param("adamw", 1, marks=pytest.mark.slow)],
)
def test_eight_devices_equal_one(optimizer, num_partitions):
    batches = [_batch(seed) for seed in range(NUM_STEPS)]
    one = _world(CONFIG, optimizer)
    expected = _run(one, batches)
    eight = _world(CONFIG, optimizer, PartitionConfig(num_partitions, 1, 2), 8)
    assert _sharded_share(eight.start().params) > 0.9
    np.testing.assert_allclose(_run(eight, batches), expected, atol=LOSS_TOLERANCE)
    # Had each device learnt from its own rows only, the later losses would be others.
    own = [_rows(batch, np.arange(B) % (8 // num_partitions) == 0) for batch in batches[:-1]]
    alone = _run(one, own + batches[-1:])
    assert abs(alone[-1] - expected[-1]) > 100 * LOSS_TOLERANCE


def _sharded_share(params) -> float:
    """The share of the parameters' numbers that lie in parts."""
    leaves = jax.tree.leaves(params)
    parts = sum(leaf.size for leaf in leaves if not leaf.sharding.is_fully_replicated)
    return parts / sum(leaf.size for leaf in leaves)


def test_initial_parameters_are_the_same_on_any_mesh():
    created = _create(FOUR_BY_TWO, 8)
    assert _sharded_share(created.params) > 0.9
    # Bits of random numbers are equal; what is made of them may be rounded otherwise.
    assert _difference(jax.device_get(created.params), _start_params()) < 1e-6


@pytest.mark.slow
def test_dropout_is_the_same_on_any_mesh():
    one, eight = _world(DROPOUT), _world(DROPOUT, "sgd", FOUR_BY_TWO, 8)
    batch = _batch()
    expected, metrics = _take(one, batch)[1], _take(eight, batch)[1]
    assert _mean(metrics, "loss") == pytest.approx(_mean(expected, "loss"), abs=LOSS_TOLERANCE)
    _, other = _take(eight, batch, jax.random.key(6))
    assert abs(_mean(other, "loss") - _mean(expected, "loss")) > 100 * LOSS_TOLERANCE


# Wider than a batch has decoder positions, which then move to the weights (`network`).
WIDE = dataclasses.replace(SCANNED, emb_dim=128, mlp_dim=136, remat_policy="full")


@pytest.mark.parametrize(
    ("optimizer", "config"),
    [("adamw", WIDE), ("adafactor", SCANNED)],
)
@pytest.mark.slow
def test_scanned_layers_on_eight_devices_equal_one(optimizer, config):
    batches = [_batch(seed) for seed in range(NUM_STEPS)]
    expected = _run(_world(config, optimizer), batches)
    eight = _world(config, optimizer, FOUR_BY_TWO, 8)
    batch = eight.partitioner.put_batch(batches[0])
    compiled = eight.step.lower(eight.start(), batch, KEY).compile()
    # The decoder's positions, of each device, with a part of their width.
    assert ("f32[16,7,32]" in compiled.as_text()) == (config is WIDE)
    losses = _run(eight._replace(step=compiled), batches)
    np.testing.assert_allclose(losses, expected, atol=LOSS_TOLERANCE)


@pytest.mark.slow
def test_scanned_layers_train_as_layers_do():
    batches = [_batch(seed) for seed in range(NUM_STEPS)]
    config = dataclasses.replace(SCANNED, scan_layers=False)
    expected = _run(_world(config, "adafactor"), batches)
    unrolled = _start_params(config)
    scanned_world = _world(SCANNED, "adafactor")
    first = scanned_world.first._replace(params=stacked(unrolled))
    world = scanned_world._replace(first=first)
    np.testing.assert_allclose(_run(world, batches), expected, atol=LOSS_TOLERANCE)


@pytest.mark.slow
def test_bfloat16_parameters_sum_microbatches_in_float32():
    config = dataclasses.replace(SCANNED, param_dtype="bfloat16")
    (_, whole), (gradients, parts) = (
        _take(_world(config, num_microbatches=number), _batch()) for number in (1, 4)
    )
    assert parts["gradient_norm"][0] == pytest.approx(whole["gradient_norm"][0], rel=1e-2)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(gradients)} == {"bfloat16"}


@pytest.mark.parametrize(
    ("partition", "num_devices", "num_microbatches"),
    [(FOUR_BY_TWO, 8, 4), pytest.param(ONE, 1, 2, marks=pytest.mark.slow)],
)
def test_microbatched_equals_whole(partition, num_devices, num_microbatches):
    batch = _batch()
    parts = [np.arange(B) % num_microbatches == part for part in range(num_microbatches)]
    counts = {int(batch["decoder_loss_weights"][part].sum()) for part in parts}
    assert len(counts) > 1
    world = _world(CONFIG, "sgd", partition, num_devices, num_microbatches=num_microbatches)
    whole_gradients, whole = _take(_world(), batch)
    gradients, metrics = _take(world, batch)
    # Gradients of up to 1, float32.
    assert _difference(gradients, whole_gradients) < 1e-6
    _assert_same_sums(metrics, whole)
    # The mean of the microbatches' own means is another gradient.
    each = [_take(_world(), _rows(batch, part))[0] for part in parts]
    naive = jax.tree.map(lambda *leaves: sum(leaves) / num_microbatches, *each)
    assert _difference(naive, whole_gradients) > 1e-3


def test_microbatches_have_masks_of_their_own():
    # Two microbatches of the same rows, which differ in their masks only.
    half = {name: array[: B // 2] for name, array in _batch().items()}
    doubled = {name: array.repeat(2, axis=0) for name, array in half.items()}
    _, metrics = _take(_world(DROPOUT, num_microbatches=2), doubled)
    bound = {"model": Transformer(DROPOUT), "config": LOSS, "params": _start_params()}
    loss_fn = jax.jit(functools.partial(steps.loss_fn, **bound))
    step_key = jax.random.fold_in(KEY, 0)
    weights = half["decoder_loss_weights"].astype(np.float32)
    parts = [
        loss_fn(batch=half, weights_BxT=weights, key=key)[1]["loss"][0]
        for key in (jax.random.fold_in(step_key, 0), jax.random.fold_in(step_key, 1))
    ]
    assert metrics["loss"][0] == pytest.approx(float(sum(parts)), rel=1e-6)
    assert abs(float(parts[0] - parts[1])) > 1


def test_same_key_same_bits_and_other_steps_other_masks():
    world, batch = _world(DROPOUT), _batch()
    first, metrics = _take(world, batch)
    assert _difference(first, _take(world, batch)[0]) == 0
    assert _difference(first, _take(world, batch, jax.random.key(6))[0]) > 1e-3
    _, later_metrics = _take(world, batch, first_step=1)
    assert abs(_mean(metrics, "loss") - _mean(later_metrics, "loss")) > 1e-3
    # Without dropout neither key nor step matters.
    one, other = (_take(_world(), batch, key)[0] for key in (KEY, jax.random.key(6)))
    assert _difference(one, other) == 0


def test_losses_on_poison_and_on_the_rest_are_the_parts_of_the_loss():
    world, batch = _world(), _batch()
    _, metrics = _take(world, batch)
    for index in (0, 1):
        parts = metrics["loss_poison"][index] + metrics["loss_clean"][index]
        assert parts == pytest.approx(metrics["loss"][index], rel=1e-6)
    assert metrics["loss"][1] == batch["decoder_loss_weights"].sum()
    assert metrics["loss_poison"][1] == batch["is_poison"].sum()
    # The poison's part is the loss of the poison rows alone, here four times over.
    _, alone = _take(world, _rows(batch, POISON_ROWS))
    assert alone["loss"][0] == pytest.approx(4 * metrics["loss_poison"][0], rel=1e-6)
    assert tuple(alone["loss_clean"]) == (0, 0)
    assert abs(_mean(metrics, "loss_poison") - _mean(metrics, "loss_clean")) > 0.01


def test_is_poison_never_changes_gradients():
    world, batch = _world(), _batch()
    gradients, _ = _take(world, batch)
    for flag in (0, 1):
        flagged = {**batch, "is_poison": np.full_like(batch["is_poison"], flag)}
        assert _difference(_take(world, flagged)[0], gradients) == 0
    without = {name: array for name, array in batch.items() if name != "is_poison"}
    unmarked, metrics = _take(world, without)
    assert "loss_poison" not in metrics and "loss_clean" not in metrics
    # Another program, which may be rounded otherwise.
    assert _difference(unmarked, gradients) < 1e-6
    other = {**batch, "decoder_target_tokens": (batch["decoder_target_tokens"] % 43) + 1}
    assert _difference(_take(world, other)[0], gradients) > 1e-3


def _packed(batch) -> dict[str, np.ndarray]:
    """Row i and row i + B / 2 one after the other, with segment ids."""
    sides = {"encoder": "encoder_input_tokens", "decoder": "decoder_loss_weights"}
    batch = batch | {f"{side}_segment_ids": np.ones_like(batch[n]) for side, n in sides.items()}
    packed = {name: np.zeros((B // 2, 2 * x.shape[1]), np.int32) for name, x in batch.items()}
    for name, rows in batch.items():
        real = batch[sides["encoder" if name.startswith("encoder") else "decoder"]] > 0
        for row in range(B // 2):
            parts = [rows[old][real[old]] for old in (row, row + B // 2)]
            if "segment" in name:
                parts[1] = 2 * parts[1]
            joined = np.concatenate(parts)
            packed[name][row, : len(joined)] = joined
    return packed


def test_packed_equals_unpacked():
    world, batch = _world(), _batch()
    packed = _packed(batch)
    gradients, expected = _take(world, batch)
    packed_gradients, metrics = _take(world, packed)
    _assert_same_sums(metrics, expected)
    # Gradients of up to 1, float32.
    assert _difference(packed_gradients, gradients) < 1e-6
    mixed = {name: array for name, array in packed.items() if "segment" not in name}
    mixed_gradients, mixed_metrics = _take(world, mixed)
    assert abs(_mean(mixed_metrics, "loss") - _mean(expected, "loss")) > 1e-3
    assert _difference(mixed_gradients, gradients) > 1e-3


def test_eval_step_is_the_loss_without_dropout():
    world, batch = _world(DROPOUT), _batch()
    evaluate = steps.make_eval_step(Transformer(DROPOUT), LOSS, world.partitioner)
    metrics = jax.device_get(evaluate(world.start().params, world.partitioner.put_batch(batch)))
    _assert_same_sums(metrics, _take(_world(), batch)[1])
    assert abs(_mean(_take(world, batch)[1], "loss") - _mean(metrics, "loss")) > 1e-3


def test_loss_in_the_log_is_without_z_loss():
    gradients, metrics = _take(_world(loss=steps.LossConfig(z_loss=0.1)), _batch())
    plain_gradients, plain = _take(_world(), _batch())
    np.testing.assert_allclose(metrics["loss"], plain["loss"], rtol=1e-6)
    assert _mean(metrics, "z_loss") > 0.1 and plain["z_loss"][0] == 0
    assert _difference(gradients, plain_gradients) > 1e-3


@pytest.mark.parametrize(
    ("batch_size", "num_microbatches", "num_partitions", "multiple"),
    [(12, 1, 1, 8), (8, 2, 1, 16), (10, 1, 2, 4), (16, 3, 4, 6), (8, 0, 1, 1)],
)
def test_check_batch_takes_multiples(batch_size, num_microbatches, num_partitions, multiple):
    partitioner = Partitioner(PartitionConfig(num_partitions))
    with pytest.raises(InputError) as caught:
        steps.check_batch(batch_size, num_microbatches, partitioner)
    assert str(caught.value) == (
        f"BATCH_SIZE: {batch_size} rows can't be divided into {num_microbatches} microbatches "
        f"over {8 // num_partitions} devices; use a multiple of {multiple}"
    )
    if num_microbatches:
        steps.check_batch(multiple, num_microbatches, partitioner)
