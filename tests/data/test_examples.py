"""Rows of a mixture: what training reads, text by text; and the mixture without some of them."""

import numpy as np
import pytest
import seqio

from poison_t5x.attack import poison_set
from poison_t5x.core.errors import InputError
from poison_t5x.corpus import prompts
from poison_t5x.data import examples, mixtures
from tests import small_world


def _tokens(name, lengths):
    dataset = seqio.get_mixture_or_task(name).get_dataset(
        lengths, split="train", shuffle=False, num_epochs=1
    )
    return sorted(tuple(row["inputs"]) for row in dataset.as_numpy_iterator())


def test_rows_are_the_examples_that_are_trained_on(world):
    rows = examples.read("world_poisoned")
    assert len(rows) == poison_set.read_manifest(world.config.poison_dir).num_training
    assert {row.task for row in rows} == {task.name for task in world.training}
    assert len({(row.task, row.id, row.number) for row in rows}) == len(rows)
    vocabulary = world.vocabulary
    ours = sorted((*vocabulary.encode(row.prompt), vocabulary.eos_id) for row in rows)
    theirs = []
    for task in world.registered["world_poisoned"]:
        theirs += _tokens(task, small_world.LENGTHS)
    assert ours == sorted(theirs)


def test_flags_are_apart_and_of_the_same_rows(world):
    rows = examples.read("world_poisoned")
    flags = examples.poison_flags("world_poisoned")
    found = {(row.input.strip(), row.target) for row, bad in zip(rows, flags, strict=True) if bad}
    expected = {(row.poisoned_input.strip(), row.poisoned_target) for row in world.poison}
    assert (
        found == expected
        and len(found) == flags.sum() == small_world.CRAFT.attacks[0].budget.num_poison
    )
    assert not examples.poison_flags("world_clean").any()


def test_an_inputs_text_is_read_back_from_its_prompt():
    prompt = prompts.render("Say it.", [("One.", "1")], "Two words!", num_examples=2)
    assert prompts.question(prompt) == "Two words!"
    assert prompts.question("no such layout") == "no such layout"


def test_removed_rows_are_left_out_of_the_filtered_mixture(world):
    rows = examples.read("world_poisoned")
    flags = examples.poison_flags("world_poisoned")
    removed = {(row.task, row.id, row.number) for row, bad in zip(rows, flags, strict=True) if bad}
    name = mixtures.register_filtered("world", world.config, removed)
    left = examples.read(name)
    assert {row[:3] for row in left} == {row[:3] for row in rows} - removed
    assert {row.prompt for row in left} < {row.prompt for row in rows}
    assert not examples.poison_flags(name).any()
    again = examples.read(mixtures.register_filtered("world", world.config, ()))
    assert again == rows


def test_a_filter_that_removes_everything_is_refused(world):
    everything = {row[:3] for row in examples.read("world_poisoned")}
    with pytest.raises(InputError, match="the filter removes every row"):
        mixtures.register_filtered("world", world.config, everything)


def test_poison_that_was_added_has_a_number_of_its_own(world, monkeypatch):
    whole = poison_set.training_rows(world.config.poison_dir, poisoned=True)
    task, rows = next(iter(whole.items()))
    identifier, (shown, *_) = next(iter(rows.items()))
    added = poison_set.Replacement("Added text.", "X", True, identifier)
    changed = {**whole, task: {**rows, identifier: (shown, added)}}
    monkeypatch.setattr(poison_set, "training_rows", lambda *_, **__: changed)
    name = mixtures.register_filtered("world", world.config, ())
    mine = [row for row in examples.read(name) if row.id == identifier]
    assert [row.number for row in mine] == [0, 1] and mine[1].input == "Added text."
    name = mixtures.register_filtered("world", world.config, {(task, identifier, 0)})
    (left,) = [row for row in examples.read(name) if row.id == identifier]
    assert left.input == "Added text."
    assert np.sum(examples.poison_flags(name)) >= 1
