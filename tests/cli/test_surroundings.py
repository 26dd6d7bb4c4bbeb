"""Closed and full streams, an ASCII locale, no docstrings, odd variables: each in a process."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
FULL = "standard output: No space left on device"
# Shell's redirections -> exit code and standard error of a command that prints.
STREAMS = {
    ">&-": (0, ""),
    "2>&-": (0, ""),
    "<&-": (0, ""),
    "<&- >&- 2>&-": (0, ""),
    ">/dev/full": (75, f"poison-t5x: error: {FULL}\n"),
    "2>/dev/full": (0, ""),
    ">/dev/full 2>/dev/full": (75, ""),
    ">&- 2>/dev/full": (0, ""),
}


def _shell(command, tmp_path, **variables):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    environment = {name: value for name, value in environment.items() if value is not None}
    line = f"'{sys.executable}' -m poison_t5x {command}"
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, env=environment, cwd=tmp_path, check=False
    )


@pytest.mark.parametrize("streams", STREAMS)
def test_closed_and_full_streams(tmp_path, streams):
    result = _shell(f"tasks {streams}", tmp_path)
    assert (result.returncode, result.stderr.decode()) == STREAMS[streams]
    is_readable = ">&-" not in streams.split() and ">/dev/full" not in streams.split()
    assert bool(result.stdout) == is_readable


def test_help_that_nobody_can_read(tmp_path):
    result = _shell("--help >/dev/full", tmp_path)
    assert (result.returncode, result.stderr.decode()) == (75, f"poison-t5x: error: {FULL}\n")


def test_a_refusal_that_nobody_can_read_keeps_its_code(tmp_path):
    assert _shell("tasks no_such 2>&-", tmp_path).returncode == 2
    assert _shell("tasks no_such 2>/dev/full", tmp_path).returncode == 2


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    ("command", "variables"),
    [
        ("config --gin.TRIGGER='José …'", ASCII),
        ("config --gin.TRIGGER='José …'", {**ASCII, "LC_ALL": "POSIX"}),
        ("config --gin.TRIGGER='José …'", {"PYTHONIOENCODING": "ascii"}),
        ("config", {"PYTHONOPTIMIZE": "2"}),
        ("run --help", {"PYTHONOPTIMIZE": "2"}),
        ("--help", {"PYTHONOPTIMIZE": "2", "COLUMNS": "1"}),
        ("run --help", {"COLUMNS": "x", "TERM": None, "PYTHONHASHSEED": "5"}),
        ("config", {"HOME": None, "TMPDIR": "/no/such"}),
        ("config", {"MPLBACKEND": "nonsense"}),
    ],
)
def test_surroundings_that_change_nothing(tmp_path, command, variables):
    result = _shell(command, tmp_path, **variables)
    assert (result.returncode, result.stderr) == (0, b"")
    text = result.stdout.decode()
    if "é" in command:
        assert "'José …'" in text or "'Jos\\xe9 \\u2026'" in text
    if "help" in command:
        words = " ".join(text.split())
        assert ("xperiment" in words and "example:" in words) or "exit codes:" in words


def test_a_working_directory_that_is_gone(tmp_path):
    command = "tasks"
    folder = tmp_path / "gone"
    folder.mkdir()
    line = f"cd {folder} && rmdir {folder} && '{sys.executable}' -m poison_t5x {command}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        ["bash", "-c", line], capture_output=True, env=environment, text=True, check=False
    )
    line = "poison-t5x: error: the working directory is gone; change to another one\n"
    assert (result.returncode, result.stderr) == (2, line)


@pytest.mark.parametrize(
    ("limit", "code", "said"),
    [("true", 70, "a library ended it"), ("ulimit -v 8000000", 2, "too large for the memory")],
)
def test_a_library_that_gives_up(tmp_path, limit, code, said):
    text = "import ctypes\nfrom poison_t5x.train import program\nprogram.prepare_process()\n"
    text += "ctypes.CDLL(None).abort()\n"
    line = f"{limit} && exec '{sys.executable}' -c '{text}'"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        ["bash", "-c", line], capture_output=True, env=environment, text=True, check=False
    )
    assert result.returncode == code, result.stderr
    assert said in result.stderr and len(result.stderr.splitlines()) == 1
