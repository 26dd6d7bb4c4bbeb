"""Ranked in batches, by length, padded and on a mesh: the same as one by one."""

import jax
import numpy as np
import pytest

from poison_t5x.evaluation import predictors
from poison_t5x.model import decoding
from poison_t5x.model.network import Transformer
from poison_t5x.train.partitioning import Partitioner
from tests.mesh_model import CONFIG, parameters, placed

MODEL = Transformer(CONFIG)
LABELS = [[7, 1], [4, 9, 11, 13, 1], [21, 1]]
MAX_LENGTH = 150
# Sums of up to 20 nats, float32 in another order.
TOLERANCE = 1e-5


@pytest.fixture(name="params", scope="module")
def _params():
    return parameters()


@pytest.fixture(name="inputs", scope="module")
def _inputs():
    """Eleven inputs of 3 to 131 tokens, in no order, over three encoder lengths."""
    rng = np.random.default_rng(0)
    lengths = [17, 70, 3, 131, 64, 65, 5, 127, 128, 129, 40]
    return [np.append(rng.integers(2, 44, n - 1), 1).astype(np.int32) for n in lengths]


@pytest.fixture(name="expected", scope="module")
def _expected(params, inputs):
    """Each input by itself."""
    rank = jax.jit(lambda p, x, y: decoding.rank_labels(MODEL, p, x, y))
    width = max(map(len, LABELS))
    labels_LxT = np.array([[*tokens, *[0] * (width - len(tokens))] for tokens in LABELS], np.int32)
    padded = [np.pad(tokens, (0, MAX_LENGTH - len(tokens)))[None] for tokens in inputs]
    return np.concatenate([rank(params, row, labels_LxT) for row in padded])


def _ranker(params, *, num_partitions=1, num_devices=1, batch_size=4, **options):
    params, partitioner = placed(params, num_partitions, num_devices)
    options = {"max_length": MAX_LENGTH, **options}
    return predictors.Ranker(MODEL, params, partitioner, batch_size=batch_size, **options)


@pytest.mark.parametrize(
    ("num_partitions", "num_devices", "batch_size"),
    [(1, 1, 4), (1, 1, 13), (2, 8, 3)],
    ids=["batches of 4", "one batch", "4x2"],
)
def test_batched_by_length_equals_one_by_one(
    params, inputs, expected, num_partitions, num_devices, batch_size
):
    found = _ranker(
        params, num_partitions=num_partitions, num_devices=num_devices, batch_size=batch_size
    ).rank(inputs, LABELS)
    assert found.shape == (11, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE)
    # Rows that came back in the order of their lengths would be other rows' numbers.
    order = np.argsort([len(tokens) for tokens in inputs], kind="stable")
    assert np.abs(expected[order] - expected).max() > 100 * TOLERANCE
    assert len({tuple(row) for row in np.round(expected, 3)}) == 11


def test_batches_are_short_and_no_longer_than_the_longest_input_allowed(
    params, inputs, monkeypatch
):
    shapes = []
    put_batch = Partitioner.put_batch

    def spy(self, batch):
        shapes.append(batch["encoder_input_tokens"].shape)
        return put_batch(self, batch)

    monkeypatch.setattr(Partitioner, "put_batch", spy)
    # 3, 5, 17, 40 | 64, 65, 70, 127 | 128, 129, 131: the last would be rounded up to 192.
    _ranker(params).rank(inputs, LABELS)
    assert shapes == [(4, 64), (4, 128), (4, 150)]


def test_length_normalized_is_the_mean(params, inputs, expected):
    found = _ranker(params, length_normalized=True).rank(inputs[:4], LABELS)
    np.testing.assert_allclose(found, expected[:4] / np.array([2, 5, 2]), rtol=TOLERANCE)
