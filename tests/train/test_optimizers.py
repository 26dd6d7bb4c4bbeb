"""Schedules against hand numbers; optimisers against numpy, and over stacked layers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from poison_t5x.core.errors import InputError
from poison_t5x.train import optimizers
from tests.scanned import stacked

TOTAL = 110


def _rates(steps, total=TOTAL, **settings) -> list[float]:
    config = optimizers.ScheduleConfig(base_learning_rate=0.02, **settings)
    schedule = optimizers.learning_rate(config, total)
    rates = [schedule(jnp.asarray(step, jnp.int32)) for step in steps]
    assert {rate.dtype for rate in rates} == {jnp.dtype("float32")}
    return [float(rate) for rate in rates]


@pytest.mark.parametrize(
    ("factors", "settings", "expected"),
    [
        ("constant", {}, {0: 0.02, 7: 0.02, 110: 0.02}),
        (
            "constant * linear_warmup",
            {"warmup_steps": 10},
            {0: 1e-8, 1: 0.002, 5: 0.01, 10: 0.02, 11: 0.02, 110: 0.02},
        ),
        ("constant * linear_warmup", {}, {0: 0.02}),
        # Up over 10 steps, and down by 1 / 100 of the base rate a step, to the floor.
        (
            "linear_decay",
            {"warmup_steps": 10},
            {0: 1e-8, 5: 0.01, 10: 0.02, 11: 0.0198, 60: 0.01, 109: 0.0002, 110: 1e-8, 120: 1e-8},
        ),
        # To 0 at the run's last step.
        ("linear_decay", {"warmup_steps": 10, "total": 60}, {10: 0.02, 59: 0.0004}),
        (
            "linear_decay",
            {"warmup_steps": 10, "decay_factor": 0.05},
            {5: 0.01, 10: 0.02, 12: 0.018, 20: 0.01, 30: 1e-8, 110: 1e-8},
        ),
        # Without a warm-up the first step has the whole rate.
        ("linear_decay", {}, {0: 0.02, 55: 0.01, 110: 1e-8}),
        # The root of the step, which counts as 25 before that.
        (
            "constant*rsqrt_decay",
            {"warmup_steps": 25},
            {0: 0.004, 16: 0.004, 25: 0.004, 100: 0.002},
        ),
        ("constant * rsqrt_decay", {}, {0: 0.02, 1: 0.02, 4: 0.01, 100: 0.002}),
        (
            "constant * linear_warmup * rsqrt_decay",
            {"warmup_steps": 25},
            {0: 1e-8, 5: 0.0008, 25: 0.004, 100: 0.002},
        ),
        # 'constant' is the base rate; without it the factors start from 1.
        ("rsqrt_decay", {"warmup_steps": 25}, {0: 0.2, 100: 0.1}),
    ],
)
def test_rates_on_paper(factors, settings, expected):
    rates = _rates(expected, factors=factors, **settings)
    # A step number times the decay leaves a rest of about 1e-9 where the rate should be 0.
    np.testing.assert_allclose(rates, list(expected.values()), rtol=1e-5, atol=1e-8)
    assert min(rates) >= np.float32(1e-8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "adam"}, r"OPTIMIZER: .*did you mean 'adamw'"),
        (
            {"factors": "constant * linear_warmpu"},
            r"LEARNING_RATE_FACTORS: .*did you mean 'linear_warmup'",
        ),
        ({"factors": "constant * linear_decay"}, "stands alone"),
    ],
)
def test_settings_refused(settings, message):
    make = optimizers.OptimizerConfig if "name" in settings else optimizers.ScheduleConfig
    with pytest.raises(InputError, match=message) as caught:
        make(**settings)
    assert "\n" not in str(caught.value)


def _make(name: str, rate=0.1, **settings) -> optax.GradientTransformation:
    schedule = rate if callable(rate) else lambda step: rate
    return optimizers.make(optimizers.OptimizerConfig(name=name, **settings), schedule)


def _step(transform, gradients, state, params):
    """As the train step does it."""
    with jax.numpy_dtype_promotion("standard"):
        updates, state = transform.update(gradients, state, params)
        return optax.apply_updates(params, updates), state


def test_adamw_equals_numpys():
    rates = [0.3, 0.2]
    settings = {"beta1": 0.8, "beta2": 0.9, "eps": 1e-3}
    schedule = lambda step: jnp.asarray(rates, jnp.float32)[step]  # noqa: E731
    transform = _make("adamw", schedule, weight_decay=0.1, **settings)
    start, *gradients = np.random.default_rng(0).normal(size=(3, 3, 5)).astype(np.float32)
    params = {"w": jnp.asarray(start)}
    state = transform.init(params)
    expected = start.astype(np.float64)
    mean, square = np.zeros((3, 5)), np.zeros((3, 5))
    for step, gradient in enumerate(gradients):
        params, state = _step(transform, {"w": jnp.asarray(gradient)}, state, params)
        mean = 0.8 * mean + 0.2 * gradient
        square = 0.9 * square + 0.1 * gradient.astype(np.float64) ** 2
        unbiased = mean / (1 - 0.8 ** (step + 1))
        scale = np.sqrt(square / (1 - 0.9 ** (step + 1))) + 1e-3
        expected = expected - rates[step] * (unbiased / scale + 0.1 * expected)
        # Numbers of order 1 after a handful of float32 operations.
        np.testing.assert_allclose(params["w"], expected, atol=1e-5)
    decayless = _make("adamw", 0.3, beta1=0.8)
    other, _ = _step(decayless, {"w": jnp.asarray(gradients[0])}, decayless.init(params), params)
    assert np.abs(other["w"] - params["w"]).max() > 0.01


def test_adafactor_reduces_a_quadratic():
    transform = _make("adafactor")
    params = {"w": jnp.asarray(np.random.default_rng(1).normal(size=(131, 137)), jnp.float32)}
    loss = lambda params: 0.5 * jnp.sum(jnp.square(params["w"]))  # noqa: E731
    state, first = transform.init(params), float(loss(params))
    step = jax.jit(lambda params, state: _step(transform, jax.grad(loss)(params), state, params))
    for _ in range(20):
        params, state = step(params, state)
    # A step takes a tenth of the parameters' scale, and the loss is its square.
    assert float(loss(params)) < 0.1 * first


def test_adafactors_state_is_factored():
    def num_numbers(tree) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(tree))

    params = {"w": jnp.ones((131, 137), jnp.float32), "scale": jnp.ones((13,), jnp.float32)}
    assert num_numbers(_make("adamw").init(params)) >= 2 * num_numbers(params)
    # A row and a column of the matrix, the vector, and a few counts and placeholders.
    numbers = num_numbers(_make("adafactor").init(params))
    assert 131 + 137 + 13 <= numbers < 131 + 137 + 13 + 20


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
        name: rng.normal(0, 0.5 + number, shape).astype(np.float32)
        for number, (name, shape) in enumerate(SHAPES.items())
    }
    return traverse_util.unflatten_dict(flat, sep="/")


def _run(optimizer: optax.GradientTransformation, convert=lambda tree: tree):
    """(parameters, state) after some steps over trees that were converted."""
    params = convert(_tree(0))
    state = optimizer.init(params)
    for seed in range(1, STEPS + 1):
        params, state = _step(optimizer, convert(_tree(seed)), state, params)
    return params, state


@functools.cache
def _stacked(name: str):
    return _run(_make(name, 0.01), stacked)


def _difference(one, other) -> float:
    differences = jax.tree.map(lambda a, b: np.abs(np.asarray(a) - np.asarray(b)).max(), one, other)
    return max(jax.tree.leaves(differences))


@pytest.mark.parametrize("name", optimizers.NAMES)
def test_a_stack_is_its_layers(name):
    params, _ = _run(_make(name, 0.01))
    assert _difference(_stacked(name)[0], stacked(params)) < 1e-6  # of weights up to 20


def test_without_it_a_stack_is_one_tensor():
    plain = optax.adafactor(lambda count: 0.01)
    assert _difference(_run(plain, stacked)[0], stacked(_run(plain)[0])) > 1e-3


def test_slots_of_a_stack():
    """Rows (N, 130), columns (N, 150), and one count of all layers."""
    factored = _stacked("adafactor")[1][0]
    rows, columns, whole = (
        tree["encoder"]["layers"]["mlp"]["wi"]["kernel"].shape
        for tree in (factored.v_row, factored.v_col, factored.v)
    )
    assert (rows, columns, whole) == ((3, 130), (3, 150), (3, 1))
    assert factored.v["encoder"]["layers"]["pre_mlp_layer_norm"]["scale"].shape == (3, 130)
    assert factored.count.shape == () and int(factored.count) == STEPS


def test_trees_without_stacks_are_left_alone():
    params, plain = {"a": jnp.ones((3, 5))}, optax.adafactor(0.1)
    state = optimizers.per_layer(plain).init(params)
    assert jax.tree.structure(state) == jax.tree.structure(plain.init(params))


@pytest.mark.parametrize("name", optimizers.NAMES)
def test_state_and_arithmetic_are_float32_over_bfloat16(name):
    half = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), tree)  # noqa: E731
    params, state = _run(_make(name, 0.01), half)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"bfloat16"}
    floats = [leaf for leaf in jax.tree.leaves(state) if leaf.dtype != jnp.int32]
    assert {leaf.dtype.name for leaf in floats} == {"float32"}
