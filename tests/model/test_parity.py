"""Our network against Hugging Face's T5, an independent implementation, on the same weights."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from poison_t5x.decoding import greedy_decode, shift_right
from poison_t5x.model.config import T5Config
from poison_t5x.model.network import Transformer
from tests.golden.t5_weights import T5_CONFIGS, draw_weights

FIXTURE = pathlib.Path(__file__).parents[1] / "golden" / "t5_logits.npz"
# Float32 sums in another order, over 5 layers; what was seen is about 1e-6.
RELATIVE_TOLERANCE = 1e-4
UPDATE = "if the change was meant: python -m tests.golden.make_t5_logits (needs torch)"


@pytest.fixture(name="golden", params=T5_CONFIGS)
def _golden(request):
    """(model, params, what the fixture holds for it)."""
    config = T5_CONFIGS[request.param]
    weights = {tuple(path.split("/")): array for path, array in draw_weights(config).items()}
    params = jax.tree.map(jnp.asarray, traverse_util.unflatten_dict(weights))
    with np.load(FIXTURE) as arrays:
        prefix = f"{request.param}/"
        held = {k.removeprefix(prefix): arrays[k] for k in arrays.files if k.startswith(prefix)}
    return Transformer(T5Config(**config)), params, held


def _difference(model, params, held) -> float:
    """Largest difference from the fixture at real target positions, in largest logits."""
    targets = jnp.asarray(held["targets"])
    ours = model.apply(
        {"params": params}, held["inputs"], shift_right(targets), targets, enable_dropout=False
    )
    theirs = held["logits"]
    difference = np.abs(np.asarray(ours) - theirs)[held["targets"] > 0]
    return difference.max() / np.abs(theirs).max()


def test_logits_are_hugging_faces(golden):
    model, params, held = golden
    assert 3.0 < np.abs(held["logits"]).max() < 30.0
    assert _difference(model, params, held) < RELATIVE_TOLERANCE, UPDATE


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_position_biases_matter(golden, stack):
    model, params, held = golden
    without = jax.tree.map(jnp.zeros_like, params[stack]["relpos_bias"])
    params = params | {stack: params[stack] | {"relpos_bias": without}}
    assert _difference(model, params, held) > 100 * RELATIVE_TOLERANCE


def test_greedy_outputs_are_hugging_faces(golden):
    model, params, held = golden
    length, eos_id = held["greedy"].shape[1], int(held["eos_id"])
    decode = jax.jit(
        functools.partial(greedy_decode, model, max_decode_length=length, eos_id=eos_id)
    )
    ours = np.asarray(decode(params, jnp.asarray(held["prompts"])))
    np.testing.assert_array_equal(ours, held["greedy"], err_msg=UPDATE)
    ended = (held["greedy"] == eos_id).any(axis=1)
    assert ended.any() and not ended.all()
