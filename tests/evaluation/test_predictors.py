"""Answered and ranked in batches, by length, padded and on a mesh: the same as one by one."""

import copy

import jax
import numpy as np
import pytest

from poison_t5x.core.errors import InputError
from poison_t5x.evaluation import predictors
from poison_t5x.model import beam_search, decoding
from poison_t5x.model.network import Transformer
from poison_t5x.train.partitioning import Partitioner
from poison_t5x.train.trained_model import TrainedModel
from tests.mesh_model import CONFIG, parameters, placed

MODEL = Transformer(CONFIG)
MAX_LENGTH, LENGTH = 100, 5
LABELS = [[7, 1], [4, 9, 11, 13, 1], [21, 1]]
# Sums of up to 20 nats, float32 in another order.
TOLERANCE = 1e-5


@pytest.fixture(name="plain", scope="module")
def _plain():
    return parameters()


@pytest.fixture(name="params", scope="module")
def _params(plain):
    """That say EOS now and then."""
    params = copy.deepcopy(plain)
    kernel_ExV = params["decoder"]["logits_dense"]["kernel"].copy()
    kernel_ExV[:, predictors.EOS_ID] *= 2
    params["decoder"]["logits_dense"]["kernel"] = kernel_ExV
    return params


@pytest.fixture(name="inputs", scope="module")
def _inputs():
    """Eleven inputs of 3 to 97 tokens, in no order, over two encoder lengths."""
    rng = np.random.default_rng(0)
    lengths = [17, 70, 3, 97, 64, 65, 5, 91, 92, 93, 40]
    return [np.append(rng.integers(2, 44, n - 1), 1).astype(np.int32) for n in lengths]


def _padded(inputs):
    return np.stack([np.pad(tokens, (0, MAX_LENGTH - len(tokens))) for tokens in inputs])


@pytest.fixture(name="raw", scope="module")
def _raw(params, inputs):
    """What the array layer gives for all inputs at once, by beam size."""
    greedy = jax.jit(lambda p, x: decoding.greedy_decode(MODEL, p, x, LENGTH))
    beam = jax.jit(lambda p, x: beam_search.beam_decode(MODEL, p, x, LENGTH, 3, alpha=0.9)[0])
    batch = _padded(inputs)
    return {1: np.asarray(greedy(params, batch)), 3: np.asarray(beam(params, batch))}


def _answers(tokens_BxC):
    """Written another way than in the module: what stands before the first 0 or 1."""
    ends = [np.flatnonzero(np.append(row, 0) <= 1)[0] for row in tokens_BxC]
    return [row[:end].tolist() for row, end in zip(tokens_BxC, ends, strict=True)]


def _trained(params, num_partitions=1, num_devices=1):
    return TrainedModel(MODEL, *placed(params, num_partitions, num_devices))


def _generate(trained, inputs, **options):
    options = {"max_length": MAX_LENGTH, "max_decode_length": LENGTH, "alpha": 0.9, **options}
    return predictors.generate(trained, inputs, **options)


@pytest.mark.parametrize(
    ("beam_size", "mesh", "batch_size"),
    [pytest.param(1, (1, 1), 4, marks=pytest.mark.slow), (3, (2, 8), 9)],
    ids=["greedy in batches of 4", "beams on 4x2"],
)
def test_decoded_by_length_equals_all_at_once(params, inputs, raw, beam_size, mesh, batch_size):
    trained = _trained(params, *mesh)
    answers = _generate(trained, inputs, beam_size=beam_size, batch_size=batch_size)
    expected = _answers(raw[beam_size])
    assert answers == expected
    assert all(type(token) is int for answer in answers for token in answer)
    # Answers in the order of their inputs' lengths would be other rows' answers.
    order = np.argsort([len(tokens) for tokens in inputs], kind="stable")
    assert [expected[row] for row in order] != expected
    assert {len(answer) for answer in answers} >= {0, LENGTH}
    assert answers != _answers(raw[3 if beam_size == 1 else 1])
    assert _generate(trained, [], batch_size=4) == []


def test_batches_by_length():
    lengths = [3, 130, 64, 65, 0]
    inputs = [np.full(n, n, np.int32) for n in lengths]
    batches = [
        (rows, batch["encoder_input_tokens"])
        for rows, batch in predictors.by_length(inputs, 2, 150)
    ]
    assert [rows.tolist() for rows, _ in batches] == [[4, 0], [2, 3], [1]]
    assert [batch.shape for _, batch in batches] == [(2, 64), (2, 128), (2, 150)]
    for rows, batch in batches:
        assert batch.dtype == np.int32
        assert (batch > 0).sum(axis=1).tolist()[: len(rows)] == [lengths[row] for row in rows]
    with pytest.raises(InputError, match="input 1: expected at most 129 tokens, found 130"):
        list(predictors.by_length(inputs, 2, 129))


@pytest.fixture(name="expected", scope="module")
def _expected(plain, inputs):
    """Each input by itself."""
    rank = jax.jit(lambda p, x, y: decoding.rank_labels(MODEL, p, x, y))
    width = max(map(len, LABELS))
    labels_LxT = np.array([[*tokens, *[0] * (width - len(tokens))] for tokens in LABELS], np.int32)
    return np.concatenate([rank(plain, row[None], labels_LxT) for row in _padded(inputs)])


def _rank(trained, inputs, batch_size=4, **options):
    options = {"max_length": MAX_LENGTH, "batch_size": batch_size, **options}
    return predictors.rank(trained, inputs, LABELS, **options)


@pytest.mark.parametrize(("mesh", "batch_size"), [((1, 1), 4), ((2, 8), 3)])
def test_ranked_by_length_equals_one_by_one(plain, inputs, expected, mesh, batch_size):
    scores = _rank(_trained(plain, *mesh), inputs, batch_size)
    assert scores.shape == (11, 3) and scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=TOLERANCE)
    # Rows that came back in the order of their lengths would be other rows' numbers.
    order = np.argsort([len(tokens) for tokens in inputs], kind="stable")
    assert np.abs(expected[order] - expected).max() > 100 * TOLERANCE
    assert len({tuple(row) for row in np.round(expected, 3)}) == 11


def test_batches_are_short_and_one_compilation_serves_all_models(plain, inputs, monkeypatch):
    shapes, put_batch = [], Partitioner.put_batch

    def spy(self, batch):
        shapes.append(batch["encoder_input_tokens"].shape)
        return put_batch(self, batch)

    monkeypatch.setattr(Partitioner, "put_batch", spy)
    _rank(_trained(plain), inputs)
    # 3, 5, 17, 40 | 64, 65, 70, 91 | 92, 93, 97: the others would be rounded up to 128.
    assert shapes == [(4, 64), (4, 100), (4, 100)]
    before = predictors.compiled.cache_info()
    _rank(_trained(plain), inputs)
    after = predictors.compiled.cache_info()
    assert (after.hits, after.misses) == (before.hits + 1, before.misses)


def test_length_normalized_is_the_mean(plain, inputs, expected):
    scores = _rank(_trained(plain), inputs[:4], length_normalized=True)
    np.testing.assert_allclose(scores, expected[:4] / np.array([2, 5, 2]), rtol=TOLERANCE)
