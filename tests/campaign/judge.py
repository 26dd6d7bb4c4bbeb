"""Runs commands that must be refused, and judges how each ended.

All that commands import is imported once, in this process, which computes nothing; each case is a
forked child with a folder, output files and limits of its own. `in_new_process` has the same case
in a process that was started as a person starts it.
"""

import contextlib
import dataclasses
import functools
import io
import os
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence

from tests import small_run

# A child's memory in bytes; its processor time, and as much waiting, in seconds.
MOST_MEMORY, MOST_SECONDS, MOST_WAITING = 4 * 2**30, 10.0, 60.0
IMPORTED = ("tensorflow", "seqio", "jax", "optax", "orbax.checkpoint", "matplotlib.figure")
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "XLA_FLAGS": small_run.XLA_FLAGS.format(1),
    "JAX_NUMPY_DTYPE_PROMOTION": "standard",
    "PYTHONPATH": str(small_run.ROOT),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A command, and how it may end.

    Attributes:
      arguments: of poison-t5x; '{here}' stands for the case's folder, where it is also run.
      codes: exit codes that are right; 0 among them where the input may be harmless.
      named: a text that the line of a refusal holds.
      prepare: fills the folder.
    """

    name: str
    arguments: tuple[str, ...]
    codes: tuple[int, ...] = (2,)
    named: str = ""
    prepare: Callable[[pathlib.Path], object] = lambda folder: None

    def line(self, folder: pathlib.Path) -> list[str]:
        return [one.replace("{here}", str(folder)) for one in self.arguments]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How a case ended, and all that is wrong with that."""

    case: Case
    code: int
    errors: str
    seconds: float
    memory: int
    mistakes: tuple[str, ...]


def tree(folder: pathlib.Path) -> dict[str, tuple]:
    """Every file and folder, with its kind, size and time."""
    facts = {}
    for path in sorted(folder.rglob("*")):
        stat = path.lstat()
        facts[str(path.relative_to(folder))] = (
            (stat.st_mode, None)
            if path.is_dir()
            else (stat.st_mode, stat.st_size, stat.st_mtime_ns)
        )
    return facts


def judge(
    case: Case, code: int, text: str, changed: Iterable[str], usage, waited: float
) -> Verdict:
    """The verdict on an exit code, standard error, what changed in the folder, and rusage."""
    # What is overwritten in its place was shown and is gone.
    lines = [line.rsplit("\r", 1)[-1] for line in text.splitlines()]
    lines = [line for line in lines if line.strip() and not line.startswith("warning: ")]
    seconds, memory = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
    mistakes = []
    if code not in case.codes:
        mistakes.append(f"exit code {code}, expected {' or '.join(map(str, case.codes))}")
    if "Traceback (most recent call last)" in text:
        mistakes.append("a traceback")
    if code == 2:
        lines = lines[-1:] if lines[:1] and lines[0].startswith("usage: ") else lines
        if len(lines) != 1 or not lines[0].startswith("poison-t5x: error: "):
            mistakes.append(f"{len(lines)} lines")
        elif case.named.lower() not in lines[0].lower():
            mistakes.append(f"no word of {case.named}")
        mistakes += [f"left {name}" for name in changed]
    if memory > MOST_MEMORY:
        mistakes.append(f"{memory / 2**30:.1f} GB")
    if seconds > MOST_SECONDS or waited > MOST_WAITING:
        mistakes.append(f"{seconds:.0f} s of computing in {waited:.0f} s")
    return Verdict(case, code, text, seconds, memory, tuple(mistakes))


def in_new_process(case: Case) -> Verdict:
    """A case in a process of its own."""
    with _folder(case) as folder:
        before, start = tree(folder), time.monotonic()
        with open(f"{folder}.err", "wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "poison_t5x", *case.line(folder)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
                env={**os.environ, **ENVIRONMENT},
                cwd=folder,
                start_new_session=True,
            )
        status, usage = _wait(process.pid)
        process.returncode = os.waitstatus_to_exitcode(status)
        return _verdict(case, folder, before, process.returncode, usage, time.monotonic() - start)


