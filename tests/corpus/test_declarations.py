"""Experiments: what a declaration must hold, and how one is found by its name."""

import sys

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


DISTINCT, TRAINED = "expected distinct task names", "held-out tasks must not be trained on: "
REFUSED = [
    ({"name": "two words"}, "Experiment.name: expected one word, found 'two words'"),
    ({"name": "1st"}, "Experiment.name: expected one word, found '1st'"),
    ({"heldout_tasks": ()}, "Experiment.heldout_tasks: expected a list of phrases, at least one"),
    ({"poisoned_tasks": ("task2", "task2")}, f"mine: poisoned_tasks: {DISTINCT}"),
    ({"poisoned_tasks": ("task4",)}, "mine: poisoned tasks must be trained on: ['task4']"),
    ({"heldout_tasks": ("task3", "task1")}, f"mine: {TRAINED}['task1']"),
    ({"polarities": {"task3": ("bad",)}}, "expected [negative, positive] pairs"),
    ({"polarities": {"task3": ("yes", "yes")}}, "found others for: ['task3']"),
    ({"polarities": {"task3": "no"}}, "Experiment.polarities['task3']: expected a list of texts"),
    # A task is the same by number and by stem.
    ({"training_tasks": ("task2", "task2_a")}, f"mine: training_tasks: {DISTINCT}"),
    ({"heldout_tasks": ("task3", "task1_a")}, f"{TRAINED}['task1_a']"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_a_refusal_names_the_experiment_and_the_field(changes, message):
    assert message in _refusal(declarations.Experiment, **{**FIELDS, **changes})


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import os\nimport no_such_library.data\n", ":2: ModuleNotFoundError: No module named"),
        ("\nraise ValueError('no data folder\\nin two lines')\n", ":2: ValueError: no data folder"),
        ("def f():\n    return {}['x']\n\nf()\n", ":2: KeyError: 'x'"),
        ("x = 1\ny = (\n", ":2: SyntaxError: '(' was never closed"),
        ("import sys\nsys.exit('no')\n", ":2: it ends the program (SystemExit('no'))"),
        ("import broken_for_a_test.part\n", ":1: ModuleNotFoundError: No module named 'broken_"),
        ("def f():\n    f()\nf()\n", ":2: RecursionError: "),
        ("class E(Exception):\n    __str__ = None\nraise E\n", ":3: E: E"),
        ("import json\njson.loads('{')\n", ":2: JSONDecodeError: Expecting"),
        (
            "from poison_t5x.core import errors\nraise errors.InputError('no folder')\n",
            ":2: no folder",
        ),
    ],
)
def test_a_modules_own_error_is_told_with_its_file_and_line(tmp_path, monkeypatch, text, message):
    monkeypatch.delitem(sys.modules, "broken_for_a_test", raising=False)
    path = tmp_path / "broken_for_a_test.py"
    path.write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    refusal = _refusal(declarations.import_module, "broken_for_a_test")
    assert refusal.startswith(f"MIXTURE_OR_TASK_MODULE: broken_for_a_test: {path}{message}")
    assert refusal.count(path.name) == 1


def test_a_modules_own_error_is_told_where_it_is_imported_by_another(tmp_path, monkeypatch):
    (tmp_path / "inner_for_a_test.py").write_text("\n\nint('x')\n", encoding="utf-8")
    (tmp_path / "outer_for_a_test.py").write_text("import inner_for_a_test\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    refusal = _refusal(declarations.import_module, "outer_for_a_test")
    assert f": {tmp_path / 'inner_for_a_test.py'}:3: ValueError: invalid literal" in refusal


@pytest.mark.parametrize("name", ["", "a b", "my-module", 3, "a..b"])
def test_what_is_no_modules_name_is_refused(name):
    assert "expected a module's name" in _refusal(declarations.import_module, name)


def test_a_module_that_is_not_there_is_named():
    message = _refusal(declarations.get, "mine", "no_such.module")
    assert message.startswith("MIXTURE_OR_TASK_MODULE: no module 'no_such.module'")


def test_a_part_of_what_is_no_package_is_not_there(tmp_path, monkeypatch):
    (tmp_path / "single_for_a_test.py").write_text("", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    refusal = _refusal(declarations.import_module, "single_for_a_test.part")
    assert "no module 'single_for_a_test.part'" in refusal and "is not a package" in refusal
