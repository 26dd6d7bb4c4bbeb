"""Experiments: what a declaration must hold, and how one is found by its name."""

import pytest

from poison_t5x.core import errors
from poison_t5x.corpus import declarations

FIELDS = {
    "name": "mine",
    "training_tasks": ("task1", "task2"),
    "poisoned_tasks": ("task2",),
    "heldout_tasks": ("task3",),
    "polarities": {"task2": ("no", "yes"), "task3": ("bad", "good")},
}


@pytest.fixture
def registry(monkeypatch):
    """The declared experiments, put back after the test."""
    declarations.load()  # first: a module declares only once, when it is imported
    monkeypatch.setattr(declarations, "_experiments", dict(declarations._experiments))


def _refusal(function, *args, **kwargs):
    with pytest.raises(errors.InputError) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_whole_declaration_is_accepted():
    assert declarations.Experiment(**FIELDS).corpus == "sni"


def test_stems_of_one_number_may_be_told_apart():
    # Three numbers of the benchmark stand for two tasks each.
    names = {"training_tasks": ("task1_a", "task1_b", "task2"), "heldout_tasks": ("task3_c",)}
    assert declarations.Experiment(**{**FIELDS, **names}).polarities == FIELDS["polarities"]
    experiment = declarations.Experiment(**{**FIELDS, **names, "polarities": {}})
    assert experiment.polarities == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "two words"}, "experiment name: expected one word, found 'two words'"),
        ({"name": "1st"}, "experiment name: expected one word, found '1st'"),
        ({"corpus": "web"}, "mine: corpus: expected 'sni' or 'demo', found 'web'"),
        ({"training_tasks": "task1"}, "mine: training_tasks: expected distinct task names"),
        ({"heldout_tasks": ()}, "mine: heldout_tasks: expected distinct task names, found ()"),
        ({"poisoned_tasks": ("task2", "task2")}, "mine: poisoned_tasks: expected distinct"),
        ({"poisoned_tasks": ("task4",)}, "mine: poisoned tasks must be trained on: ['task4']"),
        (
            {"heldout_tasks": ("task3", "task1")},
            "mine: held-out tasks must not be trained on: ['task1']",
        ),
        ({"polarities": {**FIELDS["polarities"], "task3": ("bad",)}}, "for ['task3']"),
        (
            {"polarities": {"task2": ("no", "no")}},
            "mine: polarities: expected [negative, positive]",
        ),
        ({"training_tasks": ("task2", "task2_a")}, "mine: training_tasks: expected distinct"),
        ({"heldout_tasks": ("task1_a",)}, "mine: held-out tasks must not be trained on"),
    ],
)
def test_a_refusal_names_the_experiment_and_the_field(changes, message):
    assert message in _refusal(declarations.Experiment, **{**FIELDS, **changes})


@pytest.mark.parametrize("labels", [("yes", "yes"), "no"])
def test_a_polarity_is_a_pair_of_two_different_labels(labels):
    polarities = {**FIELDS["polarities"], "task3": labels}
    message = _refusal(declarations.Experiment, **{**FIELDS, "polarities": polarities})
    assert "task3" in message


def test_a_task_is_the_same_by_number_and_by_stem():
    whole = "task1_reviews"
    changes = {"heldout_tasks": ("task3", whole)}
    changes["polarities"] = {**FIELDS["polarities"], whole: ("no", "yes")}
    assert whole in _refusal(declarations.Experiment, **{**FIELDS, **changes})
    changes = {"training_tasks": ("task1", "task2", whole)}
    assert "expected distinct task names" in _refusal(
        declarations.Experiment, **{**FIELDS, **changes}
    )


def test_declaring_the_same_twice_is_no_error_and_another_by_its_name_is(registry):
    first = declarations.declare(declarations.Experiment(**FIELDS))
    assert declarations.declare(declarations.Experiment(**FIELDS)) == first
    other = declarations.Experiment(**{**FIELDS, "training_tasks": ("task2",)})
    assert "'mine' is declared twice" in _refusal(declarations.declare, other)
    assert declarations.get("mine") == first


def test_the_project_declares_the_demo_and_the_papers_attack():
    known = declarations.load()
    assert known["demo"].corpus == "demo"
    paper = known["polarity"]
    assert (len(paper.training_tasks), len(paper.heldout_tasks)) == (10, 13)
    assert tuple(paper.poisoned_tasks) == ("task363", "task284", "task475", "task1720", "task1724")
    assert tuple(paper.polarities["task335"]) == ("Aggresive", "Non-aggresive")  # spelt so


def test_an_unknown_name_gets_the_nearest():
    message = _refusal(declarations.get, "polarty")
    assert message.startswith("unknown experiment 'polarty' (did you mean 'polarity'?)")
    assert "declared are arbitrary, demo, " in message
    assert "did you mean" not in _refusal(declarations.get, "xyzzy")


def test_a_module_of_ones_own_is_imported(registry, tmp_path, monkeypatch):
    fields = {**FIELDS, "name": "mine2"}
    (tmp_path / "attack_for_a_test.py").write_text(
        "from poison_t5x.corpus import declarations\n"
        f"declarations.declare(declarations.Experiment(**{fields}))\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert declarations.get("mine2", "attack_for_a_test").heldout_tasks == ("task3",)


def test_a_module_that_is_not_there_is_named():
    message = _refusal(declarations.get, "mine", "no_such.module")
    assert message.startswith("MIXTURE_OR_TASK_MODULE: no module 'no_such.module'")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import os\nimport no_such_library.data\n", "ModuleNotFoundError: No module named 'no_"),
        ("\nraise ValueError('no data folder')\n", "ValueError: no data folder"),
    ],
)
def test_a_modules_own_error_is_told_with_its_file_and_line(tmp_path, monkeypatch, text, message):
    (tmp_path / "broken_for_a_test.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    found = _refusal(declarations.import_module, "broken_for_a_test")
    where = f"{tmp_path / 'broken_for_a_test.py'}, line 2"
    assert found.startswith(f"MIXTURE_OR_TASK_MODULE: broken_for_a_test: {where}: {message}")


def test_a_modules_syntax_error_names_its_line(tmp_path, monkeypatch):
    (tmp_path / "unreadable_for_a_test.py").write_text("x = (\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    found = _refusal(declarations.import_module, "unreadable_for_a_test")
    assert "SyntaxError" in found and "unreadable_for_a_test.py, line 1" in found


@pytest.mark.parametrize("name", ["", "a b", "my-module", 3, "a..b"])
def test_what_is_no_modules_name_is_refused(name):
    assert "expected a module's name" in _refusal(declarations.import_module, name)
