"""Ours against the T5X that is installed, on weights that no fixture holds; and T5X reads the
fixtures' checkpoints."""

import pathlib
import warnings

import numpy as np
import pytest

with warnings.catch_warnings():
    # T5X's own, and those of what it imports.
    warnings.simplefilter("ignore")
    pytest.importorskip("t5x", reason="T5X isn't installed (launch/t5x.sh installs it)")
    from tests.golden import make_t5_steps, t5x_model

from tests.golden.t5_cases import CASES, SAVED, SAVED_STEP, movement
from tests.golden.t5_weights import T5_CONFIGS, T5_VARIANTS, WIDE, draw_weights
from tests.parity import ours

pytestmark = pytest.mark.filterwarnings("ignore")
FOLDER = pathlib.Path(__file__).parents[1] / "golden" / "t5"


@pytest.mark.parametrize("variant", ours.DEEP)
def test_logits_and_greedy_outputs_are_t5xs(variant):
    config = ours.DEEP[variant]
    weights, model = draw_weights(config, ours.SEED), t5x_model.build(config)
    ours.assert_outputs_are(
        lambda *tokens: t5x_model.logits(model, weights, *tokens),
        lambda prompts, _, length: t5x_model.greedy(model, weights, prompts, length),
        *(config, weights),
    )


# Of several layers, so that scanned ones have something to stack.
_DEEP_CASES = {
    f"{name}_deep": (config | {"num_encoder_layers": 2, "num_decoder_layers": 3}, case)
    for name, (config, case) in CASES.items()
    if name.endswith("_wide")
}


@pytest.mark.parametrize(
    ("name", "scan_layers"),
    [(name, False) for name in CASES]
    + [(name, True) for name in ("adamw", "adafactor", *_DEEP_CASES)],
)
def test_ten_steps_are_t5xs(name, scan_layers):
    config, case = (CASES | _DEEP_CASES)[name]
    weights = draw_weights(config, ours.SEED)
    losses, moved = make_t5_steps.run(config, case, ours.SEED)
    batches = case.batches(config)
    own, after = ours.train(config, weights, case, batches, scan_layers=scan_layers)
    assert np.abs(own / losses - 1).max() < ours.RELATIVE_TOLERANCE
    for path, row in movement(weights, after).items():
        difference = np.abs(row - moved[path]).max() / moved[path][0]
        assert difference < ours.MOVEMENT_TOLERANCE, path


def test_packed_logits_are_t5xs():
    config = T5_CONFIGS["v1_1"]
    weights = draw_weights(config, ours.SEED)
    case = CASES["adamw_packed"][1]
    batch = case.batches(config)[0]
    segments = batch["decoder_segment_ids"]
    own = ours.packed_logits(config, weights, batch)[segments > 0]
    theirs = t5x_model.packed_logits(t5x_model.build(config), weights, batch)[segments > 0]
    assert ours.relative_difference(own, theirs) < ours.RELATIVE_TOLERANCE


@pytest.mark.parametrize(
    ("folder", "optimizer"),
    [(f"{name}/t5x", "adafactor") for name in (*T5_VARIANTS, "wide")]
    + [("v1_1_untied/t5x_orbax", "adafactor")]
    + [("v1_0_tied/t5x_adamw", "adamw"), ("v1_0_tied/t5x_orbax_adamw", "adamw")],
)
def test_t5x_reads_the_fixtures_and_goes_on_from_them(folder, optimizer):
    name = folder.split("/")[0]
    config, case = (T5_VARIANTS | {"wide": WIDE})[name], SAVED[optimizer]
    weights = draw_weights(config)
    model, rate = t5x_model.of_case(case, config)
    empty = t5x_model.first_state(model, weights)
    state = t5x_model.restore(empty, FOLDER / folder, SAVED_STEP)
    assert int(state.step) == SAVED_STEP
    for path, weight in t5x_model.flat(state.params).items():
        np.testing.assert_array_equal(weight, weights[path], strict=True, err_msg=path)
    batches = case.batches(config)[SAVED_STEP:]
    _, losses = t5x_model.train(model, state, batches, rate)
    with np.load(FOLDER / name / "expected.npz") as held:
        np.testing.assert_allclose(losses, held[f"next_losses/{optimizer}"], rtol=1e-5)
