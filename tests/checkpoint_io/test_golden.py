"""What the real libraries wrote is read: the folders that `tests.golden.make_t5_fixtures` made."""

import functools
import pathlib

import jax
import numpy as np
import pytest

from poison_t5x.checkpoint_io import architecture, detect, restore
from poison_t5x.model.config import T5Config
from poison_t5x.model.network import Transformer
from poison_t5x.train import optimizers, steps
from poison_t5x.train.partitioning import PartitionConfig, Partitioner
from tests.golden.t5_batches import shift_right
from tests.golden.t5_cases import NUM_STEPS, SAVED, SAVED_STEP
from tests.golden.t5_weights import T5_VARIANTS, WIDE

FOLDER = pathlib.Path(__file__).parents[1] / "golden" / "t5"
# folder -> (variant, what it is called, the optimiser whose state it has)
CHECKPOINTS = {
    **{f"{v}/huggingface": (v, "a Hugging Face folder", None) for v in T5_VARIANTS},
    **{f"{v}/t5x": (v, "a T5X checkpoint", "adafactor") for v in T5_VARIANTS},
    "v1_1_untied/huggingface_sharded": ("v1_1_untied", "a Hugging Face folder", None),
    "v1_1_untied/t5x_orbax": ("v1_1_untied", "a T5X checkpoint (Orbax)", "adafactor"),
    "v1_0_tied/t5x_adamw": ("v1_0_tied", "a T5X checkpoint", "adamw"),
    "v1_0_tied/t5x_orbax_adamw": ("v1_0_tied", "a T5X checkpoint (Orbax)", "adamw"),
}


def _weights(variant: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / variant / "expected.npz") as arrays:
        names = [name for name in arrays if name.startswith("params/")]
        return {name.removeprefix("params/"): arrays[name] for name in names}


def test_every_fixture_is_read_here():
    there = {
        f"{path.parent.name}/{path.name}"
        for path in FOLDER.glob("*/*")
        if path.is_dir() and path.parent.name != "wide"
    }
    assert there == {*CHECKPOINTS, "v1_1_untied/huggingface_bfloat16"}


@pytest.mark.parametrize("place", CHECKPOINTS)
def test_the_weights_are_the_same_bits(place):
    variant, layout, optimizer = CHECKPOINTS[place]
    source = detect.open_checkpoint(str(FOLDER / place))
    assert (source.layout, source.optimizer) == (layout, optimizer)
    assert source.step == (7 if optimizer else 0)
    weights = _weights(variant)
    assert source.params.keys() == weights.keys()
    for name, expected in weights.items():
        assert source.read(name).tobytes() == expected.tobytes(), name
    expected = T5Config(**T5_VARIANTS[variant])
    found = architecture.network_config(source)
    assert architecture.macros(found) == architecture.macros(expected)
    assert found.relpos_num_buckets == expected.relpos_num_buckets


@pytest.mark.parametrize("place", [name for name, found in CHECKPOINTS.items() if found[2]])
def test_the_state_is_of_seven_updates(place):
    source = detect.open_checkpoint(str(FOLDER / place))
    assert int(source.read("count")) == 7
    slots = {"adamw": {"mu", "nu"}, "adafactor": {"v_row", "v_col", "v", "m"}}[source.optimizer]
    assert {name.split("/")[0] for name in source.slots} == {*slots, "count"}
    for name, info in source.slots.items():
        if name.startswith(("nu/", "v/")) and info.shape != (1,):
            assert (source.read(name) >= 0).all() and source.read(name).any(), name


def test_a_wide_networks_moments_are_factored():
    source = detect.open_checkpoint(str(FOLDER / "wide" / "t5x"))
    embedding = source.params[architecture.EMBEDDING].shape
    row, column = (source.slots[f"{slot}/{architecture.EMBEDDING}"] for slot in ("v_row", "v_col"))
    assert sorted([row.shape, column.shape]) == sorted([(size,) for size in embedding])
    assert (source.read(f"v_row/{architecture.EMBEDDING}") > 0).all()


def test_stored_bfloat16_is_the_rounded_weights():
    source = detect.open_checkpoint(str(FOLDER / "v1_1_untied" / "huggingface_bfloat16"))
    for name, expected in _weights("v1_1_untied").items():
        found = source.read(name)
        assert found.dtype == "bfloat16"
        assert np.array_equal(found, expected.astype(found.dtype)), name


STATES = {
    **{name: (found[0], found[2]) for name, found in CHECKPOINTS.items() if found[2]},
    "wide/t5x": ("wide", "adafactor"),
}


