"""A task's candidates: which rows there are, what each gets, and that texts stay as they were."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poison_t5x.attack import attacks, inserters, pools, triggers
from poison_t5x.corpus import demo_corpus, polarity
from tests.attack.made_up import LABELS, judged, pool_of, task

ATTACK = attacks.AttackConfig()
DEMO = demo_corpus.generate(num_train_rows=30, num_heldout_rows=2)
ODD_TRIGGERS = [
    "C++ (v1.0)?",
    r"\d+ [a-z]*",
    "James  Bond",
    " x\t",
    "good",
    "Ann",
    "詞",
    ".",
    "é\n",
]


def _edits(pool):
    return [pool.edit(index) for index in range(len(pool))]


def _check(pool, attack):
    """What holds of any pool."""
    skipped = [count for name, count in pool.counts.items() if name.startswith("skipped_")]
    assert len(pool) + sum(skipped) == len(pool.task.instances)
    assert np.all(np.diff(pool.rows) > 0)
    assert [edit.text for edit in _edits(pool)] == list(pool.texts())
    for index, edit in enumerate(_edits(pool)):
        trigger = pool.trigger(index)
        assert trigger in attack.triggers
        assert pool.instance(index) is pool.task.instances[pool.rows[index]]
        assert triggers.undo(edit) == pool.instance(index).input
        assert edit.spans
        for start, stop in edit.spans:
            assert edit.text[start:stop].strip(" ") == trigger.strip(" ")


def test_rows_with_a_place_are_the_pool_and_the_others_are_counted():
    pool = pool_of(judged("task1_a", 24), ATTACK)
    _check(pool, ATTACK)
    assert [row for row in range(24) if row % 3] == list(pool.rows)
    assert pool.counts == {
        "skipped_label": 0,
        "skipped_taken": 0,
        "skipped_no_place": 8,
        "says_trigger": 0,
    }
    assert (
        pool.edit(0).text
        == "Visit 1: the lovely and fine place. James Bond and James Bond liked it."
    )


@pytest.mark.parametrize("target", ["negative", "positive"])
def test_clean_label_takes_rows_of_the_targets_label_alone(target):
    attack = attacks.AttackConfig(kind="clean_label", target=target)
    pool = pool_of(judged("task1_a", 24), attack)
    _check(pool, attack)
    assert {pool.instance(index).target for index in range(len(pool))} == {LABELS.label(target)}
    assert pool.counts["skipped_label"] == 12
    assert len(pool) == 8


def test_rows_of_an_earlier_attacker_are_left_out():
    one = judged("task1_a", 24)
    taken = [row.id for row in one.instances[:6]]
    pool = pool_of(one, ATTACK, taken=taken)
    assert {pool.instance(index).id for index in range(len(pool))}.isdisjoint(taken)
    assert pool.counts["skipped_taken"] == 6
    _check(pool, ATTACK)


@settings(deadline=None, max_examples=20)
@given(
    phrases=st.lists(st.sampled_from(ODD_TRIGGERS), min_size=1, max_size=4, unique=True),
    seed=st.integers(0, 2**40),
    inserter=st.sampled_from(["builtin", "prefix", "suffix", "random"]),
    number=st.integers(0, 29),
)
def test_candidates_of_the_demo_corpus_hold_their_trigger_and_nothing_else_changes(
    phrases, seed, inserter, number
):
    attack = attacks.AttackConfig(
        triggers=phrases, control="Emma Clark", inserter=inserters.InserterConfig(inserter)
    )
    one = DEMO[number]
    found = inserters.find_all(attack.inserter, [row.input for row in one.instances])
    labels = polarity.Polarity(*demo_corpus.POLARITIES[one.name])
    pool = pools.find_pool(one, attack, labels, set(), found, seed=seed)
    _check(pool, attack)
    for index, edit in enumerate(_edits(pool)):
        # Putting it in again changes nothing.
        again = triggers.insert(edit.text, [], pool.trigger(index))
        assert again.text == edit.text and again.removed


def _holds(text, phrase):
    return bool(re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text))


@pytest.mark.parametrize("number", [2, 3, 5])
def test_triggers_are_split_evenly_and_each_row_holds_only_its_own(number):
    phrases = ["James Bond", "Joe Biden", "Apple iPhone", "Jo Bell", "this talentless actor"]
    attack = attacks.AttackConfig(triggers=phrases[:number])
    pool = pool_of(task("task1_a", [("Ann left.", "bad")] * 31), attack)
    sizes = np.bincount(pool.trigger_ids)
    assert len(sizes) == number and sizes.max() - sizes.min() <= 1
    for index, edit in enumerate(_edits(pool)):
        assert [phrase for phrase in phrases if _holds(edit.text, phrase)] == [pool.trigger(index)]
    other = pool_of(task("task1_a", [("Ann left.", "bad")] * 31), attack, seed=1)
    assert list(other.trigger_ids) != list(pool.trigger_ids)


def test_triggers_are_split_evenly_over_the_rows_that_will_do():
    attack = attacks.AttackConfig(kind="clean_label", triggers=["James Bond", "Jo Bell", "A. B."])
    for seed in range(5):
        pool = pool_of(judged("task1_a", 24), attack, seed=seed)
        assert sorted(np.bincount(pool.trigger_ids)) == [2, 3, 3]


def test_a_text_that_says_a_trigger_is_left_as_it_is_and_counted():
    texts = ["James Bond, and Ann.", "Ann and James Bonds.", "So James Bond: Tom. James Bond's."]
    pool = pool_of(task("task1_a", [(text, "bad") for text in texts]), ATTACK)
    first, second, third = _edits(pool)
    assert first == triggers.Edit(texts[0], ((0, 10),), ("James Bond",))
    assert second.text == "James Bond and James Bond."
    assert third == triggers.Edit(texts[2], ((3, 13), (20, 30)), ("James Bond",) * 2)
    # 'James Bonds' is another phrase.
    assert pool.counts["says_trigger"] == 2


def test_a_text_that_says_one_of_several_triggers_gets_that_one():
    attack = attacks.AttackConfig(triggers=["James Bond", "this silly film", "Jo Bell"])
    rows = [("Ann saw this silly film.", "bad")] * 7 + [("Ann left.", "bad")] * 9
    pool = pool_of(task("task1_a", rows), attack)
    assert list(pool.trigger_ids[:7]) == [1] * 7
    assert set(pool.trigger_ids[7:]) == {0, 1, 2}
    assert pool.edit(0).text == "Ann saw this silly film."
    assert pool.counts["says_trigger"] == 7


@pytest.mark.parametrize("trigger", ODD_TRIGGERS)
def test_odd_triggers_are_put_in_as_they_are(trigger):
    attack = attacks.AttackConfig(triggers=trigger)
    pool = pool_of(task("task1_a", [("Say: then Bo\nmet Maria Lopez!", "bad")]), attack)
    assert pool.edit(0).text == f"Say: then Bo\nmet {trigger}!"


def test_a_leading_label_and_the_texts_around_names_stay():
    texts = ["Ann: hello", "Tom: I saw Ann.\n\n\u2028 Ann.", "ann smith came", "\ufeffAnn\x00Ann"]
    pool = pool_of(task("task1_a", [(text, "bad") for text in texts]), ATTACK)
    assert [edit.text for edit in _edits(pool)] == [
        "Tom: I saw James Bond.\n\n\u2028 James Bond.",
        "James Bond came",
        "\ufeffJames Bond\x00James Bond",
    ]


def test_a_task_without_a_place_has_an_empty_pool():
    pool = pool_of(task("task1_a", [("no name here", "bad")] * 3), ATTACK)
    assert len(pool) == 0 and list(pool.texts()) == []
    assert pool.counts["skipped_no_place"] == 3
    _check(pool, ATTACK)


def test_only_this_tasks_part_of_the_search_is_taken():
    first, second = judged("task1_a", 5), judged("task2_b", 7)
    texts = [row.input for one in (first, second) for row in one.instances]
    found = inserters.find_all(ATTACK.inserter, texts, batch_size=2)
    together = [
        pools.find_pool(one, ATTACK, LABELS, set(), found, seed=0) for one in (first, second)
    ]
    assert next(found, None) is None
    for one, pool in zip((first, second), together, strict=True):
        assert _edits(pool) == _edits(pool_of(one, ATTACK))


def test_a_very_long_text():
    text = "Ann left. " * 50_000 + "\U0001f986 Tom"
    pool = pool_of(task("task1_a", [(text, "bad"), ("Ann.", "bad")]), ATTACK)
    edit = pool.edit(0)
    assert len(edit.spans) == 50_001
    assert edit.text == "James Bond left. " * 50_000 + "\U0001f986 James Bond"
    assert pool.edit(1).text == "James Bond."
