"""Our logits and greedy outputs against T5X's and transformers', from the fixtures of golden/t5."""

import pathlib

import numpy as np
import pytest

from tests.golden.t5_weights import T5_VARIANTS, draw_weights
from tests.parity import ours

FOLDER = pathlib.Path(__file__).parents[1] / "golden" / "t5"
LIBRARIES = ("t5x", "huggingface")
UPDATE = "if the change was meant: see tests/golden/make_t5_fixtures.py"


@pytest.fixture(name="golden", params=T5_VARIANTS, scope="module")
def _golden(request):
    """(config, weights, what the fixture holds)."""
    with np.load(FOLDER / request.param / "expected.npz") as arrays:
        held = dict(arrays)
    weights = {
        key.removeprefix("params/"): array
        for key, array in held.items()
        if key.startswith("params/")
    }
    return T5_VARIANTS[request.param], weights, held


def _logits(config, weights, held, inputs=None) -> np.ndarray:
    """Ours, where the fixture holds theirs."""
    inputs = held["inputs"] if inputs is None else inputs
    logits_BxTxV = ours.logits(config, weights, inputs, held["targets"])
    return logits_BxTxV[held["rows"], held["positions"]]


def test_the_fixtures_weights_are_the_modules(golden):
    config, weights, _ = golden
    drawn = draw_weights(config)
    assert drawn.keys() == weights.keys()
    for path, weight in drawn.items():
        np.testing.assert_array_equal(weight, weights[path], strict=True, err_msg=path + UPDATE)


def test_logits_are_theirs(golden):
    config, weights, held = golden
    own = _logits(config, weights, held)
    # Padding in both, and logits of order 1 to 10.
    assert (held["inputs"] == 0).any() and (held["targets"] == 0).any()
    assert 3.0 < np.abs(held["logits/t5x"]).max() < 30.0
    for library in LIBRARIES:
        difference = ours.relative_difference(own, held[f"logits/{library}"])
        assert difference < ours.RELATIVE_TOLERANCE, f"{library}: {UPDATE}"


def test_a_part_left_out_is_seen(golden):
    config, weights, held = golden
    changed = {
        f"{stack}/relpos_bias/rel_embedding": np.zeros((config["num_heads"], 32), np.float32)
        for stack in ("encoder", "decoder")
    }
    spoilt = [_logits(config, weights | {path: zeros}, held) for path, zeros in changed.items()]
    unpadded = np.where(held["inputs"] == 0, 2, held["inputs"])
    spoilt.append(_logits(config, weights, held, inputs=unpadded))
    for own in spoilt:
        difference = ours.relative_difference(own, held["logits/t5x"])
        assert difference > 100 * ours.RELATIVE_TOLERANCE


def test_greedy_outputs_are_theirs(golden):
    config, weights, held = golden
    eos_id, expected = int(held["eos_id"]), held["greedy/t5x"]
    own = ours.greedy(config, weights, held["prompts"], eos_id, expected.shape[1])
    for library in LIBRARIES:
        np.testing.assert_array_equal(own, held[f"greedy/{library}"], err_msg=UPDATE)
    # Some rows end, some run into the length, and they don't all say the same.
    ended = (expected == eos_id).any(axis=1)
    assert ended.any() and not ended.all()
    assert len(np.unique(expected, axis=0)) > len(expected) // 2