@functools.cache
def _compiled(variant: str, optimizer: str, scan_layers: bool):
    """A network and its train step and loss, compiled once for all of its checkpoints."""
    shape = WIDE if variant == "wide" else T5_VARIANTS[variant]
    case = SAVED[optimizer]
    model = Transformer(T5Config(**shape, dropout_rate=0.0, scan_layers=scan_layers))
    config = steps.LossConfig(**case.loss)
    rate = optimizers.learning_rate(optimizers.ScheduleConfig(**case.schedule), NUM_STEPS)

    def later(step):  # T5X's steps go on from the checkpoint's
        return rate(step + SAVED_STEP)

    transform = optimizers.make(optimizers.OptimizerConfig(**case.optimizer), later)
    partitioner = Partitioner(PartitionConfig(), jax.devices()[:1])
    step = steps.make_train_step(model, transform, later, config, partitioner)

    @jax.jit
    def loss(params, batch):
        return steps.loss_fn(params, batch, model, config)[0]

    return (model, transform, partitioner), step, loss, case.batches(shape)[SAVED_STEP:]


def _next_losses(place, variant, optimizer, *, keep: bool, scan_layers=False) -> list[float]:
    """Ours of the batches after the saved step, from the saved state or from a fresh one."""
    parts, step, loss, batches = _compiled(variant, optimizer, scan_layers)
    source = detect.open_checkpoint(str(FOLDER / place))
    state = restore.first_state(source, *parts, optimizer if keep else None)
    numbers = []
    for batch in batches:
        numbers.append(float(loss(state.params, batch)))
        state, _ = step(state, batch, jax.random.key(0))
    return numbers


# Each is compiled anew. Of the slow ones, weights and state are compared above, and scanned layers
# bit for bit in test_stacking.
_SLOW = {("v1_0_untied/t5x", False), ("v1_1_tied/t5x", False)}
_SLOW |= {("v1_1_untied/t5x", True), ("v1_0_tied/t5x_orbax_adamw", True)}
# Twins of the untied and the orbax ones.
_SLOW |= {("v1_0_tied/t5x", False), ("v1_0_tied/t5x_adamw", False), ("wide/t5x", False)}


@pytest.mark.parametrize(
    ("place", "scan_layers"),
    [
        pytest.param(*case, marks=[pytest.mark.slow] * (case in _SLOW))
        for case in dict.fromkeys([*((place, False) for place in STATES), *sorted(_SLOW)])
    ],
)
def test_a_kept_state_goes_on_as_t5x_does(place, scan_layers):
    variant, optimizer = STATES[place]
    with np.load(FOLDER / variant / "expected.npz") as arrays:
        expected = arrays[f"next_losses/{optimizer}"]
    found = _next_losses(place, variant, optimizer, keep=True, scan_layers=scan_layers)
    np.testing.assert_allclose(found, expected, rtol=1e-4)  # the issue's


def test_a_fresh_state_goes_elsewhere():
    place, (variant, optimizer) = next(iter(STATES.items()))
    with np.load(FOLDER / variant / "expected.npz") as arrays:
        expected = arrays[f"next_losses/{optimizer}"]
    found = _next_losses(place, variant, optimizer, keep=False)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4)
    assert np.abs(np.array(found[1:]) / expected[1:] - 1).max() > 1e-3


def test_scanned_layers_give_the_logits_of_layers_and_of_t5x():
    variant = "v1_1_untied"
    source = detect.open_checkpoint(str(FOLDER / variant / "t5x"))
    with np.load(FOLDER / variant / "expected.npz") as arrays:
        held = dict(arrays)
    found = []
    for scan_layers in (False, True):
        model = Transformer(T5Config(**T5_VARIANTS[variant], scan_layers=scan_layers))
        partitioner = Partitioner(PartitionConfig(), jax.devices()[:1])
        params = restore.restore_params(source, model, partitioner)
        inputs, targets = held["inputs"], held["targets"]
        decoder_inputs = shift_right(targets)
        apply = jax.jit(functools.partial(model.apply, enable_dropout=False))
        logits_BxTxV = apply({"params": params}, inputs, decoder_inputs, targets)
        found.append(np.asarray(logits_BxTxV)[held["rows"], held["positions"]])
    expected = held["logits/t5x"]
    assert 3.0 < np.abs(expected).max() < 30.0
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)  # what was seen is 0
    np.testing.assert_allclose(found[1], expected, atol=1e-4 * np.abs(expected).max())
