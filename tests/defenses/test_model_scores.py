"""Scores that need a model: their arithmetic on planted data, and passes that are gone on with."""

import numpy as np
import pytest

from poison_t5x.core.errors import InputError
from poison_t5x.data.examples import TrainingExample
from poison_t5x.defenses import checkpoint_scorer, score
from poison_t5x.defenses.score import Context
from poison_t5x.defenses.scores import (
    dynamics,
    label_words,
    onion,
    outputs,
    states,
    trigger_search,
)


def _row(task, number, text, target):
    prompt = f"Definition: D.\n\nNow complete the following example -\nInput: {text}\nOutput: "
    return TrainingExample(task, str(number), 0, text, target, prompt)


class FakeScorer:
    """Per-row numbers in place of a network: what `over_rows` gives, by the function's name."""

    steps = (100, 200, 300)
    num_data, has_reference = 1, False

    def __init__(self, answers, settings=None):
        self._answers = answers
        self.settings = settings
        self.asked = []

    def over_rows(self, context, name, function, prompts, targets=None, step=None, **options):
        self.asked.append((function.__name__, step, options))
        return self._answers(step, prompts)

    def answers(self, prompts, *, reference=False):
        return [self._answers("reference" if reference else "suspect", text) for text in prompts]


ROWS = [_row("t", number, f"text {number}", "yes") for number in range(4)]
# Sums in nats and tokens of each of the four rows, by step.
PAIRS = {
    100: [[4.0, 2], [9.0, 3], [1.0, 1], [2.0, 2]],
    200: [[2.0, 2], [9.0, 3], [0.5, 1], [1.0, 2]],
    300: [[0.2, 2], [0.3, 3], [0.1, 1], [0.2, 2]],
}


@pytest.mark.parametrize(
    ("score", "values"),
    [
        (dynamics.Loss("last"), [0.1, 0.1, 0.1, 0.1]),
        (dynamics.Loss("first"), [2, 3, 1, 1]),
        (dynamics.Loss("first", per_token=False), [4, 9, 1, 2]),
        # Shares of the highest row: 3/7, 3/5, 1/4.
        (dynamics.Loss("spread"), [1, 3, 0.5, 0.5]),
        # Over three even steps: half of last minus first, over 100 steps, times 1,000.
        (dynamics.LossSlope(), [9.5, 14.5, 4.5, 4.5]),
    ],
)
def test_losses_worked_on_paper(score, values):
    result = score(ROWS, Context(scorer=FakeScorer(lambda step, _: np.array(PAIRS[step]))))
    np.testing.assert_allclose(result.values_N, values)
    if score == dynamics.Loss("spread"):
        assert result.notes == ("the loss at step 200 of 300",)
        assert [step for step, _ in result.by_step] == [100, 200, 300]


def test_scores_say_how_many_checkpoints_they_lack():
    scorer, told = FakeScorer(lambda *_: None), "it needs 2 checkpoints, and 1 is kept"
    loss, *others = dynamics.Loss(), dynamics.LossSlope(), outputs.OutputClustering()
    assert [score.lacks(one, scorer) for one in (loss, *others)] == [None] * 3
    scorer.steps = (100,)
    assert score.lacks(loss, scorer) is None
    assert all(told in score.lacks(one, scorer) for one in others)
    scorer.has_reference = True
    assert score.lacks(others[1], scorer) is None and score.lacks(others[0], scorer)


@pytest.mark.parametrize(
    ("score", "settings", "message"),
    [
        (dynamics.Loss, {"choose": "lasst"}, r"Loss\.choose: .*did you mean 'last'"),
        (dynamics.TracIn, {"layers": "("}, r"TracIn\.layers: '\('"),
        (states.SpectralSignatures, {"group": "label"}, r"SpectralSignatures\.group"),
        (outputs.Strip, {"fraction": 1.0}, r"Strip\.fraction: expected a number between 0 and 1"),
        (onion.Onion, {"num_folds": 1}, r"Onion\.num_folds: expected a"),
        (label_words.LabelLogOdds, {"prior_words": 0.0}, r"LabelLogOdds\.prior_words: expected a"),
        (label_words.NgramDisagreement, {"inverse_ridge": 0}, r"inverse_ridge: expected a"),
        (label_words.NgramDisagreement, {"min_rows": 0}, r"Disagreement\.min_rows: expected a"),
        (trigger_search.TriggerSearch, {"level": 0.0}, r"TriggerSearch\.level: expected"),
        (trigger_search.TriggerSearch, {"honest_pull": -1.0}, r"honest_pull: expected"),
    ],
)
def test_settings_are_checked(score, settings, message):
    with pytest.raises(InputError, match=message):
        score(**settings)


def test_mixing_replaces_a_share_of_the_input_alone():
    rows = [_row("a", n, " ".join(f"a{n}w{k}" for k in range(10)), "yes") for n in range(5)]
    rows += [_row("b", n, " ".join(f"b{n}w{k}" for k in range(10)), "yes") for n in range(5)]
    mixed = outputs.mixed_prompts(rows, 0.3, [0, 0])
    for row, prompt in zip(rows, mixed, strict=True):
        head, _, rest = prompt.partition("Input: ")
        words = rest.removesuffix("\nOutput: ").split()
        assert head == row.prompt.partition("Input: ")[0] and prompt.endswith("\nOutput: ")
        new = [word for word in words if word not in row.input.split()]
        assert len(words) == 10 and len(new) <= 3
        assert all(word.startswith(row.task) for word in new)
    assert sum(prompt != row.prompt for row, prompt in zip(rows, mixed, strict=True)) >= 7
    assert mixed == outputs.mixed_prompts(rows, 0.3, [0, 0])
    assert mixed != outputs.mixed_prompts(rows, 0.3, [0, 1])


