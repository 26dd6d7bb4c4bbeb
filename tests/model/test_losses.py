"""Cross-entropy and its normalisation, against numbers worked on paper and plain numpy."""

import jax.numpy as jnp
import numpy as np
import pytest

from poison_t5x.core.errors import InputError
from poison_t5x.model import losses

B, T, V = 3, 5, 7
# Losses of order 1 in float32.
TOLERANCE = 1e-6


def _draw(seed: int = 0):
    """Logits with a standard deviation of 3, and targets."""
    rng = np.random.default_rng(seed)
    return rng.normal(scale=3.0, size=(B, T, V)), rng.integers(0, V, (B, T))


def _token_losses(logits, targets, **options) -> tuple[np.ndarray, np.ndarray]:
    arrays = losses.token_losses(
        jnp.asarray(logits, jnp.float32), jnp.asarray(targets, jnp.int32), **options
    )
    assert {array.dtype for array in arrays} == {jnp.dtype("float32")}
    return np.asarray(arrays[0]), np.asarray(arrays[1])


def _by_numpy(logits, targets, smoothing: float, z_loss: float) -> tuple[np.ndarray, np.ndarray]:
    """The definition, token by token in float64: KL(smoothed target || softmax) + z log(Z)^2."""
    total, z_part = np.zeros(targets.shape), np.zeros(targets.shape)
    for place in np.ndindex(targets.shape):
        log_z = np.log(np.exp(logits[place]).sum())
        wanted = np.full(V, smoothing / (V - 1))
        wanted[targets[place]] = 1.0 - smoothing
        positive = wanted[wanted > 0]
        cross_entropy = -(wanted * (logits[place] - log_z)).sum()
        entropy = -(positive * np.log(positive)).sum()
        z_part[place] = z_loss * log_z**2
        total[place] = cross_entropy - entropy + z_part[place]
    return total, z_part


def test_on_paper():
    # Odds 1 : 2 : 5 and 1 : 1 : 2, so log(Z) is log 8 and log 4.
    logits = np.log([[[1.0, 2.0, 5.0], [1.0, 1.0, 2.0]]])
    plain, z_part = _token_losses(logits, [[2, 0]])
    np.testing.assert_allclose(plain, [[np.log(8 / 5), np.log(4)]], atol=TOLERANCE)
    assert (z_part == 0).all()
    with_z, z_part = _token_losses(logits, [[2, 0]], z_loss=0.1)
    expected_z = [[0.1 * np.log(8) ** 2, 0.1 * np.log(4) ** 2]]
    np.testing.assert_allclose(z_part, expected_z, atol=TOLERANCE)
    np.testing.assert_allclose(with_z, plain + expected_z, atol=TOLERANCE)
    # Smoothed by 0.2, the wanted distribution is (0.1, 0.1, 0.8) and (0.8, 0.1, 0.1).
    smoothed, _ = _token_losses(logits, [[2, 0]], label_smoothing=0.2)
    expected = [
        [
            0.8 * np.log(0.8 / (5 / 8)) + 0.1 * np.log(0.1 / (1 / 8)) + 0.1 * np.log(0.1 / (2 / 8)),
            0.8 * np.log(0.8 / (1 / 4)) + 0.1 * np.log(0.1 / (1 / 4)) + 0.1 * np.log(0.1 / (2 / 4)),
        ]
    ]
    np.testing.assert_allclose(smoothed, expected, atol=TOLERANCE)


@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
@pytest.mark.parametrize("smoothing", [0.0, 0.5])
def test_equals_numpys(smoothing, z_loss):
    logits, targets = _draw()
    ours = _token_losses(logits, targets, label_smoothing=smoothing, z_loss=z_loss)
    for one, numpys in zip(ours, _by_numpy(logits, targets, smoothing, z_loss), strict=True):
        # Losses of up to 15 nats in float32.
        np.testing.assert_allclose(one, numpys, rtol=1e-5, atol=1e-6)


def test_least_loss_with_smoothing_is_zero():
    smoothing, targets = 0.3, np.arange(V)[None]
    wanted = np.full((1, V, V), smoothing / (V - 1))
    wanted[0, targets[0], targets[0]] = 1.0 - smoothing
    best, _ = _token_losses(np.log(wanted), targets, label_smoothing=smoothing)
    np.testing.assert_allclose(best, np.zeros((1, V)), atol=TOLERANCE)
    # Surer than wanted costs, although without smoothing it would be cheaper.
    surer, _ = _token_losses(2 * np.log(wanted), targets, label_smoothing=smoothing)
    assert (surer > 0.01).all()
    assert (_token_losses(2 * np.log(wanted), targets)[0] < -np.log(1 - smoothing)).all()


WEIGHTS = np.array([[1, 1, 1, 0], [1, 0, 0, 0]])


def _weights(factor, segment_ids=None) -> np.ndarray:
    batch = {"decoder_loss_weights": jnp.asarray(WEIGHTS, jnp.int32)}
    if segment_ids is not None:
        batch["decoder_segment_ids"] = jnp.asarray(segment_ids, jnp.int32)
    arrays = losses.normalized_weights(batch, factor)
    assert arrays.dtype == jnp.float32
    return np.asarray(arrays)


@pytest.mark.parametrize(
    ("factor", "divisor"),
    [(None, 1), (2.5, 2.5), ("NUM_REAL_TARGET_TOKENS", 4), ("NUM_TOTAL_TARGET_TOKENS", 8)],
)
def test_factors_that_divide_all_alike(factor, divisor):
    np.testing.assert_allclose(_weights(factor), WEIGHTS / divisor, atol=TOLERANCE)
    # Packing makes no difference to them.
    packed = _weights(factor, [[1, 1, 2, 0], [1, 0, 0, 0]])
    np.testing.assert_array_equal(packed, _weights(factor))


@pytest.mark.parametrize(
    ("segment_ids", "expected"),
    [
        # Two sequences, of three tokens and of one: each counts half.
        (None, [[1 / 6, 1 / 6, 1 / 6, 0], [1 / 2, 0, 0, 0]]),
        # Three: the first row holds one of two tokens and one of one token.
        ([[1, 1, 2, 0], [1, 0, 0, 0]], [[1 / 6, 1 / 6, 1 / 3, 0], [1 / 3, 0, 0, 0]]),
    ],
)
def test_average_per_sequence_on_paper(segment_ids, expected):
    weights = _weights("AVERAGE_PER_SEQUENCE", segment_ids)
    np.testing.assert_allclose(weights, expected, atol=TOLERANCE)


@pytest.mark.parametrize("factor", losses.SPECIAL_FACTORS)
def test_a_batch_of_padding_gives_zeros(factor):
    batch = {"decoder_loss_weights": jnp.zeros((2, 3), jnp.int32)}
    assert (losses.normalized_weights(batch, factor) == 0).all()


def test_unknown_factor_names_the_nearest():
    with pytest.raises(InputError, match=r"did you mean 'NUM_REAL_TARGET_TOKENS'"):
        _weights("NUM_REAL_TARGET_TOKEN")
