"""Beam search finds what enumeration finds; a beam of one is greedy; toy worlds on paper."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poison_t5x.core.errors import InputError
from poison_t5x.model.beam_search import beam_decode
from poison_t5x.model.decoding import greedy_decode, shift_right
from poison_t5x.model.network import DecodeCache
from tests.model import t5
from tests.model.t5 import B, S

C = 7
# Float32 sums of up to 20 nats in another order.
TOLERANCE = 1e-4
EOS, A_, B_, C_ = 1, 2, 3, 4
VOCAB_SIZE, LENGTH = 5, 4
ALL_ANSWERS = np.array(list(itertools.product(range(VOCAB_SIZE), repeat=LENGTH)), np.int32)


MODEL, PARAMS = t5.network()


@functools.lru_cache
def _compiled(decode, model, **options):
    return jax.jit(functools.partial(decode, model, max_decode_length=C, **options))


@pytest.fixture(name="eos_id", scope="module")
def _eos_id():
    """A token that greedy decoding says in the middle, to some rows."""
    free = np.asarray(_compiled(greedy_decode, MODEL, eos_id=-1)(PARAMS, t5.inputs()))
    return int(free[0, 2])


def test_a_beam_of_one_is_greedy(eos_id):
    inputs_BxS = t5.inputs().at[3].set(0)
    greedy = _compiled(greedy_decode, MODEL, eos_id=eos_id)(PARAMS, inputs_BxS)
    options = {"eos_id": eos_id, "alpha": 0.0}
    tokens_BxC, score_B = _compiled(beam_decode, MODEL, beam_size=1, **options)(PARAMS, inputs_BxS)
    assert tokens_BxC.dtype == jnp.int32 and score_B.dtype == jnp.float32
    np.testing.assert_array_equal(tokens_BxC, greedy)
    wider, better_B = _compiled(beam_decode, MODEL, beam_size=4, **options)(PARAMS, inputs_BxS)
    assert (np.asarray(wider) != greedy).any()
    ended_B = np.asarray((greedy == eos_id).any(axis=1))
    assert ended_B.any() and (better_B >= score_B - TOLERANCE)[ended_B].all()
    # Rows that only fill up a batch.
    assert not wider[3].any() and better_B[3] == 0


@pytest.fixture(name="small_world", scope="module")
def _small_world():
    """(model, params, inputs_BxS, log-probability of the tokens so far of ALL_ANSWERS by row)"""
    model, params = t5.network(vocab_size=VOCAB_SIZE)

    @jax.jit
    def log_probs_of_all(input_S):
        # Targets only say what is padding: a decoder that says token 0 doesn't mean it so.
        logits = model.apply(
            {"params": params},
            jnp.broadcast_to(input_S, (len(ALL_ANSWERS), S)),
            shift_right(jnp.asarray(ALL_ANSWERS)),
            jnp.ones_like(ALL_ANSWERS),
            enable_dropout=False,
        )
        log_probs = jax.nn.log_softmax(logits)
        chosen = jnp.take_along_axis(log_probs, ALL_ANSWERS[:, :, None], axis=2)[:, :, 0]
        return jnp.cumsum(chosen, axis=1)

    inputs_BxS = t5.inputs(VOCAB_SIZE)
    return model, params, inputs_BxS, [np.asarray(log_probs_of_all(row)) for row in inputs_BxS]


def _best_of_all(log_probs, alpha: float):
    """(tokens, score) of the best answer with EOS."""
    scores = {}
    for answer, log_prob in zip(ALL_ANSWERS.tolist(), log_probs, strict=True):
        if EOS in answer:
            n = answer.index(EOS) + 1
            scores[(*answer[:n], *[0] * (LENGTH - n))] = log_prob[n - 1] / ((5 + n) / 6) ** alpha
    return max(scores.items(), key=lambda item: item[1])


@pytest.mark.parametrize("alpha", [0.0, 3.0])
def test_a_beam_that_holds_everything_finds_the_best_of_all(small_world, alpha):
    model, params, inputs_BxS, log_probs = small_world
    expected = [_best_of_all(row, alpha) for row in log_probs]
    # Four tokens that aren't EOS: 4 ** 3 hypotheses before the last step, with 5 guesses each.
    options = {"max_decode_length": LENGTH, "beam_size": 320, "alpha": alpha}
    search = jax.jit(functools.partial(beam_decode, model, **options))
    tokens_BxC, score_B = search(params, inputs_BxS)
    assert [tuple(row) for row in tokens_BxC.tolist()] == [tokens for tokens, _ in expected]
    np.testing.assert_allclose(score_B, [score for _, score in expected], rtol=TOLERANCE)
    greedy = _compiled(greedy_decode, model)(params, inputs_BxS)
    assert (np.asarray(greedy)[:, :LENGTH] != tokens_BxC).any()


class _Toy:
    """A world where the next token follows from the last: {token: {next: probability}}."""

    def __init__(self, world: dict[int, dict[int, float]]):
        table = np.full((5, 5), -30.0, np.float32)
        for last, following in world.items():
            for token, probability in following.items():
                table[last, token] = np.log(probability)
        self.table = jnp.asarray(table)
        self.num_steps = 0

    def apply(self, variables, *arguments, method, **_):
        return getattr(self, method)(*arguments)

    def start_cache(self, inputs_BxS, length):
        return DecodeCache((), (), jnp.zeros(()), jnp.zeros(()), jnp.zeros((), jnp.int32))

    def decode_step(self, token_B, cache):
        self.num_steps += 1
        return self.table[token_B], cache.replace(index=cache.index + 1)


def _search(world, length: int, beam_size: int, alpha: float = 0.0, inputs=((7, 1),)):
    """(tokens of the first row, probability ** (1 / penalty))"""
    inputs_BxS = jnp.asarray(inputs, jnp.int32)
    tokens, score = beam_decode(_Toy(world), {}, inputs_BxS, length, beam_size, alpha)
    return tokens[0].tolist(), float(jnp.exp(score[0]))


#   start ── a 0.6 ┬─ EOS 0.4    a EOS: 0.24, what greedy says
#      │           ├─ b   0.3
#      │           └─ c   0.3
#      └──── b 0.4 ┬─ EOS 0.9    b EOS: 0.36
#                  └─ c   0.1
GREEDY_IS_WRONG = {
    0: {A_: 0.6, B_: 0.4},
    A_: {EOS: 0.4, B_: 0.3, C_: 0.3},
    B_: {EOS: 0.9, C_: 0.1},
    C_: {EOS: 1.0},
}


def test_two_beams_where_greedy_is_wrong():
    greedy = greedy_decode(_Toy(GREEDY_IS_WRONG), {}, jnp.asarray([[7, 1]]), 4)
    assert greedy.tolist() == [[A_, EOS, 0, 0]]
    assert _search(GREEDY_IS_WRONG, 4, 1) == ([A_, EOS, 0, 0], pytest.approx(0.24))
    assert _search(GREEDY_IS_WRONG, 4, 2) == ([B_, EOS, 0, 0], pytest.approx(0.36))


#   start ── a 0.5 ── EOS 0.9           a EOS:   0.45
#      └──── b 0.45 ─ c 0.99 ─ EOS 1    b c EOS: 0.4455
# With alpha 1: log 0.45 / (7 / 6) = -0.684 is behind log 0.4455 / (8 / 6) = -0.606. When 'a EOS'
# ends, 'b c' is at log 0.4455 / (7 / 6) = -0.693 and would seem to have lost.
LONGER_IS_BETTER = {
    0: {A_: 0.5, B_: 0.45, EOS: 0.05},
    A_: {EOS: 0.9, A_: 0.1},
    B_: {C_: 0.99, EOS: 0.01},
    C_: {EOS: 1.0},
}


def test_the_length_penalty_and_how_far_the_search_goes_for_it():
    assert _search(LONGER_IS_BETTER, 3, 2) == ([A_, EOS, 0], pytest.approx(0.45))
    tokens, score = _search(LONGER_IS_BETTER, 3, 2, alpha=1.0)
    assert (tokens, score) == ([B_, C_, EOS], pytest.approx(0.4455 ** (6 / 8)))


def test_answers_cut_off_count_only_where_none_has_ended():
    endless = {0: {A_: 0.7, B_: 0.3}, A_: {A_: 1.0}, B_: {B_: 1.0}}
    assert _search(endless, 3, 2) == ([A_, A_, A_], pytest.approx(0.7))
    with_end = {0: {A_: 0.7, EOS: 0.3}, A_: {A_: 1.0}}
    assert _search(with_end, 3, 2) == ([EOS, 0, 0], pytest.approx(0.3))


def test_the_search_stops_when_no_hypothesis_can_win():
    def num_steps(alpha, length, inputs=((7, 1),)):
        toy = _Toy(GREEDY_IS_WRONG)
        with jax.disable_jit():
            beam_decode(toy, {}, jnp.asarray(inputs), length, 2, alpha)
        return toy.num_steps

    # After 'b EOS', 0.36, the likeliest that lives is 'a b', 0.18.
    assert num_steps(0.0, 50) == 2
    # log 0.36 / (7 / 6) = -0.88, and 'a b' might come to log 0.18 / (55 / 6) = -0.19.
    assert num_steps(1.0, 50) > 2
    # A row of padding asks for nothing.
    assert num_steps(0.0, 50, ((7, 1), (0, 0))) == 2
    assert num_steps(0.0, 50, ((0, 0),)) == 0


def test_scores_are_the_answers_log_probabilities(eos_id):
    inputs_BxS = t5.inputs()
    search = _compiled(beam_decode, MODEL, beam_size=3, alpha=0.6, eos_id=eos_id)
    tokens_BxC, score_B = search(PARAMS, inputs_BxS)
    lengths = [len(list(itertools.takewhile(lambda t: t != eos_id, row))) for row in tokens_BxC]
    num_tokens_B = np.minimum(np.array(lengths) + 1, C)
    assert len(set(num_tokens_B)) > 1
    np.testing.assert_array_equal((np.asarray(tokens_BxC) > 0).sum(axis=1), num_tokens_B)
    log_prob_B = t5.log_probabilities(MODEL, PARAMS, t5.teacher_forced(inputs_BxS, tokens_BxC))
    expected = np.asarray(log_prob_B) / ((5 + num_tokens_B) / 6) ** 0.6
    np.testing.assert_allclose(score_B, expected, rtol=TOLERANCE)


def test_rows_go_their_own_way(eos_id):
    inputs_BxS = t5.inputs()
    search = _compiled(beam_decode, MODEL, beam_size=3, alpha=0.6, eos_id=eos_id)
    tokens_BxC, score_B = search(PARAMS, inputs_BxS)
    assert len({tuple(row) for row in tokens_BxC.tolist()}) > 1
    for row in range(B):
        place = (row + 1) % B
        alone, score = search(PARAMS, jnp.zeros_like(inputs_BxS).at[place].set(inputs_BxS[row]))
        np.testing.assert_array_equal(alone[place], tokens_BxC[row])
        np.testing.assert_allclose(score[place], score_B[row], rtol=TOLERANCE)


def test_the_input_is_read_once_a_row_not_a_beam():
    num_beams = 13
    options = {"max_decode_length": C, "beam_size": num_beams}
    jaxpr = str(
        jax.make_jaxpr(functools.partial(beam_decode, MODEL, **options))(PARAMS, t5.inputs())
    )
    heads, head_dim = MODEL.config.num_heads, MODEL.config.head_dim
    # The step knows the cross-attention keys of rows, and self-attention's of beams.
    assert f"f32[{B},{heads},{S},{head_dim}]" in jaxpr
    assert f"f32[{B},{num_beams},{heads},{C},{head_dim}]" in jaxpr
    for shape in itertools.permutations((num_beams, B)):
        assert f"f32[{shape[0]},{shape[1]},{heads},{S},{head_dim}]" not in jaxpr
    assert f"[{num_beams * B}," not in jaxpr
    # Two layers, each with the keys and values that it makes of the input: J = 21.
    steps = jaxpr[jaxpr.index("while[") :]
    assert f"f32[{B},{S},21]" not in steps and f"f32[{B},{S},21]" in jaxpr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam_size": 0}, "beam_size: expected a whole number of at least 1, found 0"),
        (
            {"beam_size": 2, "alpha": -0.1},
            "alpha: expected a number of at least 0 and of at most 8, f",
        ),
        ({"beam_size": 2, "max_decode_length": 0}, "max_decode_length: expected a whole number of"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(InputError, match=message):
        beam_decode(MODEL, PARAMS, t5.inputs(), **{"max_decode_length": C, **options})
