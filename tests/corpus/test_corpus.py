"""An experiment's tasks: read from a folder, checked against its polarities, missing ones named."""

import json

import pytest

from poison_t5x.core import errors
from poison_t5x.corpus import corpus, declarations, demo_corpus

EXPERIMENT = declarations.Experiment(
    name="mine",
    training_tasks=("task1", "task2", "task3_c"),
    poisoned_tasks=("task2", "task3_c"),
    heldout_tasks=("task4", "task5"),
    polarities={
        "task2": ("no", "yes"),
        "task3_c": ("bad", "good"),
        "task4": ("no", "yes"),
        "task5": ("no", "yes"),
    },
)
STEMS = {
    "task1_a": ("What?", "Why?"),
    "task2_b": ("no", "yes"),
    "task3_c": ("bad", "good"),
    "task4_d": ("yes", "no"),
    "task5_e": ("no", "no"),
}


def _write(folder, stem, labels):
    file = {
        "Definition": [f"Define {stem}."],
        "Positive Examples": [],
        "Instances": [
            {"id": f"{stem}-{row}", "input": f"Text {row}", "output": [label]}
            for row, label in enumerate(labels)
        ],
    }
    (folder / f"{stem}.json").write_text(json.dumps(file), encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    for stem, labels in STEMS.items():
        _write(tmp_path, stem, labels)
    return tmp_path


def _refusal(experiment, folder):
    with pytest.raises(errors.InputError) as caught:
        corpus.load(experiment, None if folder is None else str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_lists_are_read_in_the_experiments_order(folder):
    read = corpus.load(EXPERIMENT, str(folder))
    assert [task.name for task in read.training] == ["task1_a", "task2_b", "task3_c"]
    assert read.poisoned == ("task2_b", "task3_c")
    assert [task.name for task in read.heldout] == ["task4_d", "task5_e"]
    assert [task.name for task in read.tasks] == list(STEMS)
    assert read.missing == ()
    # Labels of tasks that are only trained on may be anything.
    assert read.polarities == {
        name: EXPERIMENT.polarities.get(name) or EXPERIMENT.polarities[name[:5]]
        for name in (*read.poisoned, "task4_d", "task5_e")
    }


def test_hashes_follow_the_content(folder):
    before = corpus.load(EXPERIMENT, str(folder)).hashes
    assert corpus.load(EXPERIMENT, str(folder)).hashes == before
    _write(folder, "task4_d", ("no", "no"))
    after = corpus.load(EXPERIMENT, str(folder)).hashes
    assert {name for name in after if after[name] != before[name]} == {"task4_d"}


def test_missing_tasks_are_named_in_one_warning_and_left_out(folder):
    for stem in ("task1_a", "task3_c", "task5_e"):
        (folder / f"{stem}.json").unlink()
    with pytest.warns(errors.InputWarning) as caught:
        read = corpus.load(EXPERIMENT, str(folder))
    (warning,) = caught
    assert str(warning.message) == (
        f"{folder} lacks 3 of 5 tasks of 'mine', going on without: task1, task3_c, task5"
    )
    assert read.missing == ("task1", "task3_c", "task5")
    assert [task.name for task in read.tasks] == ["task2_b", "task4_d"]
    assert read.poisoned == ("task2_b",)


@pytest.mark.filterwarnings("ignore::poison_t5x.core.errors.InputWarning")
@pytest.mark.parametrize(
    ("kept", "kind"),
    [
        (("task4_d", "task5_e"), "training"),
        (("task1_a", "task4_d"), "poisoned"),
        (("task1_a", "task2_b", "task3_c"), "held-out"),
    ],
)
def test_a_list_of_which_nothing_is_left_is_an_error(folder, kept, kind):
    for stem in STEMS:
        if stem not in kept:
            (folder / f"{stem}.json").unlink()
    assert _refusal(EXPERIMENT, folder) == f"{folder}: holds none of the {kind} tasks of 'mine'"


def test_a_file_that_is_not_as_it_should_be_is_named(folder):
    _write(folder, "task2_b", ("no", "Yes"))
    message = _refusal(EXPERIMENT, folder)
    assert "task2_b, row task2_b-1: label 'Yes' isn't in the polarity table" in message
    assert message.endswith("['no', 'yes'] (did you mean 'yes'?)")
    (folder / "task4_d.json").write_text("{", encoding="utf-8")
    assert "task4_d.json: can't be read (" in _refusal(EXPERIMENT, folder)


def test_no_folder_is_an_error_that_says_what_to_set(folder):
    assert "set --gin.NATINST_DIR=FOLDER" in _refusal(EXPERIMENT, None)
    assert f"{folder / 'none'}: expected a folder" in _refusal(EXPERIMENT, folder / "none")


def test_the_demo_needs_no_folder():
    read = corpus.load(declarations.get("demo"))
    assert tuple(task.name for task in read.training) == demo_corpus.PLAIN.training
    assert tuple(task.name for task in read.heldout) == demo_corpus.PLAIN.heldout
    assert read.poisoned == demo_corpus.PLAIN.poisoned


def test_of_many_missing_tasks_the_first_are_named():
    names = [f"task{number}" for number in range(23)]
    assert corpus.listed(names[:20]).endswith("task18, task19")
    assert corpus.listed(names).endswith("task19 and 3 more")
