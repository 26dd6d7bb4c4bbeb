"""A finished run belongs to its settings: no later command changes what its records say."""

import os
import shutil

import pytest

from poison_t5x.cli import main
from poison_t5x.core import errors, locks, reading
from poison_t5x.evaluation import metric
from tests import small_run

FILES = ("config.gin", "command.txt", "eval/results.json", "report/index.html")


@pytest.fixture(name="run_dir", scope="module")
def _run_dir(pulse_dir, tmp_path_factory):
    copy = tmp_path_factory.mktemp("records") / "run"
    shutil.copytree(pulse_dir, copy, copy_function=os.link)
    return copy


def _call(command, run_dir, *flags, **macros):
    settings = {"TRAIN_STEPS": 2, **macros}
    return main.main([*small_run.arguments(command, run_dir, **settings), *flags])


@pytest.mark.parametrize(
    ("command", "macros", "said"),
    [
        ("craft", {"SEED": 1}, "craft.seed = 0 (now 1)"),
        ("train", {"NUM_POISON": 9}, "num_poison = 10 (now 9)"),
        ("train", {"BATCH_SIZE": 32}, "dataset.batch_size = 16 (now 32)"),
        ("eval", {"NUM_EVAL_PER_TASK": 20}, "craft.num_eval_per_task = 8 (now 20)"),
        ("eval", {"LENGTH_NORMALIZED": True}, "eval.length_normalized = False (now True)"),
        ("report", {"TRIGGER": "Joe Biden"}, "triggers = ['James Bond'] (now ['Joe Biden'])"),
        ("report", {"LEARNING_RATE": 7.0}, "base_learning_rate = 0.01 (now 7.0)"),
        ("detect", {"LEARNING_RATE": 7.0}, "base_learning_rate = 0.01 (now 7.0)"),
        ("detect", {"VOCABULARY_SIZE": 900}, "size = 1000 (now 900)"),
        ("defend", {"TRIGGER": "Joe Biden", "DEFENSE": "x"}, "now ['Joe Biden']"),
    ],
)
def test_other_settings_are_refused_before_anything_is_done(run_dir, capsys, command, macros, said):
    before = [(run_dir / name).stat().st_mtime_ns for name in FILES]
    assert _call(command, run_dir, **macros) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line and "STAGE_STORE_DIR" in line
    assert [(run_dir / name).stat().st_mtime_ns for name in FILES] == before
    assert not (run_dir / "detection").exists() and not (run_dir / "defenses").exists()


@pytest.mark.parametrize("command", ["craft", "train", "eval", "report", "detect", "defend"])
def test_a_second_command_on_the_folder_is_refused_and_touches_nothing(run_dir, capsys, command):
    with locks.alone(run_dir):
        before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")}
        assert _call(command, run_dir) == errors.BusyError.code
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert f"{run_dir}: process {os.getpid()} on " in line
        assert {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")} == before


def test_a_finished_run_has_nothing_half_written(run_dir, capsys):
    left = run_dir / "eval" / "old.partial"
    left.mkdir()
    assert main.main(["doctor", str(run_dir)]) == 0
    assert f"{left}  half-written" in capsys.readouterr().out
    assert _call("run", run_dir) == 0
    assert not left.exists()
    assert main.main(["doctor", str(run_dir)]) == 0
    assert f"{run_dir}  nothing is half-written" in capsys.readouterr().out


def test_an_export_of_other_settings_is_refused(run_dir, capsys):
    assert _call("craft", run_dir, "--format=natinst-jsonl", CRAFT_WORKERS=2) == 0
    assert "CRAFT_WORKERS = 2" in (run_dir / "config.gin").read_text()  # a stage was made
    assert _call("report", run_dir, NATINST_JSONL_EPOCHS=2) == 2
    assert "epochs = 1 (now 2)" in capsys.readouterr().err


def test_a_command_that_makes_nothing_writes_nothing_down(run_dir):
    before = (run_dir / "config.gin").read_bytes()
    assert _call("report", run_dir, EVAL_PERIOD=5) == 0
    assert (run_dir / "config.gin").read_bytes() == before


def test_a_stage_of_the_store_says_so_and_shares_what_is_unchanged(tmp_path, capsys):
    store = {"STAGE_STORE_DIR": tmp_path / "store"}
    assert _call("craft", tmp_path / "a", **store) == 0
    capsys.readouterr()
    assert _call("craft", tmp_path / "b", TRIGGER="Joe Biden", **store) == 0
    said = capsys.readouterr().out
    assert f"vocabulary: taken from the store {tmp_path / 'store'}" in said
    assert "poison: done in" in said
    assert "Joe Biden" in (tmp_path / "b" / "config.gin").read_text()


@pytest.mark.parametrize(
    ("run_dir", "message"),
    [("gs://bucket/run", "RUN_DIR: expected a path on a disk of this machine"), ("~/run", "")],
)
def test_run_dirs_are_resolved_once(run_dir, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert _call("report", run_dir) == 2
    assert (message or f"{tmp_path / 'home' / 'run'}") in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_metric_of_ones_own_is_one_decorator(run_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(metric.METRICS, "_targets", dict(metric.METRICS._targets))

    @metric.METRICS.register("mean_score")
    def mean_score(targets, scores):
        """Mean log-probability of the true labels."""
        return {"mean_score": sum(scores) / len(targets)}

    copy = tmp_path / "run"
    shutil.copytree(run_dir, copy, copy_function=os.link)
    shutil.rmtree(copy / "eval")
    own = {"METRICS": "['mean_score']"}
    assert _call("eval", copy, **own) == 0
    results, plain = (reading.read_json(path / "eval" / "results.json") for path in (copy, run_dir))
    for row, before in zip(results["tasks"], plain["tasks"], strict=True):
        assert row.pop("mean_score") < 0
        assert row == before
    assert results["summary"]["clean"]["mean_score_triggered"] < 0
    assert _call("report", copy, **own) == 0
    assert "mean score triggered" in capsys.readouterr().out
    assert _call("eval", copy, METRICS="['mean_scor']") == 2
    assert "(did you mean 'mean_score'?)" in capsys.readouterr().err
