"""Runs the cells of a study, several at once, within the machine's cores and memory.

Each cell is a process of its own in a session of its own, so that Ctrl-C reaches it through this
one alone; and the system kills it when this one is gone, however that one ended.
"""

# submitit 1.5.4 was tried in place of this: its LocalExecutor starts all cells at once, without a
# bound on memory or an order, and of four cells all four outlived a study ended by SIGTERM, SIGINT
# or SIGKILL.

import contextlib
import ctypes
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from poison_t5x.core import errors, machine, reading

# Until a cell has shown what it needs: a run of the demo, and some more.
FIRST_GUESS = 3e9
_LOOK_SECONDS = 0.2
# A training step and a checkpoint's writing fit into it; then it is SIGKILL.
_GRACE_SECONDS = 30
_TAIL_BYTES = 20_000
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


class Limits(NamedTuple):
    """The most that cells may take: how many at once, and bytes of all of them together.

    `cores` of this process are shared out; `first_guess` is the bytes that a cell is taken to need
    until one has shown it.
    """

    processes: int
    memory: float
    cores: tuple[int, ...] = ()
    first_guess: float = FIRST_GUESS

    @property
    def shares(self) -> list[tuple[int, ...]]:
        """A share of the cores for each cell at once, all of one size: sums on more threads differ
        in their last bits."""
        size = len(self.cores) // self.processes
        if not size:
            return [self.cores] * self.processes
        return [self.cores[n * size : (n + 1) * size] for n in range(self.processes)]


def limits(processes: int | None, memory_gb: float | None) -> Limits:
    """The limits that a study asked for, or what the machine has.

    Args:
      processes: cells at once; None for half of the cores, or 1 where there are accelerators.
      memory_gb: in GB; None for nine tenths of what is free now.
    """
    cores = tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()
    memory = 0.9 * _free_memory() if memory_gb is None else memory_gb * 1e9
    if processes is None:
        # Not from the memory that happens to be free: a cell's share of the cores follows from it.
        # A GPU or TPU a process takes for itself.
        devices = (pathlib.Path("/dev").glob(name) for name in ("nvidia[0-9]*", "accel*"))
        has_accelerator = any(next(paths, None) for paths in devices)
        processes = 1 if has_accelerator else max(1, (len(cores) or os.cpu_count() or 2) // 2)
    return Limits(processes, memory, cores)


def _free_memory() -> float:
    """Bytes: the machine's, or what its container is given, if that is less."""
    import psutil

    return float(min(psutil.virtual_memory().available, machine.memory_bytes()))


class Job(NamedTuple):
    """One cell's processes: commands run one after the other while they succeed.

    `log` gains their output; jobs `after` which it comes must have succeeded first.
    """

    name: str
    commands: Sequence[Sequence[str]]
    log: pathlib.Path
    after: tuple[str, ...] = ()


class JobOutcome(NamedTuple):
    """How a job ended: `error` is '' where it succeeded; seconds, and most bytes of memory seen."""

    error: str
    seconds: float = 0.0
    peak_bytes: int = 0


class _Running:
    """A job under way."""

    def __init__(self, job: Job, cores: Sequence[int]):
        self.job, self.cores = job, cores
        self._begin, self.peak = time.monotonic(), 0
        self._commands = list(job.commands)
        job.log.parent.mkdir(parents=True, exist_ok=True)
        self._start()

    def _start(self) -> None:
        cores = ",".join(map(str, self.cores)) or "-"
        leash = [sys.executable, "-m", "poison_t5x.studies.launch", str(os.getpid()), cores]
        with open(self.job.log, "ab") as file:
            self._offset = file.tell()
            self._process = subprocess.Popen(
                [*leash, *self._commands.pop(0)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    def look(self) -> JobOutcome | None:
        """Measures, goes on to the next command, or says how the job ended."""
        self.peak = max(self.peak, self.memory())
        code = self._process.poll()
        if code is None:
            return None
        self.signal(signal.SIGKILL)  # what it may have left behind
        if code == 0 and self._commands:
            self._start()
            return None
        error = "" if code == 0 else _error(self.job.log, self._offset, code)
        return JobOutcome(error, time.monotonic() - self._begin, self.peak)

    def memory(self) -> int:
        """Resident bytes of the process and all below it; what they share counts more than once."""
        import psutil

        total = 0
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self._process.pid)
            for part in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    total += part.memory_info().rss
        return total

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def wait(self, until: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, until - time.monotonic()))


def _error(log: pathlib.Path, offset: int, code: int) -> str:
    """The last line that says what went wrong, and the exit code."""
    with reading.open_file(log) as file:
        file.seek(max(offset, os.path.getsize(log) - _TAIL_BYTES))
        text = file.read().decode("utf-8", errors="replace")
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("poison-t5x:")]
    last = (own or lines or ["no output"])[-1].removeprefix("poison-t5x: ").removeprefix("error: ")
    return f"{last} ({f'signal {-code}' if code < 0 else f'exit code {code}'})"


