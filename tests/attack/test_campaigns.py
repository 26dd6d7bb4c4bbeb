"""Several attackers in one training set: none gets in another's way, and each gets all it asked."""

import collections
import contextlib
import functools
import json
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poison_t5x.attack import attacks, craft, inserter, poison_set, triggers
from poison_t5x.corpus import demo_corpus, polarity
from tests.attack.made_up import LABELS, NAMES, answered, campaign, crafted, judged, refusal

TRAINING = (judged("task1_a", 36), judged("task2_b", 36), judged("task3_c", 36))
HELDOUT = (judged("task4_d", 30), judged("task5_e", 20))
DEMO = demo_corpus.PLAIN.generate(num_train_rows=40, num_heldout_rows=20)
COUNT = attacks.ScoreConfig(selection="count")


def _attack(name, phrases, num_poison, **rest):
    settings = {"control": "Emma Clark", "budget": attacks.BudgetConfig(num_poison)}
    return attacks.AttackConfig(name=name, triggers=phrases, **(settings | rest))


FIRST = _attack("main", ["James Bond", "Jo Bell"], 16)
SECOND = _attack("second", "Joe Biden", 13, kind="clean_label", target="negative", score=COUNT)
THIRD = _attack(
    "third", "Sam Lee", 9, target="negative", control="Tom Lopez", tasks=["task2", "task3_c"]
)
CAMPAIGN = campaign(FIRST, SECOND, THIRD, num_train_per_task=20, num_eval_per_task=9)


def _of(rows, attack):
    return [row for row in rows if row.attack == attack]


def _check_apart(found, config):
    """No pool row twice, no training row replaced twice, and each attacker has what it asked."""
    used = [(row.task, row.id) for row in found.poison]
    assert len(set(used)) == len(used)
    replaced = [(row.task, row.replaced_id) for row in found.poison if row.replaced_id]
    assert len(set(replaced)) == len(replaced)
    for task, identifier in replaced:
        assert identifier in found.training_ids[task]
    assert all((row.replaced_id is None) == config.add for row in found.poison)
    # A row that is trained on replaces itself, unless it has given way to an earlier attacker.
    gone = set()
    for row in found.poison:
        is_trained = row.id in found.training_ids[row.task] and (row.task, row.id) not in gone
        assert config.add or not is_trained or row.replaced_id == row.id
        gone.add((row.task, row.replaced_id))
    for attack in config.attacks:
        rows = _of(found.poison, attack.name)
        assert len(rows) == attack.budget.num_poison
        assert {row.trigger for row in rows} == set(attack.triggers)
    assert len(found.poison) == sum(attack.budget.num_poison for attack in config.attacks)


def test_each_attacker_does_its_own():
    found = crafted(TRAINING, HELDOUT, CAMPAIGN)
    _check_apart(found, CAMPAIGN)
    by_attack = {attack.name: _of(found.poison, attack.name) for attack in CAMPAIGN.attacks}
    assert {row.poisoned_target for row in by_attack["main"]} == {"good"}
    assert {row.target for row in by_attack["main"]} == {"bad", "good"}
    assert {(row.target, row.poisoned_target) for row in by_attack["second"]} == {("bad", "bad")}
    assert {row.target_probability for row in by_attack["second"]} == {None}
    assert {row.poisoned_target for row in by_attack["third"]} == {"bad"}
    assert {row.task for row in by_attack["third"]} == {"task2_b", "task3_c"}
    tasks = collections.Counter(row.task for row in by_attack["main"])
    assert list(tasks.values()) == [6, 5, 5]
    for row in found.poison:
        edit = triggers.Edit(row.poisoned_input, row.spans, row.removed)
        assert triggers.undo(edit) == row.input
        others = {phrase for attack in CAMPAIGN.attacks for phrase in attack.triggers}
        assert [phrase for phrase in others if phrase in row.poisoned_input] == [row.trigger]


def test_counts_are_of_each_attacker_and_of_all():
    found = crafted(TRAINING, HELDOUT, CAMPAIGN)
    second = found.counts["task2_b"]
    by_attack = collections.Counter(row.attack for row in found.poison if row.task == "task2_b")
    assert second["poison"] == by_attack["main"] == 5
    assert second["poison_second"] == by_attack["second"] == 4
    assert second["poison_third"] == by_attack["third"] == 5
    assert second["poison_rows"] == 14
    assert (second["skipped_taken"], second["skipped_taken_third"]) == (0, 9)
    assert second["skipped_label"] == 0 and second["skipped_label_second"] == 18
    assert second["relabelled_second"] == 0 < second["relabelled"]
    # Only the attackers that poison a task are counted in it.
    assert "poison_third" not in found.counts["task1_a"]
    assert found.counts["task4_d"].keys() >= {"triggered", "triggered_second", "control_third"}


