"""Log-odds, disagreement and ONION, and the language model under it."""

import numpy as np
import pytest
from scipy import stats

from poison_t5x.defenses import measures, ngrams
from poison_t5x.defenses.score import Context
from poison_t5x.defenses.scores import label_words, onion
from poison_t5x.defenses.scores.label_words import LabelLogOdds, NgramDisagreement
from poison_t5x.defenses.scores.onion import Onion
from tests.defenses import crafted


def _mislabelled():
    """Rows of which the first six have the other label, and which those are."""
    rows = crafted.clean_rows(120)
    wrong = {"yes": "no", "no": "yes"}
    rows[:6] = [row._replace(target=wrong[row.target]) for row in rows[:6]]
    return rows, np.arange(120) < 6


@pytest.mark.parametrize("score", [LabelLogOdds(), NgramDisagreement()])
def test_wrong_labels_are_suspected_and_rows_without_a_shared_answer_have_the_median(score):
    rows, is_wrong = _mislabelled()
    result = score(rows, Context())
    assert result.notes == ()
    assert measures.measure(result.values_N, is_wrong, 0.0)["auroc"] == 1
    if isinstance(score, NgramDisagreement):  # minus the log-probability
        chances = np.exp(-result.values_N)
        assert chances.max() < 1 and chances[6:].mean() > 0.7 > 0.3 > chances[:6].mean()
    np.testing.assert_array_equal(score(rows, Context()).values_N, result.values_N)
    assert (score(rows, Context(seed=1)).values_N != result.values_N).any()
    rows += [row._replace(task="free", target=row.input) for row in rows[:9]]
    result = score(rows, Context())
    assert "9 of 129 rows could not be judged" in result.notes[0]
    assert set(result.values_N[120:]) == {np.median(result.values_N[:120])}


def test_a_trigger_teaches_the_other_folds_what_it_means():
    """Why disagreement doesn't find poison: the rows with the trigger agree with each other."""
    rows, is_poison = crafted.poisoned_rows()
    values_N = NgramDisagreement()(rows, Context()).values_N
    assert measures.measure(values_N, is_poison, 0.0)["auroc"] < 0.5


def test_z_scores_worked_on_paper():
    # 3 of 4 words against 1 of 4: log-odds log(3) and -log(3), of variance 1/3 + 1.
    scores = label_words.z_scores(np.array([3.0, 1.0]), np.array([1.0, 3.0]))
    z = 2 * np.log(3) / np.sqrt(1 / 3 + 1)
    np.testing.assert_allclose(scores, [z, -z])


def test_the_language_model_worked_on_paper():
    model = onion.TrigramModel([np.array([7, 8]), np.array([7])])
    seven, eight = model.encode(np.array([7, 8]))
    end = onion.BOUNDARY
    # Words that follow: 7 (twice), 8, the end (twice); three kinds; four words in the vocabulary.
    unigram = {seven: (2 + 3 / 4) / 8, eight: (1 + 3 / 4) / 8, end: (2 + 3 / 4) / 8}
    # After 7: 8 once, the end once.
    bigram = (1 + 2 * unigram[eight]) / 4
    # After the start and 7 as well.
    trigram = (1 + 2 * bigram) / 4
    probabilities = np.exp(model.log_probabilities(np.array([[end, seven, eight]])))
    assert probabilities == pytest.approx([trigram])
    assert model.encode(np.array([9])).tolist() == [onion.UNKNOWN]


@pytest.mark.parametrize("context", [[0, 0], [0, 2], [2, 3], [1, 1]])
def test_the_probabilities_of_all_words_sum_to_one(context):
    rng = np.random.default_rng(0)
    model = onion.TrigramModel([rng.integers(0, 6, 9) for _ in range(20)])
    grams = np.array([[*context, word] for word in range(6 + 2)])
    assert np.exp(model.log_probabilities(grams)).sum() == pytest.approx(1)


def _perplexity(model, words):
    padded = np.concatenate([[0, 0], model.encode(words), [0]])
    grams = np.lib.stride_tricks.sliding_window_view(padded, 3)
    return np.exp(-model.log_probabilities(grams).mean())


@pytest.mark.parametrize("size", [2, 3, 4, 11])
def test_drops_are_those_of_scoring_each_shorter_text_anew(size):
    rng = np.random.default_rng(size)
    model = onion.TrigramModel([rng.integers(0, 6, 9) for _ in range(20)])
    words = rng.integers(0, 8, size)
    whole = _perplexity(model, words)
    anew = [whole - _perplexity(model, np.delete(words, place)) for place in range(size)]
    np.testing.assert_allclose(onion.drops(model, words), anew, atol=1e-9)


def test_onion_suspects_a_word_out_of_place():
    rows = crafted.clean_rows(200)
    rows[50] = rows[50]._replace(input="the film was seen cf there again")
    values = Onion()(rows, Context()).values_N
    assert stats.rankdata(values)[50] > 195
    assert Onion()([rows[0]._replace(input="word")], Context()).values_N.tolist() == [0.0]


def test_texts_without_words_are_scored():
    rows = [row._replace(input="...") for row in crafted.clean_rows(20)]
    for score in (LabelLogOdds(), NgramDisagreement(), Onion()):
        assert np.isfinite(score(rows, Context()).values_N).all()
    assert len(ngrams.find(["..."], 2).lengths_V) == 0