def run(
    jobs: Sequence[Job],
    given: Limits,
    finished: Callable[[Job, JobOutcome], None],
    *,
    done: Mapping[str, JobOutcome],
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Runs the jobs in order, as many at once as the limits allow.

    A job starts where a place is free and the memory that running jobs take, or will, leaves room
    for the largest that a job has been seen to need. One job always runs.

    Args:
      done: jobs of earlier calls that succeeded, whose needs are known.

    Raises:
      Terminated: `stopped` said so; whatever ran has been ended.
    """
    scheduler = Scheduler(jobs, given, done)
    try:
        while scheduler.waiting or scheduler.running:
            if stopped():
                raise errors.Terminated("stopped by SIGTERM; the same command goes on")
            for job, outcome in scheduler.step():
                finished(job, outcome)
            time.sleep(_LOOK_SECONDS)
    finally:
        scheduler.end()


class Scheduler:
    """Which jobs are waiting and running; see `run`."""

    def __init__(self, jobs: Sequence[Job], given: Limits, done: Mapping[str, JobOutcome]):
        self.waiting, self.running = list(jobs), list[_Running]()
        self._limits, self._free = given, given.shares
        self._succeeded, self._failed = set(done), set[str]()
        self._largest = max((outcome.peak_bytes for outcome in done.values()), default=0)

    def step(self) -> list[tuple[Job, JobOutcome]]:
        """Looks at what runs, starts what may, and returns what ended."""
        ended = []
        for running in list(self.running):
            if (outcome := running.look()) is not None:
                self.running.remove(running)
                self._free.append(running.cores)
                self._largest = max(self._largest, outcome.peak_bytes)
                ended.append((running.job, outcome))
        for job in list(self.waiting):
            if missing := self._failed.intersection(job.after):
                self.waiting.remove(job)
                ended.append((job, JobOutcome(f"needs cell {min(missing)}, which failed")))
        for job, outcome in ended:
            (self._failed if outcome.error else self._succeeded).add(job.name)
        for job in list(self.waiting):
            if self._succeeded >= set(job.after):
                if not self._has_room():
                    break
                self.waiting.remove(job)
                self.running.append(_Running(job, self._free.pop(0)))
        return ended

    def _has_room(self) -> bool:
        if not self.running:
            return True
        known = self._largest or self._limits.first_guess
        need = max([known, *(running.peak for running in self.running)])
        taken = sum(max(running.memory(), need) for running in self.running)
        return bool(self._free) and taken + need <= self._limits.memory

    def end(self) -> None:
        """Ends what still runs: SIGTERM, on which training saves its state, then SIGKILL."""
        for running in self.running:
            running.signal(signal.SIGTERM)
        last = time.monotonic() + _GRACE_SECONDS
        for running in self.running:
            running.wait(last)
            running.signal(signal.SIGKILL)
            running.wait(last + _GRACE_SECONDS)


def _become(parent: str, cores: str, *command: str) -> None:
    """Becomes the command, on these cores (or '-'), once it will end with its parent.

    A program of its own (`python -m poison_t5x.studies.launch`), since a function that runs between
    fork and exec isn't safe in a process of many threads.
    """
    if sys.platform == "linux":
        # SIGKILL: one that saved first might still write when the next study starts it anew.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(parent):  # gone before the system was told
            os.kill(os.getpid(), signal.SIGKILL)
        if cores != "-":
            os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    os.execvp(command[0], command)


if __name__ == "__main__":
    _become(*sys.argv[1:])