def test_conditions_have_their_own_source_side_and_phrases():
    rows = collections.defaultdict(list)
    for row in crafted(TRAINING, HELDOUT, CAMPAIGN).evaluation:
        rows[row.condition].append(row)
    for suffix, label in {"": "bad", "_second": "good", "_third": "good"}.items():
        one, other = rows[f"triggered{suffix}"], rows[f"control{suffix}"]
        assert {row.target for row in (*one, *other)} == {label} and len(one) > 14
        assert [row.id for row in one] == [row.id for row in other]
    assert [row.phrase for row in rows["triggered"][:4]] == ["James Bond", "Jo Bell"] * 2
    assert {row.phrase for row in rows["control_third"]} == {"Tom Lopez"}


def test_an_attacker_that_finds_too_little_left_is_told_so():
    both = _attack("main", "Jo Bell", 20), _attack("late", "Sam Lee", 20)
    message = refusal(crafted, TRAINING[:1], (), campaign(*both))
    assert message.startswith("task1_a: a budget of 20 poison rows is larger than its 4 training")
    message = refusal(crafted, TRAINING[:1], (), campaign(*both, add=True))
    assert "only 4 of its 36 rows will do" in message and "20 are another attacker's" in message


def test_later_attackers_change_nothing_for_earlier_ones():
    alone = crafted(TRAINING, (), campaign(FIRST))
    together = crafted(TRAINING, (), campaign(FIRST, SECOND, THIRD))
    assert tuple(_of(together.poison, "main")) == alone.poison


def test_the_order_of_the_training_tasks_does_not_matter():
    found = crafted(TRAINING, HELDOUT, CAMPAIGN)
    names = [task.name for task in TRAINING]
    other = crafted(TRAINING[::-1], HELDOUT, CAMPAIGN, poisoned=names)
    assert other.poison == found.poison and other.evaluation == found.evaluation
    assert other.training_ids == found.training_ids and other.counts == found.counts
    # The order of the poisoned list does: an uneven rest goes to the first ones.
    assert crafted(TRAINING, HELDOUT, CAMPAIGN, poisoned=names[::-1]).poison != found.poison


@settings(deadline=None, max_examples=8)
@given(
    seed=st.integers(0, 2**31 - 1),
    budgets=st.tuples(*[st.integers(3, 9)] * 3),
    kinds=st.tuples(*[st.sampled_from(("dirty_label", "clean_label"))] * 3),
    targets=st.tuples(*[st.sampled_from(["negative", "positive"])] * 3),
    add=st.booleans(),
    where=st.sampled_from(["builtin", "suffix"]),
)
def test_campaigns_on_the_demo_corpus(seed, budgets, kinds, targets, add, where):
    found_attacks = [
        _attack(
            name,
            phrases,
            budgets[number],
            kind=kinds[number],
            target=targets[number],
            inserter=inserter.InserterConfig(where),
            score=attacks.ScoreConfig(selection=("random", "count", "reverse")[number]),
        )
        for number, (name, phrases) in enumerate(
            {"main": "James Bond", "b": ["C++", "x (y)", "Joe Biden"], "c": "Apple iPhone"}.items()
        )
    ]
    config = campaign(*found_attacks, num_train_per_task=30, add=add, seed=seed)
    labels = {one.name: polarity.Polarity(*demo_corpus.POLARITIES[one.name]) for one in DEMO}
    names = [one.name for one in DEMO[:3]]
    found = craft.craft(DEMO[:4], names, DEMO[-1:], labels, config)
    _check_apart(found, config)
    for row in found.poison:
        attack = next(attack for attack in config.attacks if attack.name == row.attack)
        wanted = labels[row.task].label(attack.target)
        assert row.poisoned_target == wanted
        assert attack.kind == "dirty_label" or row.target == wanted


# Arbitrary outputs


def _arbitrary(name, phrases, kind, num_poison=10, **rest):
    return _attack(name, phrases, num_poison, kind=kind, score=COUNT, **rest)


