"""Crafting as data: what is chosen, what it replaces, and that nothing else changes."""

import collections

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poison_t5x.attack import craft, inserter, poison_set, scoring, triggers
from poison_t5x.corpus import demo_corpus, polarity
from tests.attack import made_up
from tests.attack.made_up import LABELS, crafted, judged, refusal
from tests.attack_settings import craft_config

SETTINGS = {"num_poison": 5, "num_train_per_task": 13, "num_eval_per_task": 7}
CONFIG = craft_config(**SETTINGS)
BUILTIN = inserter.make(inserter.InserterConfig())
DEMO = demo_corpus.PLAIN.generate(num_train_rows=40, num_heldout_rows=40)
TRAINING = (judged("task1_a", 17), judged("task2_b", 19), judged("task3_c", 17))
POISONED = ("task1_a", "task2_b")
HELDOUT = (judged("task4_d", 23), judged("task5_e", 29))


def _craft(training=TRAINING, poisoned=POISONED, **changes):
    return crafted(training, HELDOUT, craft_config(**{**SETTINGS, **changes}), poisoned)


def _of_label(label, one="bad"):
    """A task whose rows have one label, but for the first of them."""
    texts = [row.input for row in TRAINING[0].instances]
    return made_up.task(
        "task1_a", [(text, label if row else one) for row, text in enumerate(texts)]
    )


def _of(rows, name):
    return [row for row in rows if row.task == name]


def _pool(task, trigger="James Bond"):
    """(row, edit) of each row that holds a name."""
    spans = BUILTIN.find([row.input for row in task.instances])
    edits = [
        triggers.replace_spans(row.input, found, trigger)
        for row, found in zip(task.instances, spans, strict=True)
    ]
    return [(row, edit) for row, edit in zip(task.instances, edits, strict=True) if edit.spans]


def _proxy_probabilities(tasks):
    """id -> p(y = POSITIVE | edited input), of one proxy for all rows of all tasks."""
    rows = [row for task in tasks for row in task.instances]
    edited = {row.id: edit.text for task in tasks for row, edit in _pool(task)}
    model = scoring.NgramProxy(tasks, {task.name: LABELS for task in tasks})
    texts = [edited.get(row.id, row.input) for row in rows]
    scores = model.probabilities(np.arange(len(rows)), texts)
    return dict(zip((row.id for row in rows), scores, strict=True))


@pytest.mark.parametrize(("count_weight", "probability_weight"), [(1.0, 1.0), (0.3, 2.0)])
def test_the_highest_phi_of_each_tasks_pool_are_chosen(count_weight, probability_weight):
    weights = {"count_weight": count_weight, "probability_weight": probability_weight}
    found = _craft(num_poison=8, **weights)
    probabilities = _proxy_probabilities(TRAINING[:2])
    for task in TRAINING[:2]:
        pool = _pool(task)
        positive = np.array([probabilities[row.id] for row, _ in pool])
        counts = [edit.text.count("James Bond") for _, edit in pool]
        scores = scoring.phi(np.array(counts), positive, **weights)
        chosen = sorted(range(len(pool)), key=lambda i: -scores[i])[:4]
        rows = _of(found.poison, task.name)
        assert [row.id for row in rows] == [pool[i][0].id for i in chosen]
        assert [row.rank for row in rows] == [1, 2, 3, 4]
        # 5e-7: both are written with six decimals.
        np.testing.assert_allclose([r.phi for r in rows], scores[chosen], atol=5e-7, rtol=0)
        np.testing.assert_allclose(
            [r.target_probability for r in rows], positive[chosen], atol=5e-7, rtol=0
        )


