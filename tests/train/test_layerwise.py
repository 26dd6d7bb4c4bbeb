"""An optimiser over stacked layers does what it does over layers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from poison_t5x.train import optimizers
from tests.scanned import stacked

# Stacks of 3 and of 2; 128 and more in two axes is what Adafactor factors.
SHAPES = {
    "token_embedder/embedding": (140, 130),
    "encoder/relpos_bias/rel_embedding": (4, 32),
    **{f"encoder/layers_{n}/mlp/wi/kernel": (130, 150) for n in range(3)},
    **{f"encoder/layers_{n}/pre_mlp_layer_norm/scale": (130,) for n in range(3)},
    **{f"decoder/layers_{n}/mlp/wi/kernel": (130, 150) for n in range(2)},
}
STEPS = 3


def _tree(seed: int):
    rng = np.random.default_rng(seed)
    # Each tensor of another size, as layers' gradients are: what is shared over a stack shows.
    flat = {
        tuple(name.split("/")): rng.normal(0, 0.5 + number, shape).astype(np.float32)
        for number, (name, shape) in enumerate(SHAPES.items())
    }
    return traverse_util.unflatten_dict(flat)


def _run(optimizer: optax.GradientTransformation, convert):
    params = convert(_tree(0))
    state = optimizer.init(params)
    with jax.numpy_dtype_promotion("standard"):
        for seed in range(1, STEPS + 1):
            updates, state = optimizer.update(convert(_tree(seed)), state, params)
            params = optax.apply_updates(params, updates)
    return params, state


def _difference(one, other) -> float:
    found = jax.tree.map(
        lambda a, b: float(np.abs(np.asarray(a) - np.asarray(b)).max()), one, other
    )
    return max(jax.tree.leaves(found))


@pytest.mark.parametrize("name", optimizers.NAMES)
def test_a_stack_is_its_layers(name):
    optimizer = optimizers.make(optimizers.OptimizerConfig(name=name), lambda count: 0.01)
    params, _ = _run(optimizer, lambda tree: tree)
    found, _ = _run(optimizer, stacked)
    assert _difference(found, stacked(params)) < 1e-6  # of weights up to 20


def test_without_it_a_stack_is_one_tensor():
    plain = optax.adafactor(lambda count: 0.01)
    params, _ = _run(plain, lambda tree: tree)
    found, _ = _run(plain, stacked)
    assert _difference(found, stacked(params)) > 1e-3


def test_slots_of_a_stack():
    """Rows (N, 130), columns (N, 150), and one count of all layers."""
    optimizer = optimizers.make(optimizers.OptimizerConfig(name="adafactor"), lambda count: 0.01)
    _, state = _run(optimizer, stacked)
    kernel = lambda tree: tree["encoder"]["layers"]["mlp"]["wi"]["kernel"]  # noqa: E731
    assert (kernel(state[0].v_row).shape, kernel(state[0].v_col).shape) == ((3, 130), (3, 150))
    assert kernel(state[0].v).shape == (3, 1)
    assert state[0].v["encoder"]["layers"]["pre_mlp_layer_norm"]["scale"].shape == (3, 130)
    assert state[0].count.shape == ()
    assert int(state[0].count) == STEPS


def test_trees_without_stacks_are_left_alone():
    params = {"a": jnp.ones((3, 5))}
    optimizer = optimizers.per_layer(optax.adafactor(0.1))
    assert jax.tree.structure(optimizer.init(params)) == jax.tree.structure(
        optax.adafactor(0.1).init(params)
    )


@pytest.mark.parametrize("name", optimizers.NAMES)
def test_state_and_arithmetic_are_float32_over_bfloat16(name):
    optimizer = optimizers.make(optimizers.OptimizerConfig(name=name), lambda count: 0.01)
    half = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), tree)  # noqa: E731
    params, state = _run(optimizer, half)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"bfloat16"}
    floats = [leaf for leaf in jax.tree.leaves(state) if leaf.dtype != jnp.int32]
    assert {leaf.dtype.name for leaf in floats} == {"float32"}
