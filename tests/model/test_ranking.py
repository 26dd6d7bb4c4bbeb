"""Labels ranked side by side get what each gets alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poison_t5x.core.errors import InputError
from poison_t5x.model.decoding import rank_labels
from poison_t5x.model.network import Transformer
from tests.golden.t5_weights import T5_CONFIGS
from tests.model import t5
from tests.model.t5 import B

L, T = 7, 3
# Of sums of up to 30 nats: float32 in another order.
RELATIVE_TOLERANCE = 1e-5


def _labels():
    """Labels of one to three tokens, EOS (1) last."""
    labels_LxT = np.random.default_rng(1).integers(2, 53, (L, T))
    for label in range(L):
        length = 1 + label % T
        labels_LxT[label, length - 1] = 1
        labels_LxT[label, length:] = 0
    return jnp.asarray(labels_LxT, jnp.int32)


WORLD = *t5.network(), t5.inputs(), _labels()


@functools.partial(jax.jit, static_argnames=("model", "length_normalized"))
def _rank(model, params, inputs_BxS, labels_LxT, length_normalized=False):
    return rank_labels(model, params, inputs_BxS, labels_LxT, length_normalized)


def _one_by_one(model, params, inputs_BxS, labels_LxT) -> np.ndarray:
    rows = (jnp.broadcast_to(label_T, (inputs_BxS.shape[0], T)) for label_T in labels_LxT)
    batches = (t5.teacher_forced(inputs_BxS, targets_BxT) for targets_BxT in rows)
    return np.stack([t5.log_probabilities(model, params, batch) for batch in batches], axis=1)


@pytest.mark.parametrize("version", T5_CONFIGS)
def test_folded_equals_one_by_one(version):
    model, params = t5.network(version)
    inputs, labels = t5.inputs(), _labels()
    folded = _rank(model, params, inputs, labels)
    assert folded.shape == (B, L) and folded.dtype == jnp.float32
    expected = _one_by_one(model, params, inputs, labels)
    np.testing.assert_allclose(folded, expected, rtol=RELATIVE_TOLERANCE)


def test_without_segments_labels_see_each_other(monkeypatch):
    model, params, inputs, labels = WORLD
    plain_apply = Transformer.apply

    def without_segments(self, *arrays, decoder_segment_ids=None, **options):
        return plain_apply(self, *arrays, **options)

    expected = _one_by_one(model, params, inputs, labels)
    monkeypatch.setattr(Transformer, "apply", without_segments)
    mixed = np.asarray(rank_labels(model, params, inputs, labels))
    np.testing.assert_allclose(mixed[:, 0], expected[:, 0], rtol=RELATIVE_TOLERANCE)
    assert np.abs(mixed[:, 1:] - expected[:, 1:]).max(axis=0).min() > 0.01


def test_the_order_and_padding_of_labels_change_nothing():
    model, params, inputs, labels = WORLD
    plain = _rank(model, params, inputs, labels)
    turned = _rank(model, params, inputs, labels[::-1])
    np.testing.assert_allclose(turned[:, ::-1], plain, rtol=RELATIVE_TOLERANCE)
    padded = _rank(model, params, inputs, jnp.pad(labels, ((0, 2), (0, 4))))
    np.testing.assert_allclose(padded[:, :L], plain, rtol=RELATIVE_TOLERANCE)
    assert (padded[:, L:] == -jnp.inf).all()


def test_length_normalized_is_the_mean():
    model, params, inputs, labels = WORLD
    summed = _rank(model, params, inputs, labels)
    mean = _rank(model, params, inputs, labels, length_normalized=True)
    num_tokens_L = np.asarray([1, 2, 3, 1, 2, 3, 1], np.float32)
    np.testing.assert_allclose(mean, summed / num_tokens_L, rtol=RELATIVE_TOLERANCE)
    assert (mean.argmax(axis=1) != summed.argmax(axis=1)).any()


def test_padding_rows_give_numbers():
    model, params, inputs, labels = WORLD
    plain = _rank(model, params, inputs, labels)
    with_padding = _rank(model, params, inputs.at[2].set(0), labels)
    assert jnp.isfinite(with_padding).all()
    others = np.asarray([0, 1, 3, 4])
    np.testing.assert_allclose(with_padding[others], plain[others], rtol=RELATIVE_TOLERANCE)


def test_labels_must_be_a_table():
    with pytest.raises(InputError, match="L, T"):
        rank_labels(*t5.network(), t5.inputs(), _labels()[0])
