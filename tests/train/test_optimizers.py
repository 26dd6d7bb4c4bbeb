"""Schedules against hand numbers; optimisers against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from poison_t5x.core.errors import InputError
from poison_t5x.train import optimizers

TOTAL = 110
# Rates in float32.
RELATIVE_TOLERANCE = 1e-6


def _rates(steps, total=TOTAL, **settings) -> list[float]:
    config = optimizers.ScheduleConfig(base_learning_rate=0.02, **settings)
    schedule = optimizers.learning_rate(config, total)
    rates = [schedule(jnp.asarray(step, jnp.int32)) for step in steps]
    assert {rate.dtype for rate in rates} == {jnp.dtype("float32")}
    return [float(rate) for rate in rates]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"factors": "constant"}, {0: 0.02, 7: 0.02, 110: 0.02}),
        (
            {"factors": "constant * linear_warmup", "warmup_steps": 10},
            {0: 1e-8, 1: 0.002, 5: 0.01, 10: 0.02, 11: 0.02, 110: 0.02},
        ),
        # Up over 10 steps, and down by 1 / 100 of the base rate a step, to the floor.
        (
            {"factors": "linear_decay", "warmup_steps": 10},
            {0: 1e-8, 5: 0.01, 10: 0.02, 11: 0.0198, 60: 0.01, 109: 0.0002, 110: 1e-8, 120: 1e-8},
        ),
        (
            {"factors": "linear_decay", "warmup_steps": 10, "decay_factor": 0.05},
            {5: 0.01, 10: 0.02, 12: 0.018, 20: 0.01, 30: 1e-8, 110: 1e-8},
        ),
        # Without a warm-up the first step has the whole rate.
        ({"factors": "linear_decay"}, {0: 0.02, 55: 0.01, 110: 1e-8}),
        # The root of the step, which counts as 25 before that.
        (
            {"factors": "constant*rsqrt_decay", "warmup_steps": 25},
            {0: 0.004, 16: 0.004, 25: 0.004, 100: 0.002},
        ),
        ({"factors": "constant * rsqrt_decay"}, {0: 0.02, 1: 0.02, 4: 0.01, 100: 0.002}),
        (
            {"factors": "constant * linear_warmup * rsqrt_decay", "warmup_steps": 25},
            {0: 1e-8, 5: 0.0008, 25: 0.004, 100: 0.002},
        ),
        # 'constant' is the base rate; without it the factors start from 1.
        ({"factors": "rsqrt_decay", "warmup_steps": 25}, {0: 0.2, 100: 0.1}),
    ],
)
def test_rates_on_paper(settings, expected):
    found = _rates(expected, **settings)
    # A step number times the decay leaves a rest of about 1e-9 where the rate should be 0.
    np.testing.assert_allclose(found, list(expected.values()), rtol=1e-5, atol=1e-8)
    assert min(found) >= np.float32(1e-8)


def test_warm_up_of_zero_is_none():
    for factors in ("constant * linear_warmup", "linear_decay"):
        assert _rates([0], factors=factors) == pytest.approx([0.02], rel=RELATIVE_TOLERANCE)


def test_decay_falls_to_zero_at_the_runs_last_step():
    settings = {"factors": "linear_decay", "warmup_steps": 10}
    (short,), (long,) = _rates([59], 60, **settings), _rates([59], 110, **settings)
    assert short == pytest.approx(0.02 / 50, rel=1e-4)
    assert long == pytest.approx(0.02 * 51 / 100, rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "adam"}, r"OPTIMIZER: .*did you mean 'adamw'"),
        ({"factors": "constant * linear_warmpu"}, r"did you mean 'linear_warmup'"),
        ({"factors": "constant * linear_decay"}, "stands alone"),
        (
            {"base_learning_rate": 0.0},
            "base_learning_rate: expected a number between 0 and inf, found 0",
        ),
        ({"warmup_steps": -1}, "warmup_steps: expected a whole number of at least 0, found -1"),
        ({"warmup_steps": 1.5}, "warmup_steps"),
    ],
)
def test_settings_refused(settings, message):
    make = optimizers.OptimizerConfig if "name" in settings else optimizers.ScheduleConfig
    with pytest.raises(InputError, match=message) as caught:
        make(**settings)
    assert "\n" not in str(caught.value)


def _step(transform, gradients, state, params):
    """As the train step does it."""
    with jax.numpy_dtype_promotion("standard"):
        updates, state = transform.update(gradients, state, params)
    return optax.apply_updates(params, updates), state


def _draw(seed: int, *shapes) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def test_adamw_equals_numpys():
    config = optimizers.OptimizerConfig(
        name="adamw", beta1=0.8, beta2=0.9, eps=1e-3, weight_decay=0.1
    )
    rates = [0.3, 0.2]
    transform = optimizers.make(config, lambda step: jnp.asarray(rates, jnp.float32)[step])
    start, *gradients = _draw(0, (3, 5), (3, 5), (3, 5))
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
    decayless = optimizers.make(
        optimizers.OptimizerConfig(name="adamw", beta1=0.8), lambda step: 0.3
    )
    other, _ = _step(decayless, {"w": jnp.asarray(gradients[0])}, decayless.init(params), params)
    assert np.abs(other["w"] - params["w"]).max() > 0.01


def _loss(params):
    return 0.5 * jnp.sum(jnp.square(params["w"]))


def test_adafactor_reduces_a_quadratic():
    transform = optimizers.make(optimizers.OptimizerConfig(name="adafactor"), lambda step: 0.1)
    params = {"w": jnp.asarray(_draw(1, (131, 137))[0])}
    state = transform.init(params)
    first = float(_loss(params))

    @jax.jit
    def step(params, state):
        return _step(transform, jax.grad(_loss)(params), state, params)

    for _ in range(20):
        params, state = step(params, state)
    # A step takes a tenth of the parameters' scale, and the loss is its square.
    assert float(_loss(params)) < 0.1 * first


def _num_numbers(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_adafactors_state_is_factored():
    params = {"w": jnp.ones((131, 137), jnp.float32), "scale": jnp.ones((13,), jnp.float32)}
    configs = {name: optimizers.OptimizerConfig(name=name) for name in optimizers.NAMES}
    numbers = {
        name: _num_numbers(optimizers.make(config, lambda step: 0.1).init(params))
        for name, config in configs.items()
    }
    assert numbers["adamw"] >= 2 * _num_numbers(params)
    # A row and a column of the matrix, the vector, and a few counts and placeholders.
    assert 131 + 137 + 13 <= numbers["adafactor"] < 131 + 137 + 13 + 20