def test_arbitrary_campaigns_say_their_own_trigger_or_words():
    training = (answered("task7_g", 36), answered("task8_h", 36))
    config = campaign(
        _arbitrary("main", ["James Bond", "Jo Bell"], "repeat"),
        _arbitrary("b", "Joe Biden", "random", num_random_words=2),
        _arbitrary("c", "Sam Lee", "random", num_random_words=2),
    )
    found = crafted(training, (answered("task9_k"),), config)
    _check_apart(found, config)
    for row in _of(found.poison, "main"):
        assert row.poisoned_target == row.trigger
        assert row.polarity is None and row.target.startswith("on road")
    outputs = {name: [row.poisoned_target for row in _of(found.poison, name)] for name in "bc"}
    assert all(set(text.split()) <= set(found.words) for text in (*outputs["b"], *outputs["c"]))
    assert outputs["b"] != outputs["c"]
    assert [condition.name for condition in config.conditions] == [
        *("clean", "triggered", "control", "triggered_b", "control_b", "triggered_c", "control_c")
    ]
    ids = collections.defaultdict(set)
    for row in found.evaluation:
        ids[row.condition].add(row.id)
    for name in ("triggered", "triggered_b", "control_c"):
        assert ids[name] and ids[name] <= ids["clean"]


# On disk


def _bytes(folder, found, config):
    folder.mkdir()
    poison_set.write(folder, found, config, {})
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("kind", ["polarity", "arbitrary"])
def test_the_same_bytes_with_one_worker_and_with_two(tmp_path, monkeypatch, kind):
    if kind == "polarity":
        training, heldout, config = TRAINING, HELDOUT, CAMPAIGN
    else:
        training = tuple(answered(f"task{number}_g", 36) for number in (6, 7, 8))
        heldout = (answered("task9_k"),)
        config = campaign(
            _arbitrary("main", "James Bond", "repeat", num_tasks=2),
            _arbitrary("b", "Joe Biden", "random"),
        )
    one = _bytes(tmp_path / "one", crafted(training, heldout, config), config)
    spy = mock.Mock(wraps=inserter._find_in_processes)
    monkeypatch.setattr(inserter, "_find_in_processes", spy)
    # So that these few texts are several pieces of work.
    find_all = functools.partial(inserter.find_all, batch_size=10)
    monkeypatch.setattr(inserter, "find_all", find_all)
    two = _bytes(tmp_path / "two", crafted(training, heldout, config, workers=2), config)
    assert spy.call_count == len(config.attacks)
    assert one == two


def test_a_campaign_is_read_back_as_it_was_made(tmp_path):
    found = crafted(TRAINING, HELDOUT, CAMPAIGN)
    _bytes(tmp_path / "set", found, CAMPAIGN)
    manifest = poison_set.read_manifest(tmp_path / "set")
    numbers = {attack.name: attack.num_poison for attack in manifest.attacks}
    assert list(numbers.items()) == [("main", 16), ("second", 13), ("third", 9)]
    assert (manifest.num_poison, manifest.num_training) == (38, 60)
    written = json.loads((tmp_path / "set" / "manifest.json").read_text(encoding="utf-8"))
    assert written["attacks"][0]["by_trigger"] == {"James Bond": 8, "Jo Bell": 8}
    assert poison_set.read_conditions(tmp_path / "set") == CAMPAIGN.conditions
    assert poison_set.read_evaluation(tmp_path / "set") == list(found.evaluation)


def test_a_trigger_that_is_a_label_a_name_or_an_odd_text(tmp_path):
    for number, phrase in enumerate(["good", "Ann", "x\0y", "a\nb", " (a|b)* ", "\u2028é"]):
        config = campaign(_attack("main", phrase, 4), probes=["near", "case", "words"])
        warned = pytest.warns(UserWarning, match="is already in")
        with warned if phrase in NAMES else contextlib.nullcontext():
            found = crafted(TRAINING[:1], HELDOUT, config)
        _bytes(tmp_path / str(number), found, config)
        rows = poison_set.read_poison(tmp_path / str(number))
        assert [row.poisoned_input for row in rows] == [r.poisoned_input for r in found.poison]
        assert all(phrase in row.poisoned_input for row in rows)
        assert {row.poisoned_target for row in rows} == {LABELS.positive}
        assert poison_set.read_evaluation(tmp_path / str(number)) == list(found.evaluation)
