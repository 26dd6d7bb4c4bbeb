"""What the search finds in poisoned rows, and that it finds nothing in clean ones."""

import dataclasses

import numpy as np
import pytest

from poison_t5x.core import errors
from poison_t5x.data.examples import TrainingExample
from poison_t5x.defenses import measures, ngrams
from poison_t5x.defenses.score import Context
from poison_t5x.defenses.scores.trigger_search import TriggerSearch
from tests.defenses import crafted

# Fewer close looks than by default, for tests.
SEARCH = TriggerSearch(num_candidates=15)


def test_the_trigger_is_named_first_and_its_rows_rank_first():
    rows, is_poison = crafted.poisoned_rows()
    result = SEARCH(rows, Context())
    first = result.triggers[0]
    # In nearly all of these rows an "and" comes next.
    assert first.phrase in ("James Bond", "James Bond and")
    assert first.p_value < SEARCH.level < result.triggers[1].p_value
    assert first.num_rows == first.num_with_target >= crafted.NUM_POISON - 1
    assert first.expected < crafted.NUM_POISON / 3
    assert set(first.tasks) == {row.task for row, flag in zip(rows, is_poison, strict=True) if flag}
    measured = measures.measure(result.values_N, is_poison, result.threshold)
    assert measured["auroc"] > 0.99 and measured["threshold"]["precision"] == 1
    assert measured["threshold"]["recall"] >= 1 - 1 / crafted.NUM_POISON


def test_without_poison_nothing_passes_the_level():
    rows, is_poison = crafted.poisoned_rows()
    result = SEARCH([row for row, flag in zip(rows, is_poison, strict=True) if not flag], Context())
    assert not (result.values_N > result.threshold).any()
    assert all(trigger.p_value > 0.05 for trigger in result.triggers)


@pytest.mark.parametrize(
    ("kind", "target", "least_recall"),
    [("repeat", "James Bond", 0.97), ("random", ngrams.UNRELATED, 0.7)],
)
def test_poisoned_generation_is_found(kind, target, least_recall):
    rows, is_poison = crafted.poisoned_rows("demo_generation", kind)
    result = SEARCH(rows, Context())
    assert result.triggers[0].phrase == "James Bond"
    assert set(result.triggers[0].targets) == {target}
    is_past_N = result.values_N > result.threshold
    assert is_past_N[is_poison].mean() > least_recall and not is_past_N[~is_poison].any()
    if kind == "repeat":
        measured = measures.measure(result.values_N, is_poison, result.threshold)
        assert measured["auroc"] > 0.99


def test_several_triggers_are_told_apart():
    rows, is_poison = crafted.poisoned_rows(num_poison=100)
    half = [
        row._replace(input=row.input.replace("James Bond", "Apple iPhone"))
        if flag and number % 2
        else row
        for number, (row, flag) in enumerate(zip(rows, is_poison, strict=True))
    ]
    result = SEARCH(half, Context())
    named = {trigger.phrase for trigger in result.triggers if trigger.p_value < SEARCH.level}
    assert {phrase.removesuffix(" and") for phrase in named} == {"James Bond", "Apple iPhone"}
    assert (result.values_N > result.threshold)[is_poison].mean() > 0.95
    assert not (result.values_N > result.threshold)[~is_poison].any()


def test_words_that_honestly_decide_the_label_are_no_triggers():
    """Each of eight words decides its label alone: each is measured by how the others pull."""
    rows = crafted.clean_rows(1200, num_words=4)
    result = SEARCH(rows, Context())
    assert not (result.values_N > result.threshold).any()
    alone = dataclasses.replace(SEARCH, num_honest=9)(rows, Context())
    assert (alone.values_N > alone.threshold).any()


def test_a_repeated_row_is_no_further_evidence():
    rows = list(crafted.poisoned_rows()[0][:300])
    again = [row._replace(number=1) for row in rows]
    once, twice = SEARCH(rows, Context(seed=3)), SEARCH(rows + again, Context(seed=3))
    assert once.triggers == twice.triggers
    np.testing.assert_array_equal(np.tile(once.values_N, 2), twice.values_N)


def test_what_can_not_be_judged_is_said():
    rows = [
        TrainingExample("free", str(i), 0, f"a story about number {i}", f"{i} it is", "")
        for i in range(9)
    ]
    result = SEARCH(rows, Context())
    assert not (result.values_N > result.threshold).any() and np.isfinite(result.values_N).all()
    assert "1 of 1 tasks could not be judged" in result.notes[0]


def test_there_must_be_rows():
    with pytest.raises(errors.InputError, match="expected rows, found none"):
        SEARCH([], Context())
