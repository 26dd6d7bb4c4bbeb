"""What becomes of an exception: exit code, one line, and a file with a fault's traceback."""

import errno
import pathlib
import re
import sys
import types

import pytest

from poison_t5x.cli import main
from poison_t5x.core import errors, failures
from poison_t5x.train import program

ROOT = pathlib.Path(__file__).parents[2]


class _JaxRuntimeError(RuntimeError):
    pass


FORESEEN = [
    (errors.InputError("x: bad\nmore"), 2, "error: x: bad"),
    (errors.TryAgainError("later"), 75, "error: later"),
    (errors.BusyError("held"), 75, "error: held"),
    (errors.TrainingDivergedError("step 3"), 1, "training diverged: step 3"),
    (errors.Terminated("saved"), 143, "saved"),
    (KeyboardInterrupt(), 130, "interrupted; the same command goes on"),
    (MemoryError(), 2, "error: too large for this machine's memory (MemoryError)"),
    (
        _JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.\nmore"),
        2,
        "error: too large for this machine's memory (RESOURCE_EXHAUSTED: Out of memory allocating "
        "8 bytes.)",
    ),
    (RuntimeError("std::bad_alloc"), 2, "error: too large for this machine's memory"),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), 2, "error: too large for this machine's"),
    *[
        (OSError(number, "", "a/b"), code, f"error: a/b: {words}")
        for number, code, words in (
            (errno.ENOSPC, 75, "No space left on device"),
            (errno.EDQUOT, 75, "Disk quota exceeded"),
            (errno.EIO, 75, "Input/output error"),
            (errno.ESTALE, 75, "Stale file handle"),
            (errno.ETIMEDOUT, 75, "Connection timed out"),
            (errno.ECONNREFUSED, 75, "Connection refused"),
            (errno.EACCES, 2, "Permission denied"),
            (errno.EROFS, 2, "Read-only file system"),
            (errno.ENOTDIR, 2, "Not a directory"),
            (errno.EMFILE, 2, "Too many open files; raise `ulimit -n`"),
        )
    ],
    (ConnectionError("cut"), 75, "error: cut"),
    (TimeoutError("late"), 75, "error: late"),
    (
        ValueError("INTERNAL: writing: [OS error 28: ENOSPC No space left on device]\nmore"),
        75,
        "error: No space left on device",
    ),
]
UNFORESEEN = [
    TypeError("no"),
    KeyError("x"),
    OSError("no number"),
    OSError(errno.EBADF, "Bad file descriptor"),
    AssertionError(),
]


@pytest.fixture(autouse=True)
def _no_process_state(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(
        program, "signal", types.SimpleNamespace(signal=lambda *_: None, SIGTERM=15, SIGPIPE=13)
    )
    monkeypatch.setattr(sys, "path", [*sys.path])


def _run(error):
    def work():
        raise error

    return program._outcome(work)


@pytest.mark.parametrize(("error", "code", "line"), FORESEEN)
def test_what_is_foreseen_has_its_code_and_its_line(tmp_path, error, code, line):
    found, message = _run(error)
    assert (found, message.startswith(line), message.count("\n")) == (code, True, 0), message
    assert code in errors.EXIT_CODES and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", UNFORESEEN)
def test_a_fault_is_one_line_and_a_traceback_in_a_file(tmp_path, error):
    code, message = _run(error)
    assert code == errors.FAULT and code in errors.EXIT_CODES
    start = f"fault of poison_t5x: {type(error).__name__}: {errors.first_line(error)}; "
    assert message.startswith(start + "the traceback is in ")
    (file,) = tmp_path.iterdir()
    assert message.endswith(f" in {file}")
    text = file.read_text(encoding="utf-8")
    assert text.startswith("Traceback (most recent call last):") and "raise error" in text


def test_a_fault_without_a_folder_for_its_file_shows_the_traceback(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    code, message = _run(TypeError("é"))
    assert (code, message.endswith("; the traceback is above")) == (70, True)
    assert "raise error" in capsys.readouterr().err


def test_too_deep_a_recursion_is_the_inputs():
    def work():
        work()

    code, message = program._outcome(work)
    assert code == 2 and "nested too deep" in message


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (ValueError("at x: No space left on device [y]"), errors.TryAgainError, "No space left on"),
        (OSError(errno.EACCES, "Permission denied"), errors.InputError, "Permission denied"),
        (RuntimeError("NOT_FOUND: Permission denied"), errors.InputError, "Permission denied"),
        (ValueError("another thing"), ValueError, "another thing"),
        (errors.BusyError("held"), errors.BusyError, "held"),
    ],
)
def test_where_a_library_writes_the_place_is_named(error, kind, words):
    with pytest.raises(kind) as caught, failures.writing("runs/x"):
        raise error
    assert words in str(caught.value) and "\n" not in str(caught.value)
    is_ours = kind in (errors.TryAgainError, errors.InputError)
    assert str(caught.value).startswith("runs/x: can't be written (") == is_ours


def test_the_help_and_the_readme_have_the_table(capsys):
    with pytest.raises(SystemExit):
        main.main(["--help"])
    help_text = re.sub(r"\s+", " ", capsys.readouterr().out)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition("\n## When something is wrong\n")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| (\d+) \| (.+) \|$", section, re.MULTILINE))
    assert rows == {str(code): meaning for code, meaning in errors.EXIT_CODES.items()}
    for code, meaning in rows.items():
        assert f" {code} {meaning}" in help_text
