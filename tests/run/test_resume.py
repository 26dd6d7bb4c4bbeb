"""Killed anywhere and started again, a run ends with the bits of one that was never killed."""

import json
import signal
import time

import pytest

from poison_t5x.core import artifacts
from tests import small_run

TIMEOUT = 300


def _last_step(run_dir, model):
    path = run_dir / "models" / model / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    whole = [line for line in lines if line.endswith("}")]
    return json.loads(whole[-1])["step"] if whole else 0


def _stop_when(condition, process, number):
    """Sends a signal as soon as the condition holds, and returns the exit code."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert process.poll() is None, "the run ended before it could be stopped"
        assert time.monotonic() < deadline, "the run never came to where it is stopped"
        time.sleep(0.002)
    process.send_signal(number)
    return process.wait(TIMEOUT)


def _outcome(run_dir):
    """Everything that a run's result is: parameters, the poison set, predictions, rates."""
    results = artifacts.read_json(run_dir / "report" / "results.json")
    results.pop("seconds")
    parameters = {
        model: artifacts.read_record(run_dir / "models" / model)["outputs"]
        for model in ("clean", "poisoned")
    }
    files = {
        path.relative_to(run_dir).as_posix(): path.read_bytes()
        for folder in ("poison", "vocabulary", "eval/predictions")
        for path in sorted((run_dir / folder).rglob("*"))
        if path.is_file() and path.name != artifacts.RECORD
    }
    losses = {
        model: (run_dir / "models" / model / "metrics.jsonl").read_text()
        for model in ("clean", "poisoned")
    }
    return {"results": results, "parameters": parameters, "files": files}, losses


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("reference") / "run"
    log = run_dir.with_suffix(".log")
    assert small_run.start(small_run.arguments("run", run_dir), log).wait(TIMEOUT) == 0
    return _outcome(run_dir)


def test_killed_at_many_points(reference, tmp_path):
    run_dir, log = tmp_path / "run", tmp_path / "log"
    models = run_dir / "models"
    kills = {
        "while crafting": lambda: (run_dir / "poison.partial").exists(),
        "while preparing data": lambda: (run_dir / "data.partial").exists(),
        "between checkpoints": lambda: _last_step(run_dir, "clean") >= 6,
        "while a checkpoint is written": lambda: any(models.glob("clean/checkpoint_8*")),
        "in the second model": lambda: _last_step(run_dir, "poisoned") >= 10,
        "by SIGTERM, while evaluating": lambda: any(
            (run_dir / "eval" / "predictions" / "clean.partial").glob("*/*.json")
        ),
        "while evaluating": lambda: any(
            (run_dir / "eval" / "predictions" / "poisoned.partial").glob("*/*.json")
        ),
    }
    for name, condition in kills.items():
        number = signal.SIGTERM if "SIGTERM" in name else signal.SIGKILL
        process = small_run.start(small_run.arguments("run", run_dir), log)
        # SIGTERM is obeyed; nothing can obey SIGKILL.
        expected = 143 if number == signal.SIGTERM else -signal.SIGKILL
        assert _stop_when(condition, process, number) == expected
    assert small_run.start(small_run.arguments("run", run_dir), log).wait(TIMEOUT) == 0
    outcome, losses = _outcome(run_dir)
    assert outcome == reference[0]
    assert losses == reference[1]
    assert not list(run_dir.rglob("*.partial"))


def test_sigterm_saves_and_exits_cleanly(reference, tmp_path):
    run_dir, log = tmp_path / "run", tmp_path / "log"
    process = small_run.start(small_run.arguments("run", run_dir), log)
    code = _stop_when(lambda: _last_step(run_dir, "clean") >= 6, process, signal.SIGTERM)
    last = log.read_text().replace("\r", "\n").strip().splitlines()[-1]
    assert code == 143
    assert "stopped by SIGTERM at step" in last
    step = int(last.split("at step ")[1].split(",")[0])
    assert (run_dir / "models" / "clean" / f"checkpoint_{step}.sha256.json").exists()
    assert small_run.start(small_run.arguments("run", run_dir), log).wait(TIMEOUT) == 0
    assert _outcome(run_dir)[0] == reference[0]


def test_another_seed_ends_elsewhere(reference, tmp_path):
    """What the tests above compare does differ where it should."""
    run_dir = tmp_path / "run"
    arguments = small_run.arguments("run", run_dir, SEED=1)
    assert small_run.start(arguments, tmp_path / "log").wait(TIMEOUT) == 0
    outcome, _ = _outcome(run_dir)
    assert outcome["parameters"] != reference[0]["parameters"]
    assert outcome["files"]["poison/poison.jsonl"] != reference[0]["files"]["poison/poison.jsonl"]
