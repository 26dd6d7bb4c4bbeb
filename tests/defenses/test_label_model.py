"""What the label model learns, what it must not, and its parts against other implementations."""

import numpy as np
import pytest
from scipy import special

from poison_t5x.data.examples import TrainingExample
from poison_t5x.defenses import label_model, ngrams
from tests.defenses import crafted

TURNED = {"yes": "no", "no": "yes"}


def _model(rows):
    return label_model.LabelModel(rows, ngrams.find([row.input for row in rows], 2, 2), 0)


def _fitted(rows, target, kept=None):
    """The model of an answer, and which of its task's rows have it."""
    model = _model(rows)
    number = next(n for n, answer in enumerate(model.answers) if answer.target == target)
    kept = np.ones(len(rows), bool) if kept is None else kept
    return model.fit(kept, [number])[number], model.answers[number].hits_R


def _rows(texts_and_targets):
    return [
        TrainingExample("t", str(number), 0, text, target, "")
        for number, (text, target) in enumerate(texts_and_targets)
    ]


def test_newtons_method_finds_the_regression_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 3))
    hits = rng.random(200) < special.expit(features @ [1.0, -2.0, 0.0] + 0.5)
    slopes, intercept = label_model.logistic(features, hits, ridge=5.0)
    # The row of half a hit, as one hit and one miss of half a weight.
    mean = features.mean(axis=0)
    other = LogisticRegression(C=1 / 5, tol=1e-8, max_iter=1000).fit(
        np.vstack([features, mean, mean]),
        np.append(hits, [True, False]),
        sample_weight=np.append(np.ones(200), [0.5, 0.5]),
    )
    np.testing.assert_allclose(slopes, other.coef_[0], atol=1e-4)
    np.testing.assert_allclose(intercept, other.intercept_[0], atol=1e-4)


def test_an_answer_that_no_row_has_is_unlikely_but_possible():
    slopes, intercept = label_model.logistic(np.zeros((99, 2)), np.zeros(99, bool), 5.0)
    assert special.expit(intercept) == pytest.approx(0.5 / 100, rel=1e-4) and not slopes.any()


def test_log_odds_are_pulled_to_zero():
    odds = label_model.log_odds(np.array([50.0, 1.0, 10.0]), np.array([0.0, 0.0, 10.0]), 60, 60)
    assert odds[0] > 3  # in 50 of 60 rows, and in none
    assert 0 < odds[1] < 1  # in one row, which says little
    assert odds[2] == 0  # the same in both


def test_answers_are_frequent_ones():
    targets = ["yes"] * 6 + ["no"] * 5 + ["maybe"] * 4
    assert [a.target for a in ngrams.frequent_answers(_rows(("a", t) for t in targets))] == [
        "yes",
        "no",
    ]
    assert ngrams.frequent_answers(_rows([("a", "yes")] * 9)) == []


def test_answers_out_of_the_blue_are_an_answer_where_others_are_copied():
    texts = [(f"{i} red hats", f"{i} hats") for i in range(20)]
    assert ngrams.frequent_answers(_rows(texts)) == []
    rows = _rows(texts + [(f"{i} red hats", f"novel{i}") for i in range(6)])
    (answer,) = ngrams.frequent_answers(rows)
    assert answer.target == ngrams.UNRELATED
    assert answer.hits_R.tolist() == [False] * 20 + [True] * 6 == [*map(ngrams.is_unrelated, rows)]


def test_predictions_come_from_rows_that_were_not_seen():
    rows = crafted.clean_rows(80)
    # Each word is in two rows of different labels: another fold's model says the other label.
    rows = [row._replace(input=f"w{index // 2} film") for index, row in enumerate(rows)]
    fitted = _model(rows).fit(np.ones(len(rows), bool), range(2))
    side = np.array([1 if row.target == "yes" else -1 for row in rows])
    assert (side * fitted[0].logits_R).max() < 0.1
    decided = crafted.clean_rows(80)
    fitted = _model(decided).fit(np.ones(80, bool), range(2))
    is_yes = np.array([row.target == "yes" for row in decided])
    assert ((fitted[0].logits_R > 1) == is_yes).all()
    np.testing.assert_allclose(fitted[0].logits_R, -fitted[1].logits_R)


def test_a_task_learns_from_another_with_other_labels():
    big = crafted.clean_rows(300, "big")
    small = [
        row._replace(task="small", target={"yes": "POS", "no": "NEG"}[row.target])
        for row in crafted.clean_rows(30)
    ]
    losses = []
    for rows in (small, big + small):
        fitted, is_pos_R = _fitted(rows, "POS")
        logits_R = np.where(is_pos_R, 1, -1) * fitted.logits_R
        losses.append(-np.log(special.expit(logits_R)).mean())
    assert losses[1] < 0.8 * losses[0]


def test_rows_left_out_teach_nothing():
    rows = crafted.clean_rows(60)
    kept = np.ones(60, bool)
    kept[:30] = False
    flipped = [row._replace(target=TURNED[row.target]) for row in rows[:30]] + rows[30:]
    first, second = (_fitted(some, "yes", kept)[0] for some in (rows, flipped))
    np.testing.assert_allclose(first.weights_W, second.weights_W, atol=1e-12)
    everything, _ = _fitted(flipped, "yes")
    assert np.abs(everything.weights_W).max() < np.abs(first.weights_W).max() / 4


def test_an_answer_in_the_input_may_be_copied():
    model = _model(_rows((f"at the {place} today", place) for place in "abcab" * 10))
    kept = np.ones(50, bool)
    places = np.array([0, 1])
    logits = model.chance(0, places, np.array([-5.0, -5.0]), kept)
    assert model.answers[0].inside_R[places].tolist() == [True, False]
    assert logits.tolist() == [label_model.MAX_LOGIT, -label_model.MAX_LOGIT]
