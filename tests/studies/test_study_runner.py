"""Cells as processes: several at once, within memory, killed and gone on with."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from poison_t5x.core import errors, reading
from poison_t5x.studies import command, launch
from tests.studies import driver

ROOT = pathlib.Path(__file__).parents[2]


def _start(directory, *arguments, **environment):
    line = [sys.executable, "-m", "tests.studies.driver", str(directory), *map(str, arguments)]
    variables = {**os.environ, **environment, "TQDM_DISABLE": "1"}
    return subprocess.Popen(
        line, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _await(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def _is_alive(process_id):
    try:
        return pathlib.Path(f"/proc/{process_id}/stat").read_text().rsplit(")")[1].split()[0] != "Z"
    except OSError:
        return False


def _records(directory):
    return {path.parent.name for path in directory.glob(f"cells/*/{command.RECORD}")}


def test_a_killed_study_leaves_no_cell_behind_and_goes_on(tmp_path):
    study = _start(tmp_path, 12, 4, FAKE_SECONDS="0.2")
    _await(lambda: len(_records(tmp_path)) >= 3)
    study.kill()
    study.communicate()
    done, started = _records(tmp_path), driver.notes(tmp_path)
    assert 3 <= len(done) < 12
    assert len(started) > len(done)  # some were under way
    _await(lambda: not any(_is_alive(note[2]) for note in started), seconds=5)
    again = _start(tmp_path, 12, 4)
    output, _ = again.communicate(timeout=60)
    assert again.returncode == 0, output
    assert f"12 cells, {len(done)} of them done; 4 at once" in output
    assert len(_records(tmp_path)) == 12
    later = [note[0] for note in driver.notes(tmp_path)[len(started) :]]
    assert sorted(later) == sorted(_records(tmp_path) - done)
    assert len(reading.read_json(tmp_path / "study.json")["summary"]) == 12


def test_sigterm_ends_the_cells_and_says_how_to_go_on(tmp_path):
    study = _start(tmp_path, 3, 2, FAKE_SECONDS="30")
    _await(lambda: len(driver.notes(tmp_path)) == 2)
    study.send_signal(signal.SIGTERM)
    study.communicate(timeout=10)
    assert study.returncode == errors.Terminated.CODE
    assert not any(_is_alive(note[2]) for note in driver.notes(tmp_path))
    assert _records(tmp_path) == set()


def test_a_failed_cell_is_listed_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FAKE_FAILS", "NUM_POISON_20--SEED_1")
    said = []
    study = driver.study(tmp_path, processes=2, question="Does it?")
    assert study.run(said.append) == 1
    error = "NUM_POISON: too many (exit code 1)"
    assert said[-1] == f"failed: NUM_POISON_20--SEED_1: {error}"
    whole = reading.read_json(tmp_path / "study.json")
    assert whole["failed"] == [{"cell": "NUM_POISON_20--SEED_1", "error": error}]
    assert [cell["status"] for cell in whole["cells"]] == ["done", "done", "done", "failed"]
    assert "1 cell failed: NUM_POISON_20--SEED_1." in whole["finding"]
    page = (tmp_path / "index.html").read_text()
    assert "Cells that failed" in page and "too many (exit code 1)" in page
    log = tmp_path / "cells" / "NUM_POISON_20--SEED_1" / "log.txt"
    assert log.read_text().splitlines() == ["half-way", "poison-t5x: error: NUM_POISON: too many"]
    monkeypatch.delenv("FAKE_FAILS")
    assert driver.study(tmp_path, processes=2).run(said.append) == 0
    assert len(driver.notes(tmp_path)) == 5  # the failed one alone once more


def test_the_same_cells_give_the_same_bytes_in_whatever_order(tmp_path):
    written = []
    for name, processes in (("one", 1), ("two", 4)):
        folder = tmp_path / name
        assert driver.study(folder, processes=processes).run(lambda line: None) == 0
        paths = [folder / "study.json", *folder.glob("figures/*")]
        written.append({path.name: path.read_bytes() for path in paths})
    assert written[0] == written[1]
    assert set(written[0]) >= {f"effect_by_NUM_POISON.{kind}" for kind in ("svg", "png")}


def _most_at_once(directory, limits, megabytes, monkeypatch):
    """The most cells that ran at once."""
    counts, step = [], launch.Scheduler.step

    def counted(scheduler):
        ended = step(scheduler)
        counts.append(len(scheduler.running))
        return ended

    monkeypatch.setenv("FAKE_SECONDS", "0.5")
    monkeypatch.setenv("FAKE_MEGABYTES", str(megabytes))
    with monkeypatch.context() as patch:
        patch.setattr(launch, "limits", lambda processes, gb: limits)
        patch.setattr(launch.Scheduler, "step", counted)
        assert driver.study(directory).run(lambda line: None) == 0
    return max(counts)


@pytest.mark.parametrize(
    ("memory", "megabytes", "most"), [(1e9, 40, 4), (2e8, 60, 2), (1e7, 40, 1)]
)
def test_memory_holds_cells_back(tmp_path, monkeypatch, memory, megabytes, most):
    limits = launch.Limits(4, memory, first_guess=0.08e9)
    assert _most_at_once(tmp_path, limits, megabytes, monkeypatch) == most


def test_what_earlier_cells_needed_is_known_when_a_study_goes_on(tmp_path):
    done = {"a": launch.JobOutcome("", 1.0, 700)}
    jobs = [
        launch.Job(name, [[sys.executable, "-c", "import time; time.sleep(0.3)"]], tmp_path / name)
        for name in ("b", "c")
    ]
    scheduler = launch.Scheduler(jobs, launch.Limits(2, 1300, first_guess=1), done)
    scheduler.step()
    assert [running.job.name for running in scheduler.running] == ["b"]
    scheduler.end()


def test_cores_are_shared_out_evenly(tmp_path):
    assert launch.Limits(2, 1, (0, 1, 2, 3, 4)).shares == [(0, 1), (2, 3)]
    assert launch.Limits(3, 1, (0, 1)).shares == [(0, 1)] * 3
    cores = sorted(os.sched_getaffinity(0))
    driver.study(tmp_path, processes=1).run(lambda line: None)
    assert {note[3] for note in driver.notes(tmp_path)} == {str(cores)}


def _run(folder, *jobs):
    """Job -> how it ended, of (name, code) or (name, code, those after which it comes)."""
    ended = {}
    launch.run(
        [
            launch.Job(name, [[sys.executable, "-c", code]], folder / name, *after)
            for name, code, *after in jobs
        ],
        launch.Limits(2, 1e12),
        lambda job, outcome: ended.setdefault(job.name, outcome.error),
        done={},
    )
    return ended


def test_a_job_waits_for_what_it_reads_and_fails_with_it(tmp_path):
    jobs = [("c", "", ("b",)), ("b", "1 / 0", ("a",)), ("a", ""), ("d", "", ("a",))]
    ended = _run(tmp_path, *jobs)
    assert next(iter(ended)) == "a" and ended["a"] == ended["d"] == ""
    assert ended["b"] == "ZeroDivisionError: division by zero (exit code 1)"
    assert ended["c"] == "needs cell b, which failed"


def test_a_cell_that_a_signal_ended_says_which(tmp_path):
    code = "import os, signal; print('so far', flush=True); os.kill(os.getpid(), signal.SIGSEGV)"
    assert _run(tmp_path, ("a", code)) == {"a": "so far (signal 11)"}


@pytest.mark.skipif(sys.platform != "linux", reason="the system's own leash")
def test_a_command_whose_parent_is_gone_already_does_not_start(tmp_path):
    line = [sys.executable, "-m", "poison_t5x.studies.launch", "1", "-"]
    line += ["touch", str(tmp_path / "x")]
    code = subprocess.run(line, cwd=ROOT, check=False).returncode
    assert code == -signal.SIGKILL and not (tmp_path / "x").exists()


def test_list_runs_nothing(tmp_path, capsys):
    driver.study(tmp_path).show(print)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "NUM_POISON_10--SEED_0" and lines[1].startswith("  poison-t5x run ")
    assert len(lines) == 8 and list(tmp_path.iterdir()) == []
