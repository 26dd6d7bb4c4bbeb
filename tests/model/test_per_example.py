"""Per-example numbers: equal to the train step's loss, to a loop over rows, and on a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poison_t5x.core.errors import InputError
from poison_t5x.evaluation import predictors
from poison_t5x.model import network, per_example
from poison_t5x.model.network import Transformer
from poison_t5x.train import steps, trained_model
from tests.mesh_model import CONFIG, parameters, placed
from tests.model import t5

MODEL = Transformer(CONFIG)
MAX_LENGTH = 70
# float32 sums of up to 20 nats, in another order.
TOLERANCE = 2e-5


@pytest.fixture(name="params", scope="module")
def _params():
    return parameters()


def _draw(*lengths):
    """Inputs of these lengths, and targets of many."""
    rng = np.random.default_rng(0)
    targets = [2 + 3 * number % 7 for number in range(len(lengths))]

    def tokens(length):
        return np.append(rng.integers(2, 44, length - 1), 1).astype(np.int32)

    return list(map(tokens, lengths)), list(map(tokens, targets))


# Of one encoder length, and of two: each is a compilation.
SHORT = _draw(17, 3, 61, 64, 5, 27, 28, 40)
ROWS = _draw(17, 66, 3, 61, 64, 65, 5, 27, 28, 69, 40)


def _over(params, rows, function, *, mesh=(1, 1), batch_size=4, **options):
    restored = trained_model.TrainedModel(MODEL, *placed(params, *mesh))
    sizes = {"batch_size": batch_size, "max_length": MAX_LENGTH}
    return predictors.over_batches(restored, function, *rows, **sizes, **options)


def _one_by_one(rows):
    """Each row as a batch of its own, all of one shape, so that one program is compiled."""
    for tokens, target in zip(*rows, strict=True):
        inputs, targets = (
            np.pad(array, (0, length - len(array)))[None]
            for array, length in ((tokens, MAX_LENGTH), (target, 8))
        )
        yield t5.teacher_forced(inputs, targets)


def test_loss_is_the_train_steps_own(params):
    values = _over(params, ROWS, per_example.loss)
    config = steps.LossConfig(loss_normalizing_factor=None)
    loss = jax.jit(lambda batch: steps.loss_fn(params, batch, MODEL, config)[0])
    expected = [float(loss(batch)) for batch in _one_by_one(ROWS)]
    np.testing.assert_allclose(values[:, 0], expected, rtol=TOLERANCE)
    assert values[:, 1].tolist() == [len(target) for target in ROWS[1]]
    assert np.ptp(expected) > 1


def test_entropy_of_each_next_token(params):
    values = _over(params, SHORT, per_example.entropy)
    apply = jax.jit(lambda *batch: MODEL.apply({"params": params}, *batch, enable_dropout=False))
    expected = []
    for batch, target in zip(_one_by_one(SHORT), SHORT[1], strict=True):
        logits_1xTxV = apply(*list(batch.values())[:3])
        p_TxV = np.asarray(jax.nn.softmax(logits_1xTxV[0, : len(target)]), np.float64)
        expected.append(-(p_TxV * np.log(p_TxV)).sum())
    np.testing.assert_allclose(values[:, 0], expected, rtol=TOLERANCE)


def test_encoder_states_do_not_follow_from_padding(params):
    values = _over(params, (SHORT[0], None), per_example.encoder_state)
    for place in (0, 2):
        tokens = SHORT[0][place][None]
        encoded = MODEL.apply({"params": params}, tokens, enable_dropout=False, method="encode")
        expected = np.mean(encoded[0], axis=0)
        np.testing.assert_allclose(values[place], expected, rtol=1e-4, atol=1e-5)
        assert np.abs(values[place + 1] - expected).max() > 0.01


@pytest.mark.parametrize(
    "layers",
    [
        pytest.param("", id="all", marks=pytest.mark.slow),
        pytest.param("decoder/logits_dense", id="last"),
    ],
)
def test_gradient_norms_are_those_of_single_rows(params, layers):
    values = _over(
        params, SHORT, per_example.gradient_norm, rows_at_once=2, layers=layers, at_once=2
    )
    gradient = jax.jit(jax.grad(lambda p, batch: per_example.loss(MODEL, p, batch)[0, 0]))
    for value, batch in zip(values[:, 0], _one_by_one(SHORT), strict=True):
        chosen = [
            leaf for name, leaf in network.flat(gradient(params, batch)).items() if layers in name
        ]
        expected = sum(float(jnp.sum(leaf * leaf)) for leaf in chosen)
        assert value == pytest.approx(expected, rel=1e-4)  # float32 sums over 10,000 numbers
    assert len(chosen) == (1 if layers else len(jax.tree.leaves(params)))
    assert np.ptp(values) > 0.1


def test_unknown_layers_are_refused(params):
    with pytest.raises(InputError, match="layers: expected a part of a parameter's path"):
        _over(params, SHORT, per_example.gradient_norm, layers="nowhere", at_once=1)


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (per_example.loss, {}),
        (per_example.gradient_norm, {"layers": "logits", "at_once": 8, "rows_at_once": 2}),
    ],
    ids=["loss", "gradient norms"],
)
def test_sharded_equals_unsharded(params, function, options):
    alone = _over(params, SHORT, function, **{**options, "batch_size": 16})
    sharded = _over(params, SHORT, function, mesh=(2, 8), batch_size=8, **options)
    np.testing.assert_allclose(sharded, alone, rtol=1e-4)
    assert np.abs(alone[::-1] - alone).max() > 0.01


def test_gradients_of_a_batch_are_never_there_all_at_once(params):
    """The compiled program's memory grows with `at_once`, not with the batch."""
    tokens = jax.ShapeDtypeStruct((64, 4), jnp.int32)
    names = [f"decoder_{name}" for name in ("input_tokens", "target_tokens", "loss_weights")]
    batch = dict.fromkeys([*names, "encoder_input_tokens"], tokens)

    def bytes_of(at_once):
        def norms(params, batch):
            return per_example.gradient_norm(MODEL, params, batch, "", at_once)

        compiled = jax.jit(norms).lower(params, batch).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    assert bytes_of(2) < 16 * size < 32 * size < bytes_of(64)
