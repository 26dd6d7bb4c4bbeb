"""Killed anywhere and started again, a run ends with the bits of one that was never killed."""

import json
import signal
import time

import pytest

from poison_t5x.core import artifacts, reading
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
    """Everything that a run's result is: rates, parameters, poison set, predictions, losses.

    Losses are the poisoned model's: where SIGTERM stops a model between two lines of its log, the
    next line is of fewer steps.
    """
    results = reading.read_json(run_dir / "report" / "results.json")
    results.pop("seconds")
    models = [run_dir / "models" / name for name in ("clean", "poisoned")]
    files = {
        path.relative_to(run_dir).as_posix(): path.read_bytes()
        for folder in ("poison", "vocabulary", "eval/predictions")
        for path in sorted((run_dir / folder).rglob("*"))
        if path.is_file() and path.name != artifacts.RECORD
    }
    parameters = [artifacts.read_record(model)["outputs"] for model in models]
    return results, parameters, files, (models[1] / "metrics.jsonl").read_text()


# Where a run is stopped, and whether that has come; by SIGKILL, unless SIGTERM is named.
KILLS = {
    "while crafting": lambda run: (run / "poison.partial").exists(),
    "while preparing data": lambda run: (run / "data.partial").exists(),
    "by SIGTERM, between checkpoints": lambda run: _last_step(run, "clean") >= 6,
    "while a checkpoint is written": lambda run: any(run.glob("models/clean/checkpoint_8*")),
    "in the second model": lambda run: _last_step(run, "poisoned") >= 10,
    "by SIGTERM, while evaluating": lambda run: _evaluates(run, "clean"),
    "while evaluating": lambda run: _evaluates(run, "poisoned"),
}


def _evaluates(run_dir, model):
    return any((run_dir / "eval" / "predictions" / f"{model}.partial").glob("*/*.json"))


@pytest.mark.parametrize(
    "places",
    [
        ("by SIGTERM, between checkpoints", "in the second model"),
        pytest.param(tuple(KILLS), marks=pytest.mark.slow, id="all"),
    ],
)
def test_killed_at_many_points(places, tmp_path):
    run_dir, log, whole = tmp_path / "run", tmp_path / "log", tmp_path / "whole"
    for place in places:
        number = signal.SIGTERM if "SIGTERM" in place else signal.SIGKILL
        process = small_run.start(small_run.arguments("run", run_dir), log)
        # SIGTERM is obeyed; nothing can obey SIGKILL.
        expected = 143 if number == signal.SIGTERM else -signal.SIGKILL
        assert _stop_when(lambda at=KILLS[place]: at(run_dir), process, number) == expected
        if place == "by SIGTERM, between checkpoints":
            last = log.read_text().replace("\r", "\n").strip().splitlines()[-1]
            assert "stopped by SIGTERM at step" in last
            step = int(last.split("at step ")[1].split(",")[0])
            assert (run_dir / "models" / "clean" / f"checkpoint_{step}.sha256.json").exists()
    for folder in (run_dir, whole):
        process = small_run.start(small_run.arguments("run", folder), log)
        assert process.wait(TIMEOUT) == 0
    outcome = _outcome(run_dir)
    assert outcome == _outcome(whole)
    assert not list(run_dir.rglob("*.partial"))
    # What is compared does differ where it should.
    assert outcome[1][0] != outcome[1][1]
    other = tmp_path / "other"
    assert small_run.start(small_run.arguments("craft", other, SEED=1), log).wait(TIMEOUT) == 0
    name = "poison/poison.jsonl"
    assert (other / name).read_bytes() != outcome[2][name]
