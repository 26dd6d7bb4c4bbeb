"""Ours against the transformers that is installed, on weights that no fixture holds; and
transformers reads the fixtures' folders."""

import functools
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

from tests.golden.t5_weights import T5_VARIANTS, draw_weights
from tests.parity import ours

pytestmark = pytest.mark.filterwarnings("ignore")
FOLDER = pathlib.Path(__file__).parents[1] / "golden" / "t5"


@pytest.mark.parametrize("variant", ours.DEEP)
def test_logits_and_greedy_outputs_are_transformers(variant):
    config = ours.DEEP[variant]
    weights = draw_weights(config, ours.SEED)
    model = huggingface_model.build(config, weights)
    theirs = huggingface_model.logits, huggingface_model.greedy
    ours.assert_outputs_are(*(functools.partial(f, model) for f in theirs), config, weights)


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
    own = model.state_dict()
    assert own.keys() == expected.keys()
    for name, tensor in own.items():
        assert tensor.dtype == expected[name].dtype and tensor.equal(expected[name]), name
    with np.load(FOLDER / variant / "expected.npz") as held:
        logits = huggingface_model.logits(model.float(), held["inputs"], held["targets"])
        logits = logits[held["rows"], held["positions"]]
        difference = ours.relative_difference(logits, held["logits/huggingface"])
    # bfloat16 holds 8 bits of a weight.
    assert difference < (0.1 if kind == "huggingface_bfloat16" else 1e-5)
