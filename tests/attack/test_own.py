"""Examples do what they say: those of docstrings, and those of docs/ATTACKS.md as one's own."""

import doctest
import importlib
import json
import multiprocessing
import pathlib
import re

import pytest

from poison_t5x.attack import inserter, payload, poison_set
from poison_t5x.cli import main
from tests import small_run

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "ATTACKS.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    """The name of a module in a folder that is only on the path."""
    folder = tmp_path_factory.mktemp("own")
    text = "\n".join(["import tests.tiny_experiment", *EXAMPLES])
    (folder / "my_attacks.py").write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield "my_attacks"


def test_both_work_from_the_command_line_to_the_poison_set(module, tmp_path):
    macros = {"INSERTER": "last_word", "ATTACK": "backwards", "SELECTION": "count"}
    arguments = small_run.arguments(
        "craft", tmp_path, MIXTURE_OR_TASK_MODULE=module, CRAFT_WORKERS=2, **macros
    )
    assert main.main(arguments) == 0
    rows = poison_set.read_poison(tmp_path / "poison")
    assert len(rows) == 10
    for row in rows:
        assert row.poisoned_target == row.target[::-1] != row.target
        first, _, last = row.input.rstrip().rpartition(" ")
        assert row.poisoned_input.rstrip() == f"{first} James Bond {last}"
    settings = json.loads((tmp_path / "poison" / "manifest.json").read_text())["settings"]
    settings = settings["attacks"]["main"]
    assert (settings["kind"], settings["inserter"]["name"]) == ("backwards", "last_word")
    assert inserter.INSERTERS.summaries()["last_word"] == "The place before the last word."
    assert payload.PAYLOADS.names()[-1] == "backwards"
    misspelt = [argument.replace("=backwards", "=backward") for argument in arguments]
    assert main.main(misspelt) != 0


@pytest.mark.parametrize(
    ("name", "number"),
    [("triggers", 6), ("conditions", 3), ("attacks", 1), ("inserters.without_model", 2)],
)
def test_examples_in_docstrings(name, number):
    module = importlib.import_module(f"poison_t5x.attack.{name}")
    assert doctest.testmod(module) == doctest.TestResults(failed=0, attempted=number)


def test_an_inserter_of_one_s_own_works_in_processes(module):
    __import__(module)
    config = inserter.InserterConfig("last_word")
    texts = [f"row {number} is here" for number in range(40)]
    one, two = (
        list(inserter.find_all(config, texts, workers=workers, batch_size=7)) for workers in (1, 2)
    )
    assert one == two and one[0] == [(8, 8)]
    assert not multiprocessing.active_children()