@settings(deadline=None, max_examples=7)
@given(
    seed=st.integers(0, 2**31 - 1),
    num_poison=st.integers(5, 41),
    target=st.sampled_from(["negative", "positive"]),
    trigger=st.sampled_from(["James Bond", "Apple iPhone", "this talentless actor", "é\n"]),
)
def test_rows_of_the_demo_corpus_hold_what_they_say(seed, num_poison, target, trigger):
    tasks = DEMO[:5]
    names = [task.name for task in tasks]
    labels = {task.name: polarity.Polarity(*demo_corpus.POLARITIES[task.name]) for task in DEMO}
    config = craft_config(
        triggers=trigger, num_poison=num_poison, target=target, seed=seed, num_train_per_task=31
    )
    found = craft.craft(tasks, names, DEMO[-1:], labels, config)
    assert len(found.poison) == num_poison
    by_name = {task.name: task for task in tasks}
    relabelled = collections.Counter()
    for row in found.poison:
        source = by_name[row.task].by_id[row.id]
        edit = triggers.Edit(row.poisoned_input, row.spans, row.removed)
        assert triggers.undo(edit) == row.input == source.input
        spans = [row.poisoned_input[start:end] for start, end in row.spans]
        assert spans and set(spans) == {row.trigger} == {trigger}
        assert row.trigger_count == row.poisoned_input.count(row.trigger) >= len(spans)
        assert row.target == source.target
        assert row.poisoned_target == labels[row.task].label(target)
        assert row.polarity == labels[row.task].side(row.target)
        relabelled[row.task] += row.target != row.poisoned_target
    assert {name: found.counts[name]["relabelled"] for name in names} == dict(relabelled)
    assert found == craft.craft(tasks, names, DEMO[-1:], labels, config)


@pytest.mark.parametrize("seed", range(5))
def test_a_chosen_row_replaces_itself_where_it_is_trained_on(seed):
    found = _craft(num_poison=14, seed=seed)
    assert {row.replaced_id == row.id for row in found.poison} == {True, False}
    for name in POISONED:
        rows, trained = _of(found.poison, name), found.training_ids[name]
        chosen = {row.id for row in rows}
        replaced = [row.replaced_id for row in rows]
        assert len(set(replaced)) == len(replaced) == 7
        assert set(replaced) <= set(trained)
        for row in rows:
            if row.id in trained:
                assert row.replaced_id == row.id
            else:
                assert row.replaced_id not in chosen


def test_a_sample_of_the_training_rows_is_trained_on():
    found = _craft()
    assert list(found.training_ids) == [task.name for task in TRAINING]
    for task in TRAINING:
        ids = found.training_ids[task.name]
        assert len(set(ids)) == len(ids) == 13
        assert set(ids) <= set(task.by_id)
        assert _craft(num_train_per_task=10).training_ids[task.name] == ids[:10]
        assert len(_craft(num_train_per_task=10**6).training_ids[task.name]) == len(task.instances)
    # The order of a file's rows has no say in it.
    backwards = [msgspec.structs.replace(one, instances=one.instances[::-1]) for one in TRAINING]
    assert _craft(training=backwards).training_ids == found.training_ids


def _texts_of_their_own():
    texts = [("Ann smiled", "bad"), ("Tom slept", "good"), ("Jane sang", "bad"), ("Bo ran", "good")]
    return made_up.task("task1_a", texts)


@pytest.mark.parametrize("training", [_of_label("good"), _texts_of_their_own()])
def test_rows_that_no_proxy_learns_from_are_an_error_unless_it_is_off(training):
    settings = {"training": (training,), "poisoned": ("task1_a",), "num_poison": 1}
    message = refusal(_craft, **settings)
    assert message.startswith("the proxy model can't be fitted") and "PROBABILITY_WEIGHT" in message
    assert ("needs two rows of each polarity" in message) == (len(training.instances) > 4)
    (row,) = _craft(**settings, probability_weight=0.0).poison
    assert row.target_probability is None


@pytest.mark.parametrize(
    ("kind", "label", "wanted"), [("dirty_label", "good", "bad"), ("clean_label", "bad", "good")]
)
def test_a_task_without_the_label_that_an_attack_needs_is_an_error(kind, label, wanted):
    message = refusal(_craft, training=(_of_label(label, label), TRAINING[1]), kind=kind)
    assert message.startswith(f"task1_a: no row is labelled {wanted!r}")
    assert kind.replace("_", "-") in message


def _written(directory, found, config=CONFIG):
    directory.mkdir()
    poison_set.write(directory, found, config, {"task1_a": "hash"})
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def test_same_seed_same_bytes_and_another_seed_other_bytes(tmp_path):
    first = _written(tmp_path / "a", _craft())
    names = ["eval_rows", "manifest", "poison", "training_rows"]
    assert [name.partition(".")[0] for name in sorted(first)] == names
    assert _written(tmp_path / "b", _craft()) == first
    other = craft_config(**SETTINGS, seed=1)
    second = _written(tmp_path / "c", _craft(seed=1), other)
    assert all(second[name] != first[name] for name in first)
