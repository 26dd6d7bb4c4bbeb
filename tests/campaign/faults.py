"""`python -m tests.campaign.faults`: what goes wrong around a command ends with one word for it.

Each fault is tried on a process of its own; where the command can't do its work, the same command
without the fault ends well afterwards. Exits with 1 where a fault ends otherwise than it should.
"""

import argparse
import contextlib
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from tests import small_run
from tests.campaign import judge, kills
from tests.report import made_up

CRAFT = small_run.arguments("craft", pathlib.Path("here"))
RUN = small_run.arguments("run", pathlib.Path("here"), TRAIN_STEPS=2)
SCAN = [*kills.COMMANDS["scan"][:2], "--output", "here", "--scores", "trigger_search"]
COMPARE = ["report", "made_up", "made_up", "--output", "here"]


class Fault(NamedTuple):
    """What goes wrong, in which command, and the exit codes that are right.

    Attributes:
      variables: of the environment; None takes one out.
      limit: sets a limit in the process.
      redirected: the shell's redirections.
      disk: options of a small disk (tmpfs) that the command's folder is on.
    """

    name: str
    arguments: Sequence[str]
    codes: tuple[int, ...] = (0,)
    variables: Mapping[str, str | None] = {}
    limit: Callable[[], object] | None = None
    redirected: str = ""
    disk: str = ""


def _limited(name: str, most: int) -> Callable[[], object]:
    return lambda: resource.setrlimit(getattr(resource, name), (most, most))


ASCII = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
FAULTS = (
    Fault("a full disk, crafting", CRAFT, (75,), disk="size=60k"),
    Fault("a full disk, training", RUN, (75,), disk="size=1m"),
    Fault("a full disk, scanning", SCAN, (75,), disk="size=40k"),
    Fault("files of 20 kB at most", SCAN, (2,), limit=_limited("RLIMIT_FSIZE", 20_000)),
    Fault("a read-only disk", CRAFT, (2,), disk="ro"),
    Fault("a read-only disk, scanning", SCAN, (2,), disk="ro"),
    Fault("few files at once", SCAN, (1, 2), limit=_limited("RLIMIT_NOFILE", 12)),
    Fault("few files at once, crafting", CRAFT, (0, 2), limit=_limited("RLIMIT_NOFILE", 24)),
    Fault("little memory", CRAFT, (2,), limit=_limited("RLIMIT_AS", 2**31)),
    Fault("little memory, scanning", SCAN, (1, 2), limit=_limited("RLIMIT_AS", 2**27)),
    Fault("no home", CRAFT, variables={"HOME": None}),
    Fault("no home, comparing", COMPARE, variables={"HOME": "/nowhere"}),
    Fault("a closed output", COMPARE, redirected=">&-"),
    Fault("closed errors", COMPARE, redirected="2>&-"),
    Fault("both closed, and no input", CRAFT, redirected="<&- >&- 2>&-"),
    Fault("a full output", COMPARE, (75,), redirected=">/dev/full"),
    Fault("full errors", COMPARE, redirected="2>/dev/full"),
    Fault("an ASCII locale", CRAFT, variables=ASCII),
    Fault("an ASCII locale, comparing", COMPARE, variables=ASCII),
    Fault("an ASCII locale, macros", ["config"], variables=ASCII),
    Fault("an ASCII locale, help", ["--help"], variables=ASCII),
    Fault("without docstrings", CRAFT, variables={"PYTHONOPTIMIZE": "2"}),
    Fault("without docstrings, help", ["--help"], variables={"PYTHONOPTIMIZE": "2"}),
    Fault("a wrong MPLBACKEND", COMPARE, variables={"MPLBACKEND": "nonsense"}),
    Fault("a wrong MPLBACKEND, running", RUN, variables={"MPLBACKEND": "nonsense"}),
    Fault("no such device", RUN, (2,), variables={"JAX_PLATFORMS": "gpu"}),
    Fault("wrong flags of XLA", RUN, (2,), variables={"XLA_FLAGS": "--no_such_flag=1"}),
    Fault("no folder for temporary files", COMPARE, variables={"TMPDIR": "/nowhere"}),
)


@contextlib.contextmanager
def _disk(folder: pathlib.Path, options: str) -> Iterator[None]:
    """A small disk at the folder; raises PermissionError where none can be mounted."""
    if not options:
        yield
        return
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        raise PermissionError("no disk can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def try_one(fault: Fault) -> str | None:
    """What is wrong with how a fault ended; '' for nothing, None where it can't be tried here."""
    with tempfile.TemporaryDirectory(prefix="fault-") as temporary:
        base = pathlib.Path(temporary)
        kills.write_rows(base)
        made_up.classification_run(base / "made_up")
        (base / "made_up" / "report").mkdir()
        (base / "made_up/eval/results.json").rename(base / "made_up/report/results.json")
        (base / "disk").mkdir()
        # On the small disk is what the command writes, and nothing else.
        line = ["disk/here" if one == "here" else one for one in fault.arguments]
        line = [one.replace("RUN_DIR=here", "RUN_DIR=disk/here") for one in line]
        mended = ""
        environment = {**os.environ, **judge.ENVIRONMENT, **fault.variables}
        try:
            with _disk(base / "disk", fault.disk):
                code, text = _call(line, base, environment, fault)
                if fault.disk.startswith("size"):
                    grow = ["mount", "-o", "remount,size=200m", str(base / "disk")]
                    subprocess.run(grow, check=True)
                    mended = _mended(line, base)
        except PermissionError:
            return None
        if code > 1 and not fault.disk.startswith("size"):
            mended = _mended(line, base)
    said = [one for one in text.splitlines() if one.startswith("poison-t5x: ")]
    mistakes = [] if code in fault.codes else [f"exit code {code}, expected {fault.codes}"]
    if "Traceback (most recent call last)" in text:
        mistakes.append("a traceback")
    if code > 1 and "2>" not in fault.redirected and len(said) != 1:
        mistakes.append(f"{len(said)} lines")
    return "; ".join(filter(None, [*mistakes, mended])) + (text[-300:] if mistakes else "")


def _call(line, base, environment, fault: Fault | None = None) -> tuple[int, str]:
    with open(base / "errors", "wb") as file:
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {fault.redirected if fault else ""}', "sh"]
            + [sys.executable, "-m", "poison_t5x", *line],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=file,
            cwd=base,
            env={name: value for name, value in environment.items() if value is not None},
            preexec_fn=fault.limit if fault else None,
            timeout=600,
            check=False,
        )
    return done.returncode, (base / "errors").read_text(errors="replace")


def _mended(line: Sequence[str], base: pathlib.Path) -> str:
    """What is wrong with the same command without the fault."""
    code, text = _call(line, base, {**os.environ, **judge.ENVIRONMENT})
    left = [
        path.name for path in (base / "disk").rglob("*") if path.suffix in (".partial", ".lock")
    ]
    if code not in (0, 1):
        return f"afterwards exit code {code}: {text[-300:]}"
    return f"left {left}" if left else ""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="a pattern of faults' names")
    options = parser.parse_args(arguments)
    tried = []
    for fault in FAULTS:
        if not re.search(options.only, fault.name):
            continue
        if (mistake := try_one(fault)) is not None:
            tried.append(mistake)
            print(f"{fault.name}: {mistake or 'as it should'}", flush=True)
    print(f"{tried.count('')} of {len(tried)} faults ended as they should")
    return int(any(tried))


if __name__ == "__main__":
    sys.exit(main())
