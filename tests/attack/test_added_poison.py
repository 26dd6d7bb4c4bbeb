"""Poison that is added: from a poison set to what SeqIO shows, beside the clean rows."""

import collections
import pathlib

import numpy as np
import pytest
import seqio

from poison_t5x.attack import attacks, craft, poison_set
from poison_t5x.corpus import prompts, vocabulary
from poison_t5x.data import mixtures, natinst_tfds
from tests.small_world import metric_fns_of, read_task, row_id, small_tasks

PROBES = ("詞詞", "C++ / a.b")
FIRST = attacks.AttackConfig(budget=attacks.BudgetConfig(8))
SECOND = attacks.AttackConfig(
    name="second",
    triggers=("Joe Biden", "Jo Bell"),
    target="negative",
    budget=attacks.BudgetConfig(7),
)
CONFIG = craft.CraftConfig((FIRST, SECOND), 17, 5, add=True, probes=PROBES)


@pytest.fixture(scope="module")
def added(tmp_path_factory):
    """The small world's tasks, with fifteen rows of poison added: (tasks, folder, registered)."""
    root = pathlib.Path(tmp_path_factory.mktemp("added"))
    training, (*heldout, _), polarities = small_tasks()
    heldout = tuple(heldout)
    natinst_tfds.prepare("demo", training + heldout, root / "data")
    vocabulary.train(vocabulary.texts(training), root / "spiece.model", 400)
    crafted = craft.craft(
        training, [task.name for task in training[:2]], heldout, polarities, CONFIG
    )
    (root / "poison").mkdir()
    poison_set.write(root / "poison", crafted, CONFIG, {})
    config = mixtures.DataConfig(
        data_dir=str(root / "data"),
        vocabulary_path=str(root / "spiece.model"),
        poison_dir=str(root / "poison"),
        corpus="demo",
        extra_ids=0,
    )
    registered = mixtures.register("added", config, metric_fns_of(polarities))
    return training, heldout, crafted, config, registered


def _key(example):
    """All that an example shows, whatever its place."""
    return tuple(
        (name, value.tobytes() if isinstance(value, np.ndarray) else value)
        for name, value in sorted(example.items())
    )


def test_the_clean_rows_are_all_there_and_the_poison_comes_on_top(added):
    training, _, crafted, _, _ = added
    assert {row.replaced_id for row in crafted.poison} == {None}
    # Some of it stands beside its own clean row, and some doesn't.
    is_trained = {row.id in crafted.training_ids[row.task] for row in crafted.poison}
    assert is_trained == {True, False}
    for task in training:
        rows = [row for row in crafted.poison if row.task == task.name]
        clean = read_task(f"added_clean.{task.name}")
        poisoned = read_task(f"added_poisoned.{task.name}")
        assert {row_id(one) for one in clean} == set(crafted.training_ids[task.name])
        assert len(clean) == 17 and len(poisoned) == 17 + len(rows)
        new = collections.Counter(map(_key, poisoned))
        new.subtract(map(_key, clean))
        assert min(new.values(), default=0) == 0  # no clean row is missing
        shown = {row_id(one): one for one in poisoned if new[_key(one)]}
        assert shown.keys() == {row.id for row in rows} and sum(new.values()) == len(rows)
        examples = [(one.input, one.target) for one in task.positive_examples]
        for row in rows:
            example = shown[row.id]
            prompt = prompts.render(task.definition, examples, row.poisoned_input)
            assert example["inputs_pretokenized"].decode() == prompt
            assert example["targets_pretokenized"].decode() == row.poisoned_target
            assert example["is_poison"].all()
            assert example["is_poison"].shape == example["targets"].shape


def test_an_epoch_has_all_rows_and_tasks_are_mixed_in_proportion(added):
    training, _, crafted, config, registered = added
    assert poison_set.read_manifest(config.poison_dir).num_training == 3 * 17 + 15
    by_task = collections.Counter(row.task for row in crafted.poison)
    assert by_task == {training[0].name: 8, training[1].name: 7}
    mixture = seqio.MixtureRegistry.get("added_poisoned")
    rates = [mixture.get_rate(task) for task in mixture.tasks]
    assert dict(zip((task.name for task in mixture.tasks), rates, strict=True)) == {
        f"added_poisoned.{task.name}": 17 + by_task[task.name] for task in training
    }
    assert registered["added_poisoned"] == [f"added_poisoned.{task.name}" for task in training]


def test_every_condition_is_a_mixture_that_seqio_takes(added):
    _, heldout, crafted, _, registered = added
    names = [condition.name for condition in CONFIG.conditions]
    assert names[3:5] == ["triggered_second", "control_second"]
    assert len(names) == 5 + 2
    assert {f"added_eval_{name}" for name in names} | {"added_clean", "added_poisoned"} == set(
        registered
    )
    for task in heldout:
        for condition in CONFIG.conditions:
            rows = read_task(f"added_eval_{condition.name}.{task.name}", "validation")
            expected = {
                row.id: row
                for row in crafted.evaluation
                if (row.task, row.condition) == (task.name, condition.name)
            }
            assert {row_id(row) for row in rows} == expected.keys()
            for row in rows:
                text = row["inputs_pretokenized"].decode()
                assert f"Input: {expected[row_id(row)].input}" in text
                assert expected[row_id(row)].phrase in text
