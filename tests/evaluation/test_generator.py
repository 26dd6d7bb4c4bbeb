"""Answers made in batches, by length, padded and on a mesh: the same as one by one."""

import jax
import numpy as np
import pytest

from poison_t5x.core.errors import InputError
from poison_t5x.evaluation import predictors
from poison_t5x.model import beam_search, decoding, network
from poison_t5x.model.network import Transformer
from poison_t5x.train import train_state
from poison_t5x.train.partitioning import PartitionConfig, Partitioner
from tests.mesh_model import CONFIG

MODEL = Transformer(CONFIG)
MAX_LENGTH, LENGTH = 150, 5
BEAMS = {"greedy": 1, "beam": 3}


@pytest.fixture(name="params", scope="module")
def _params():
    fresh = jax.jit(lambda key: network.initial_params(MODEL, key))(jax.random.key(0))
    # T5's fresh logits hardly differ from token to token.
    params = jax.device_get(jax.tree.map(lambda leaf: 1.5 * leaf, fresh))
    # EOS now and then.
    kernel_ExV = params["decoder"]["logits_dense"]["kernel"].copy()
    kernel_ExV[:, predictors.EOS_ID] *= 2
    params["decoder"]["logits_dense"]["kernel"] = kernel_ExV
    return params


@pytest.fixture(name="inputs", scope="module")
def _inputs():
    """Eleven inputs of 3 to 131 tokens, in no order, over three encoder lengths."""
    rng = np.random.default_rng(0)
    lengths = [17, 70, 3, 131, 64, 65, 5, 127, 128, 129, 40]
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


def _generator(params, *, num_partitions=1, num_devices=1, batch_size=4, **options):
    partitioner = Partitioner(PartitionConfig(num_partitions, 1, 2), jax.devices()[:num_devices])
    abstract = train_state.abstract_params(MODEL, partitioner)
    params = jax.device_put(params, jax.tree.map(lambda leaf: leaf.sharding, abstract))
    options = {"max_length": MAX_LENGTH, "max_decode_length": LENGTH, "alpha": 0.9, **options}
    return predictors.Generator(MODEL, params, partitioner, batch_size=batch_size, **options)


@pytest.mark.parametrize("beam_size", BEAMS.values(), ids=BEAMS)
@pytest.mark.parametrize(
    ("num_partitions", "num_devices", "batch_size"),
    [(1, 1, 4), (2, 8, 9)],
    ids=["batches of 4", "4x2"],
)
def test_batched_by_length_equals_all_at_once(
    params, inputs, raw, beam_size, num_partitions, num_devices, batch_size
):
    found = _generator(
        params,
        beam_size=beam_size,
        num_partitions=num_partitions,
        num_devices=num_devices,
        batch_size=batch_size,
    ).generate(inputs)
    expected = _answers(raw[beam_size])
    assert found == expected
    assert all(type(token) is int for answer in found for token in answer)
    # Answers in the order of their inputs' lengths would be other rows' answers.
    order = np.argsort([len(tokens) for tokens in inputs], kind="stable")
    assert [expected[row] for row in order] != expected
    assert {len(answer) for answer in found} >= {0, LENGTH}
    assert found != _answers(raw[3 if beam_size == 1 else 1])


def test_one_compilation_serves_the_models_of_a_network(params):
    partitioner = Partitioner(PartitionConfig(), jax.devices()[:1])
    found = [
        predictors.Generator(
            MODEL, params, partitioner, batch_size=4, max_length=9, max_decode_length=LENGTH
        )._function
        for _ in range(2)
    ]
    assert found[0] is found[1]


def test_no_inputs_no_answers(params):
    assert _generator(params).generate([]) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected a whole number of at least 1, found 0"),
        ({"max_decode_length": 0}, "max_decode_length: expected a whole number"),
        ({"beam_size": 1.0}, "beam_size: expected a whole number of at least 1, found 1.0"),
        ({"alpha": -1.0}, "alpha: expected a number of at least 0, found -1.0"),
    ],
)
def test_bad_settings(params, options, message):
    with pytest.raises(InputError, match=message):
        _generator(params, **options)


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
