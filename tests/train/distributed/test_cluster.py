"""Processes that find each other, or say in one line why not; and learn of each other's end."""

import os
import re
import signal
import subprocess
import sys

import pytest

from poison_t5x.cli import main
from poison_t5x.core import errors
from poison_t5x.train import checkpoints, distributed
from tests import small_run
from tests.train.distributed import peer, two


@pytest.fixture(autouse=True)
def _process_state(monkeypatch):
    """Puts back what a command sets for its whole process."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_processes=2"], "--coordinator_address, --num_processes and --process_id go toge"),
        (["--process_id=0", "--num_processes=2"], "or give --distributed alone"),
        (["--coordinator_address=here", "--num_processes=2", "--process_id=0"], "HOST:PORT, found"),
        (["--coordinator_address=h:1", "--num_processes=2", "--process_id=2"], "expected 0 to 1"),
        (["--coordinator_address=h:1", "--num_processes=0", "--process_id=0"], "at least 1"),
    ],
)
@pytest.mark.filterwarnings("default")
def test_flags_that_do_not_fit_are_one_line(flags, message, capsys):
    assert main.main(["run", *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("poison-t5x: error: ") and message in line


def test_nothing_is_asked_for_unless_it_is_told(monkeypatch):
    monkeypatch.setattr("jax.distributed.initialize", lambda *a, **k: pytest.fail("asked"))
    distributed.initialize()
    assert distributed.num_processes() == 1 and distributed.is_main()
    assert distributed.who() == ""
    assert distributed.broadcast_from_main(lambda: 7) == 7


def test_where_nothing_is_detected_it_says_so():
    keep = {name: os.environ[name] for name in os.environ if not name.startswith("SLURM_")}
    done = subprocess.run(
        [sys.executable, "-m", "poison_t5x", "run"],
        env={**keep, "JAX_PLATFORMS": "cpu", "POISON_T5X_DISTRIBUTED": "1"},
        capture_output=True,
        text=True,
        timeout=two.TIMEOUT,
        cwd=small_run.ROOT,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "poison-t5x: error: --distributed: no Cloud TPU, GKE, Slurm or Open MPI is detected here; "
        "give --coordinator_address=HOST:PORT --num_processes=N --process_id=I"
    ]


def _two(how: str, folder="") -> list[tuple[int, str]]:
    return two.run(peer.__name__, two.free_port(), "{}", how, folder)


def test_whoever_waits_for_a_killed_one_is_told():
    (code, text), (killed, _) = _two("killed")
    assert (code, killed) == (distributed.EXIT_CODE, -signal.SIGKILL)
    assert text.splitlines()[-1] == (
        "poison-t5x: process 0 of 2 stops: process 1 is gone or can't be reached; crafting; the "
        "same command on all processes goes on"
    )


def test_one_that_leaves_says_why_and_the_others_end_as_it_did():
    (code, text), (left, _) = _two("left")
    assert (code, left) == (2, 2)
    # The same command doesn't go on: it would end the same way.
    assert text.splitlines()[-1] == (
        "poison-t5x: process 0 of 2 stops: process 1 is gone or can't be reached "
        "(error: no such file); crafting"
    )


@pytest.mark.slow
def test_training_stops_on_both_and_goes_on(tmp_path):
    (code, text), (other, _) = _two("train-sigterm", tmp_path)
    assert (code, other) == (143, 143), text
    # Told in its third step, it votes in the fourth, and all hear of that in the fifth.
    assert text.splitlines()[-1] == (
        "poison-t5x: process 0 of 2: train numbers: stopped by SIGTERM at step 5, checkpoint "
        "saved; the same command goes on"
    )
    assert checkpoints.committed_steps(tmp_path) == [5]
    # Killed at its third step from there, in the middle of what both do.
    (code, text), (killed, _) = _two("train-killed", tmp_path)
    assert (code, killed) == (distributed.EXIT_CODE, -signal.SIGKILL), text
    assert re.fullmatch(
        r"poison-t5x: process 0 of 2 stops: process 1 is gone or can't be reached; training was at "
        r"step [78], and the last checkpoint is of step 5; the same command on all processes goes "
        r"on",
        text.splitlines()[-1],
    )


def test_where_all_live_the_verdict_is_that_they_do():
    for number, (code, text) in enumerate(_two("alive")):
        assert code == 0, text
        assert text.splitlines()[-1] == f"process {number} of 2"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (errors.InputError("no such file"), 2, "process 1 of 2: error: no such file"),
        (RuntimeError("lost\nmore"), 70, "process 1 of 2: fault of poison_t5x: RuntimeError: lost"),
    ],
)
def test_an_error_names_its_process(monkeypatch, capsys, tmp_path, error, code, line):
    def fail(arguments):
        raise error

    left = []
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(main, "_main", fail)
    monkeypatch.setattr(distributed, "num_processes", lambda: 2)
    monkeypatch.setattr(distributed, "process_id", lambda: 1)
    monkeypatch.setattr(distributed, "await_verdict", lambda: left.append("waited"))
    monkeypatch.setattr(distributed, "leave", lambda *args, **kwargs: left.append(args))
    assert main.main(["run"]) == code
    (said,) = capsys.readouterr().err.splitlines()
    said, _, file = said.partition("; the traceback is in ")
    assert said == f"poison-t5x: {line}"
    assert (code == errors.FAULT) == bool(file) == (left[0] == "waited")
    assert left[-1][0] == code and left[-1][1].startswith(line.removeprefix("process 1 of 2: "))
