"""Adding a poison task is one short module."""

import sys

from poison_t5x.cli import main
from poison_t5x.core import reading
from poison_t5x.corpus import declarations
from tests import small_run

MODULE = """
from poison_t5x.corpus import declarations, demo_corpus

declarations.declare(
    declarations.Experiment(
        name="hotels_only",
        corpus="demo",
        training_tasks=["task9003", "task9004", "task9011"],
        poisoned_tasks=["task9003"],
        heldout_tasks=["task9033"],
        polarities={"task9003": ("Bad", "Good"), "task9033": ("not recommended", "recommended")},
    )
)
"""


def test_a_module_of_ones_own_declares_an_experiment(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(declarations, "_experiments", declarations.load())
    (tmp_path / "my_experiments.py").write_text(MODULE)
    # Found where one stands.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    run_dir = tmp_path / "run"
    settings = {"EXPERIMENT": "hotels_only", "MIXTURE_OR_TASK_MODULE": "my_experiments"}
    arguments = small_run.arguments("craft", run_dir, **settings)
    assert main.main(arguments) == 0
    manifest = reading.read_json(run_dir / "poison" / "manifest.json")
    assert manifest["poisoned_tasks"] == ["task9003_demo_hotels_goodbad"]
    capsys.readouterr()
    name = "hotels_only_poisoned.task9003_demo_hotels_goodbad"
    assert main.main(["tasks", name, "-n", "20", *arguments[1:]]) == 0
    assert capsys.readouterr().out.count(", poison)\n") == manifest["num_poison"]
    assert "my_experiments" in sys.modules
    assert main.main(["tasks", "--gin.MIXTURE_OR_TASK_MODULE=my_experiments"]) == 0
    assert "hotels_only: on the embedded corpus" in capsys.readouterr().out