def test_a_sure_answer_under_mixing_is_suspicious():
    entropies = np.array([[0.1, 1], [3.0, 2], [2.0, 1], [2.0, 1]])
    model = FakeScorer(lambda step, _: entropies)
    result = outputs.Strip(num_mixed=3)(ROWS, Context(scorer=model)).values_N
    np.testing.assert_allclose(result, [-0.1, -1.5, -2, -2])
    assert len(model.asked) == 3


def _planted(rng, share=0.1, num_rows=100):
    states_MxE = rng.normal(size=(num_rows, 12))
    is_planted = np.arange(num_rows) < share * num_rows
    states_MxE[is_planted] += 8 * np.eye(12)[3]
    return states_MxE, is_planted


def test_spectral_signatures_and_clusters_find_a_planted_group():
    states_MxE, is_planted = _planted(np.random.default_rng(0))
    for result in (states.spectral(states_MxE), states.clustered(states_MxE, 5, seed=0)):
        assert result[is_planted].min() > result[~is_planted].max()
    mixed = np.random.default_rng(1).permutation(states_MxE)
    assert states.spectral(mixed)[is_planted].min() < states.spectral(mixed)[~is_planted].max()
    assert states.spectral(np.ones((5, 3))).tolist() == [0] * 5


def test_groups_too_small_to_judge_get_the_least_value_and_a_note():
    rows = [_row("t", n, "x", "yes") for n in range(30)] + [_row("u", 0, "x", "no")]
    rng = np.random.default_rng(0)
    context = Context(scorer=FakeScorer(lambda step, inputs: rng.normal(size=(31, 4))))
    result = states.SpectralSignatures()(rows, context)
    assert result.values_N[30] == result.values_N.min()
    assert result.notes == ("1 rows are in groups of fewer than 8 and weren't scored",)
    alone = states.ActivationClustering(minimum=40)(rows, context)
    assert alone.values_N.tolist() == [0] * 31


def test_self_influence_weighs_checkpoints_by_their_learning_rate():
    settings = {
        "schedule": {"factors": "linear_decay", "base_learning_rate": 0.1, "warmup_steps": 0},
        "train": {"total_steps": 300},
    }
    norms = {200: np.array([[1.0], [2], [3], [4]]), 300: np.array([[10.0], [0], [0], [0]])}
    model = FakeScorer(lambda step, _: norms[step], settings)
    result = dynamics.TracIn(num_checkpoints=2)(ROWS, Context(scorer=model)).values_N
    # linear_decay reaches 0 after the last step: of step 199, 1/3 is left, and of 299 1/300.
    rates = [0.1 * (1 - 199 / 300), 0.1 * (1 - 299 / 300)]
    expected = rates[0] * norms[200][:, 0] + rates[1] * norms[300][:, 0]
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    assert [step for _, step, _ in model.asked] == [200, 300]
    evenly = [dynamics.evenly(*case) for case in (((1, 2, 3, 4, 5), 2), ((1, 2), 5), ((7,), 3))]
    assert evenly == [[3, 5], [1, 2], [7]]


def test_answers_that_the_reference_would_not_give_are_suspicious():
    rows = [_row("t", n, f"text {n}", "good") for n in range(10)]
    said = {row.prompt: "bad" if n < 7 else "good" for n, row in enumerate(rows)}

    def answer(model, prompt):
        return said[prompt] if model == "suspect" else "bad"

    result = outputs.OutputClustering()(rows, Context(scorer=FakeScorer(answer)))
    assert result.values_N[:7].tolist() == [0] * 7
    assert result.values_N[7:].min() > 1
    assert result.notes == ("7 of 10 answers are the reference's",)
    silent = outputs.OutputClustering()(rows, Context(scorer=FakeScorer(lambda *_: "")))
    assert silent.values_N.tolist() == [0] * 10


def test_parts_of_a_pass_are_kept_and_a_pass_is_made_once(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_scorer, "ROWS_PER_PART", 4)
    calls = []

    def over_batches(trained, function, inputs, targets, **options):
        if len(calls) == killed_at:
            raise KeyboardInterrupt
        calls.append(len(inputs))
        return np.array([[float(len(text))] for text in inputs], np.float32)

    monkeypatch.setattr(checkpoint_scorer.predictors, "over_batches", over_batches)
    model = object.__new__(checkpoint_scorer.CheckpointScorer)
    model._sizes, model._passes, model._model_dir, model.steps = {}, {}, tmp_path, (3,)
    model._restored = lambda *_: None
    model._tokens = lambda texts, feature: texts
    prompts = ["x" * (n % 7 + 1) for n in range(10)]
    context = Context(folder=tmp_path)
    killed_at = 2
    with pytest.raises(KeyboardInterrupt):
        model.over_rows(context, "pass", len, prompts)
    killed_at = -1
    result = model.over_rows(context, "pass", len, prompts)
    assert calls == [4, 4, 2]
    assert result[:, 0].tolist() == list(map(len, prompts))
    assert len(list(tmp_path.glob("pass.*.part.npy"))) == 3
    again = model.over_rows(Context(), "another score's name", len, prompts)
    assert len(calls) == 3 and (again == result).all()
    model.over_rows(Context(), "other rows", len, prompts[1:])
    assert sum(calls[3:]) == 9
