"""Ten steps of ours against ten of T5X's own trainer, from the fixture golden/t5_steps.npz."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from poison_t5x.train import optimizers
from tests.golden.t5_cases import CASES, movement
from tests.golden.t5_weights import draw_weights
from tests.parity import ours

FIXTURE = pathlib.Path(__file__).parents[1] / "golden" / "t5_steps.npz"
UPDATE = "if the change was meant: see tests/golden/make_t5_steps.py"


def _differences(name: str, *, scan_layers: bool = False, **changes) -> tuple[float, np.ndarray]:
    """Of the losses, relative; and of each parameter's movement, in norms of T5X's."""
    config, case = CASES[name]
    for part, change in changes.items():
        case = dataclasses.replace(case, **{part: dict(getattr(case, part)) | change})
    weights = draw_weights(config)
    batches = case.batches(config)
    losses, after = ours.train(config, weights, case, batches, scan_layers=scan_layers)
    with np.load(FIXTURE) as held:
        expected, expected_moved = held[f"{name}/losses"], held[f"{name}/movement"]
    assert expected.max() - expected.min() > 1.0
    moved = np.stack(list(movement(weights, after).values()))
    differences = np.abs(moved - expected_moved).max(axis=1) / expected_moved[:, 0]
    return float(np.abs(losses / expected - 1).max()), differences


# Between them: both optimisers, packed and not, each loss setting, factored, scanned.
FAST = ("adamw_packed", "adafactor_packed_smoothed", "adafactor_wide")


@pytest.mark.parametrize(
    ("name", "scan_layers"),
    [(name, False) for name in FAST]
    + [("adafactor", True)]
    + [
        pytest.param(*case, marks=pytest.mark.slow)
        for case in [(name, False) for name in CASES if name not in FAST]
        + [("adamw_smoothed", True), ("adafactor_wide", True)]
    ],
)
def test_ten_steps_are_t5xs(name, scan_layers):
    loss, moved = _differences(name, scan_layers=scan_layers)
    assert loss < ours.RELATIVE_TOLERANCE, UPDATE
    assert moved.max() < ours.MOVEMENT_TOLERANCE, UPDATE


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        pytest.param("adamw_packed", {"loss": {"z_loss": 0.0}}, marks=pytest.mark.slow),
        ("adafactor_wide", {"optimizer": {"clipping_threshold": None}}),
    ],
)
def test_another_setting_is_seen(name, changes):
    loss, moved = _differences(name, **changes)
    assert loss > 2 * ours.RELATIVE_TOLERANCE
    assert moved.max() > 2 * ours.MOVEMENT_TOLERANCE


@pytest.mark.slow
def test_a_stack_taken_for_one_tensor_is_seen(monkeypatch):
    monkeypatch.setattr(optimizers, "per_layer", lambda inner: inner)
    loss, moved = _differences("adafactor", scan_layers=True)
    assert loss > 2 * ours.RELATIVE_TOLERANCE
    assert moved.max() > 2 * ours.MOVEMENT_TOLERANCE


@pytest.mark.parametrize(("name", "factored"), [("adafactor", False), ("adafactor_wide", True)])
def test_adafactor_factors_the_wide_network_alone(name, factored):
    config, case = CASES[name]
    optimizer = optimizers.make(optimizers.OptimizerConfig(**case.optimizer), lambda step: 0.1)
    weights = draw_weights(config)
    state = jax.tree.leaves(jax.eval_shape(optimizer.init, weights))
    num_held = sum(leaf.size for leaf in state)
    num_weights = sum(weight.size for weight in weights.values())
    assert num_held < 0.1 * num_weights if factored else num_held >= num_weights
