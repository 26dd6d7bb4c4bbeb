"""Ours against the transformers that is installed, on weights that no fixture holds; and
transformers reads the fixtures' folders."""

import pathlib
import warnings

import numpy as np
import pytest

with warnings.catch_warnings():
    # Those of torch and transformers themselves.
    warnings.simplefilter("ignore")
    pytest.importorskip("torch", reason="torch isn't installed")
    transformers = pytest.importorskip("transformers", reason="transformers isn't installed")
    from tests.golden import huggingface_model

from tests.golden.t5_batches import draw_tokens
from tests.golden.t5_weights import T5_VARIANTS, draw_weights
from tests.parity import ours

pytestmark = pytest.mark.filterwarnings("ignore")
FOLDER = pathlib.Path(__file__).parents[1] / "golden" / "t5"
SEED = 1
DEEP = {name: variant | {"num_encoder_layers": 3} for name, variant in T5_VARIANTS.items()}


@pytest.mark.parametrize("variant", DEEP)
def test_logits_and_greedy_outputs_are_transformers(variant):
    config = DEEP[variant]
    weights, vocab_size = draw_weights(config, SEED), config["vocab_size"]
    rng = np.random.default_rng(SEED)
    inputs, targets = (draw_tokens(rng, 2, length, vocab_size) for length in (149, 131))
    prompts = draw_tokens(rng, 7, 19, vocab_size)
    model = huggingface_model.build(config, weights)
    real = targets > 0
    theirs = huggingface_model.logits(model, inputs, targets)[real]
    found = ours.logits(config, weights, inputs, targets)[real]
    assert 3.0 < np.abs(theirs).max() < 30.0
    assert ours.relative_difference(found, theirs) < ours.RELATIVE_TOLERANCE
    np.testing.assert_array_equal(
        ours.greedy(config, weights, prompts, 1, 23),
        huggingface_model.greedy(model, prompts, 1, 23),
    )


@pytest.mark.parametrize("variant", T5_VARIANTS)
@pytest.mark.parametrize("kind", ["huggingface", "huggingface_sharded", "huggingface_bfloat16"])
def test_transformers_reads_the_fixtures(variant, kind):
    folder = FOLDER / variant / kind
    if not folder.exists():
        assert kind != "huggingface"
        pytest.skip(f"only one variant has a {kind}")
    model = transformers.T5ForConditionalGeneration.from_pretrained(folder, dtype="auto").eval()
    expected = huggingface_model.build(T5_VARIANTS[variant], draw_weights(T5_VARIANTS[variant]))
    expected = expected.to(model.dtype).state_dict()
    found = model.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.dtype == expected[name].dtype and tensor.equal(expected[name]), name
    with np.load(FOLDER / variant / "expected.npz") as held:
        logits = huggingface_model.logits(model.float(), held["inputs"], held["targets"])
        logits = logits[held["rows"], held["positions"]]
        difference = ours.relative_difference(logits, held["logits/huggingface"])
    # bfloat16 holds 8 bits of a weight.
    assert difference < (0.1 if kind == "huggingface_bfloat16" else 1e-5)
