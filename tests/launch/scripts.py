"""Running launch scripts with programs that only write down how they were called."""

import os
import pathlib
import shlex
import subprocess

ROOT = pathlib.Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
EXAMPLE = LAUNCH / "pod.env.example"
RUN = "--gin_file=experiments/polarity.gin --gin_file=pods/xxl_v5p_32.gin"


def run(script, *arguments, env=EXAMPLE, path=None, **variables) -> subprocess.CompletedProcess:
    """A launch script; `path` is a folder of programs that come before the machine's."""
    environment = {**os.environ, "POD_ENV": str(env), **variables}
    if path:
        environment["PATH"] = f"{path}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", str(LAUNCH / script), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )


def dry(script, *arguments, env=EXAMPLE) -> list[str]:
    """The lines that --dry-run prints, with no cloud's or cluster's program at hand."""
    done = run(script, "--dry-run", *arguments, env=env, PATH="/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def fake(folder: pathlib.Path, name: str, body: str) -> None:
    """A program that runs `body`, and adds a line with its arguments to FOLDER/log."""
    program = folder / name
    log = shlex.quote(str(folder / "log"))
    program.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >> {log}\n{body}\n')
    program.chmod(0o755)


def called(folder: pathlib.Path) -> list[str]:
    """How the fakes were called."""
    log = folder / "log"
    return log.read_text().splitlines() if log.exists() else []


def changed(folder: pathlib.Path, **settings: str) -> pathlib.Path:
    """The example's settings with some changed; an empty value unsets one."""
    file = folder / "pod.env"
    lines = [f"{name}={shlex.quote(value)}" for name, value in settings.items()]
    file.write_text(EXAMPLE.read_text() + "\n".join(lines) + "\n")
    return file