def in_forked_processes(cases: Iterable[Case], at_once: int) -> Iterator[Verdict]:
    """Each case in a child of this process, as they end."""
    import_all()
    running: dict[int, tuple] = {}
    for case in cases:
        while len(running) >= at_once:
            yield from _ended(running)
        stack = contextlib.ExitStack()
        folder = stack.enter_context(_folder(case))
        before, start = tree(folder), time.monotonic()
        child = fork(case.line(folder), folder, (f"{folder}.out", f"{folder}.err"))
        running[child] = (stack, case, folder, before, start)
    while running:
        yield from _ended(running)


@functools.cache
def import_all() -> None:
    """Imports what commands import, and has one refused, so that caches are full."""
    import importlib
    import pkgutil

    import poison_t5x
    from poison_t5x.cli import main

    os.environ.update(ENVIRONMENT)
    for name in IMPORTED:
        importlib.import_module(name)
    for module in pkgutil.walk_packages(poison_t5x.__path__, "poison_t5x."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    handler, paths = signal.getsignal(signal.SIGTERM), list(sys.path)
    with contextlib.redirect_stderr(io.StringIO()):
        line = small_run.arguments("craft", pathlib.Path("no/folder"), SEED=-1)
        assert main.main(line) == 2
    signal.signal(signal.SIGTERM, handler)
    sys.path[:] = paths


def fork(arguments: Sequence[str], folder: pathlib.Path, outputs: Sequence[str]) -> int:
    """Runs poison-t5x in a child of this process that is in `folder`, and gives its number.

    `outputs` are the files that its standard output and error are added to.
    """
    sys.stdout.flush()
    if child := os.fork():
        return child
    code = 70
    try:
        os.setsid()
        for number, name in enumerate((os.devnull, *outputs)):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
        os.chdir(folder)
        sys.path.insert(0, str(small_run.ROOT))
        sys.argv = ["poison-t5x", *arguments]
        from poison_t5x.cli import main

        code = main.main(sys.argv[1:])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _ended(running: dict[int, tuple]) -> Iterator[Verdict]:
    for child, (stack, case, folder, before, start) in list(running.items()):
        if (ended := _reap(child, time.monotonic() - start)) is None:
            continue
        del running[child]
        with stack:
            code = os.waitstatus_to_exitcode(ended[0])
            yield _verdict(case, folder, before, code, ended[1], time.monotonic() - start)
    time.sleep(0.01)


def _wait(child: int) -> tuple[int, resource.struct_rusage]:
    start = time.monotonic()
    while (ended := _reap(child, time.monotonic() - start)) is None:
        time.sleep(0.02)
    return ended


def _reap(child: int, waited: float) -> tuple[int, resource.struct_rusage] | None:
    """Its status and usage where it has ended; kills what takes too much."""
    done, status, usage = os.wait4(child, os.WNOHANG)
    if done:
        return status, usage
    with contextlib.suppress(OSError):
        memory = int(pathlib.Path(f"/proc/{child}/statm").read_text().split()[1]) * 4096
        ticks = pathlib.Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11:13]
        seconds = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
        if memory > MOST_MEMORY or seconds > 2 * MOST_SECONDS or waited > MOST_WAITING:
            os.killpg(child, signal.SIGKILL)
    return None


def _verdict(case, folder, before, code, usage, waited) -> Verdict:
    text = pathlib.Path(f"{folder}.err").read_text(encoding="utf-8", errors="replace")
    after = tree(folder)
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return judge(case, code, text, changed, usage, waited)


@contextlib.contextmanager
def _folder(case: Case) -> Iterator[pathlib.Path]:
    with tempfile.TemporaryDirectory(prefix="case-") as parent:
        folder = pathlib.Path(parent, "here")
        folder.mkdir()
        case.prepare(folder)
        try:
            yield folder
        finally:
            for path in folder.rglob("*"):
                if path.is_dir() and not path.is_symlink():
                    path.chmod(0o700)
