"""launch/t5x.sh: what it runs, with everything already installed; and what it pins."""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "launch" / "t5x.sh"


def _pins() -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=([0-9a-f]{40})\b", SCRIPT.read_text(), re.M))


@pytest.fixture
def installed(tmp_path):
    """A checkout whose .venv is there, with a `python` that says what it is called with."""
    (tmp_path / "launch").mkdir()
    shutil.copy(SCRIPT, tmp_path / "launch")
    _write_script(tmp_path / "launch" / "venv.sh", "true")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    _write_script(tmp_path / ".venv" / "bin" / "python", 'printf "%s\\n" "$@"')
    (tmp_path / ".venv" / "t5x").mkdir()
    stamp = "-".join(["made-from", *(commit[:7] for commit in _pins().values())])
    (tmp_path / ".venv" / "t5x" / stamp).touch()
    return tmp_path


def _write_script(path: pathlib.Path, line: str) -> None:
    path.write_text(f"#!/usr/bin/env bash\n{line}\n")
    path.chmod(0o755)


def _run(checkout: pathlib.Path, *arguments: str, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [checkout / "launch" / "t5x.sh", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_all_three_sources_are_pinned():
    assert set(_pins()) == {"t5x", "airio", "jestimator"}


def test_this_projects_gin_files_are_found(installed):
    result = _run(installed, "python", "-m", "t5x.train", "--gin_file=t5x/demo.gin")
    expected = ["-m", "t5x.train", "--gin_file=t5x/demo.gin"]
    assert result.stdout.split() == [*expected, f"--gin_search_paths={installed}/gin"]


def test_search_paths_that_are_given_come_first(installed):
    result = _run(installed, "python", "-m", "t5x.eval", "--gin_search_paths=mine", "--x=a b")
    expected = ["-m", "t5x.eval", f"--gin_search_paths=mine,{installed}/gin", "--x=a b"]
    assert result.stdout.splitlines() == expected


def test_other_commands_are_run_as_they_are(installed):
    assert _run(installed, "python", "-c", "pass").stdout.splitlines() == ["-c", "pass"]
    assert "T5X is installed" in _run(installed).stdout


def test_a_missing_source_is_one_line(installed):
    shutil.rmtree(installed / ".venv" / "t5x")
    result = _run(installed, T5X_SOURCES="/nowhere")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("launch: /nowhere/t5x isn't a git repository with commit cc342d4")
    assert not (installed / ".venv" / "t5x").exists()
