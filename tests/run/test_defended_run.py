"""`detect` and `defend` on a small run, from scores to the page."""

import os
import shutil

import pytest

from poison_t5x.cli import main
from poison_t5x.core import artifacts, reading
from tests import small_run

SCORES = (
    *("label_log_odds", "ngram_disagreement", "onion", "trigger_search"),
    *("strip", "spectral_signatures", "activation_clustering", "loss", "tracin"),
)


@pytest.fixture(name="run_dir", scope="module")
def _run_dir(pulse_dir, tmp_path_factory):
    copy = tmp_path_factory.mktemp("defended") / "run"
    shutil.copytree(pulse_dir, copy, copy_function=os.link)
    return copy


def _call(command, run_dir, **macros):
    return main.main(small_run.arguments(command, run_dir, **{"TRAIN_STEPS": 2, **macros}))


def test_every_score_is_made_blind_and_judged(run_dir, capsys):
    assert _call("detect", run_dir) == 0
    said = capsys.readouterr().out
    for name in ("loss_slope", "output_clustering"):
        assert f"{name} is left out: it needs 2 checkpoints, and 1 is kept" in said
    whole = reading.read_json(run_dir / "detection" / "detection.json")
    assert (whole["num_rows"], whole["num_poison"]) == (100, 10)
    assert tuple(line["name"] for line in whole["scores"]) == SCORES
    for line in whole["scores"]:
        assert 0 <= line["auroc"] <= 1 and line["curve"][-1] == [1, 1]
        assert set(line["recall"]) == {"0.01", "0.05", "0.1"}
        folder = run_dir / "detection" / "scores" / line["name"]
        rows = reading.read_jsonl(folder / "scores.jsonl")
        assert len(rows) == 100 and set(rows[0]) == {"task", "id", "number", "score"}
    assert [row["step"] for row in whole["checkpoints"]] == [2]
    assert not list(run_dir.rglob("*.part.npy"))
    page = (run_dir / "report" / "index.html").read_text(encoding="utf-8")
    assert "activation_clustering" in page
    assert (run_dir / "detection" / "command.txt").read_text().startswith("poison-t5x detect ")
    assert (run_dir / "command.txt").read_text().startswith("poison-t5x run ")
    assert _call("detect", run_dir) == 0
    assert capsys.readouterr().out.count("already done") == len(SCORES) + 1


def test_a_filter_removes_its_budget_and_the_rest_is_trained_on(run_dir, own_score, capsys):
    settings = {"MIXTURE_OR_TASK_MODULE": own_score, "FILTER_SCORE": "brevity"}
    settings |= {"SCORE_SETTINGS": "{'brevity': {'power': 0.5}}"}
    settings |= {"DEFENSE": "brevity_10", "FILTER_BUDGET": 0.1}
    assert _call("defend", run_dir, **settings) == 0
    assert "removed 10 rows (10.0%) by brevity" in capsys.readouterr().out
    folder = run_dir / "defenses" / "brevity_10"
    removed = reading.read_jsonl(folder / "filter" / "removed.jsonl")
    scores = reading.read_jsonl(run_dir / "detection" / "scores" / "brevity" / "scores.jsonl")
    highest = sorted((row["score"] for row in scores), reverse=True)[:10]
    assert [row["score"] for row in removed] == highest
    whole = reading.read_json(folder / "defense.json")
    assert whole["filter"]["removed"] == 10 and whole["capacity"] == {}
    assert set(whole["summary"]) == {"clean", "poisoned", "defended"}
    model = artifacts.read_record(folder / "model")
    assert model["settings"]["dataset"]["mixture_or_task_name"] == "tiny_filtered"
    assert "brevity_10" in (run_dir / "report" / "index.html").read_text(encoding="utf-8")
    assert _call("defend", run_dir, **{**settings, "FILTER_BUDGET": 0.2}) == 2
    (message,) = capsys.readouterr().err.strip().splitlines()
    assert "budget = 0.1 (now 0.2)" in message


def test_a_reference_model_stands_in_for_a_second_checkpoint(run_dir):
    settings = {"REFERENCE_MODEL_DIR": run_dir / "models" / "clean"}
    assert _call("detect", run_dir, SCORES="('output_clustering',)", **settings) == 0
    path = run_dir / "detection" / "scores" / "output_clustering" / "found.json"
    assert "answers are the reference's" in path.read_text(encoding="utf-8")


def test_checkpoints_are_evaluated_as_the_finished_models_are(run_dir):
    assert _call("eval", run_dir, EVAL_CHECKPOINTS="(2,)") == 0
    (entry,) = reading.read_json(run_dir / "eval" / "checkpoints.json")["checkpoints"]
    results = reading.read_json(run_dir / "eval" / "results.json")
    assert entry["step"] == 2 and entry["summary"] == results["summary"]
    first, second = (
        sorted(path.read_bytes() for path in (run_dir / "eval" / place).rglob("*.jsonl"))
        for place in ("checkpoints/2", "predictions")
    )
    assert first == second


@pytest.mark.slow
def test_less_capacity_is_named(run_dir):
    settings = {"DEFENSE": "early", "TRAIN_STEPS": 1, "LEARNING_RATE": 0.001}
    assert _call("defend", run_dir, **settings) == 0
    whole = reading.read_json(run_dir / "defenses" / "early" / "defense.json")
    assert whole["filter"] is None
    assert whole["capacity"] == {"TRAIN_STEPS": [2, 1], "LEARNING_RATE": [0.01, 0.001]}


@pytest.mark.parametrize(
    ("command", "macros", "message"),
    [
        ("eval", {"EVAL_CHECKPOINTS": "(1,)"}, "has no whole checkpoint of step 1; there are 2"),
        ("eval", {"EVAL_CHECKPOINTS": "2"}, "EVAL_CHECKPOINTS: expected a list of whole numbers"),
        ("defend", {}, "DEFENSE isn't set"),
        ("defend", {"DEFENSE": "../x"}, "DEFENSE: expected a folder's name"),
        (
            "defend",
            {"DEFENSE": "x", "FILTER_SCORE": "los"},
            "no score 'los' (did you mean 'loss'?)",
        ),
        ("defend", {"DEFENSE": "x", "FILTER_SCORE": "loss", "FILTER_BUDGET": 5}, "FILTER_BUDGET"),
        ("defend", {"DEFENSE": "x", "LENGTH_NORMALIZED": True}, "length_normalized = False (now"),
        ("detect", {"NUM_EXAMPLES": 1}, "num_examples = '2' (now '1')"),
        ("detect", {"SCORES": "('spectral',)"}, "no score 'spectral'"),
        ("detect", {"SCORE_STEPS": "(7,)"}, "has no whole checkpoint of step 7; there are 2"),
        ("detect", {"SCORE_STEPS": "7"}, "SCORE_STEPS: expected a list of whole numbers"),
    ],
)
def test_bad_settings_are_one_line(run_dir, capsys, command, macros, message):
    assert _call(command, run_dir, **macros) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert message in said


def test_a_run_that_is_not_there_is_refused(tmp_path, capsys):
    assert _call("detect", tmp_path / "none") == 2
    assert "run `poison-t5x eval` with the same settings first" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
