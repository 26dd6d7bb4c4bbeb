"""`poison-t5x study`: runs the cells, and writes what they come to after each.

STUDY_DIR (RUN_DIR)/study.json, study.csv, summary.csv, timings.json, index.html, figures/
STUDY_DIR/cells/NAME/  a run folder, with cell.json and log.txt     STUDY_DIR/store/  stages
"""

import contextlib
import pathlib
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

import msgspec

from poison_t5x.core import artifacts, errors, locks, progress, reading
from poison_t5x.core.settings import NotNegative
from poison_t5x.report import study as report
from poison_t5x.studies import aggregate, collect, grid, launch

RECORD = "cell.json"
Log = Callable[[str], None]
# A command line of `poison-t5x` -> the process that it is.
Program = Callable[[Sequence[str]], list[str]]


class _Record(msgspec.Struct):
    """What `cell.json` says of a cell that is done: its settings' hash, and what it took."""

    fingerprint: str
    seconds: NotNegative
    peak_bytes: Annotated[int, msgspec.Meta(ge=0, le=2**60)]


def program(command: Sequence[str]) -> list[str]:
    """A cell's command line as a process of this Python."""
    return [sys.executable, "-m", "poison_t5x", *command]


class Study:
    """A study of given settings.

    Args:
      arguments: of the whole command line, to show.
      flags: those that cells are called with before their own.
      parameters: gin's bindings beside the macros, as text.
      make_program: of a cell's command line.
    """

    def __init__(
        self,
        config: grid.StudyConfig,
        arguments: Sequence[str],
        flags: Sequence[str] = (),
        parameters: str = "",
        make_program: Program = program,
    ):
        self._config, self._arguments = config, arguments
        self._flags, self._program = flags, make_program
        self._cells = grid.cells(config)
        self._directory = pathlib.Path(config.directory)
        self._folders = {cell.name: grid.folder(config, cell.name) for cell in self._cells}
        self._prints = {c.name: grid.fingerprint(c, config, parameters) for c in self._cells}
        self._outcomes: dict[str, launch.JobOutcome] = {}
        self._rows: dict[str, list[collect.StudyRow]] = {}

    def show(self, log: Log) -> int:
        """Says what would be run, and returns the exit code."""
        for cell in self._cells:
            log(f"{cell.name}" + (f" (after {', '.join(cell.after)})" if cell.after else ""))
            for command in grid.commands(cell, self._config, self._flags):
                log("  " + shlex.join(["poison-t5x", *command]))
        return 0

    def run(self, log: Log) -> int:
        """Runs what isn't done, writes the results, and returns 1 where a cell failed, else 0.

        Raises:
          BusyError: another study runs in the folder.
          Terminated: SIGTERM; cells have been ended.
        """
        with locks.alone(self._directory):
            given = launch.limits(self._config.processes, self._config.memory_gb)
            done = self._done()
            log(
                f"study: {len(self._cells)} cells, {len(done)} of them done; {given.processes} at "
                f"once, in {given.memory / 1e9:.1f} GB"
            )
            self._outcomes = dict(done)
            jobs = [self._job(cell) for cell in self._cells if cell.name not in done]
            self._write_tables()
            with progress.bar(total=len(self._cells), initial=len(done), desc="cells") as bar:

                def finished(job: launch.Job, outcome: launch.JobOutcome) -> None:
                    self._keep(job, outcome)
                    self._write_tables()
                    bar.update()
                    if outcome.error:
                        bar.write(f"cell {job.name} failed: {outcome.error}", file=sys.stderr)

                with _sigterm_told() as stopped:
                    launch.run(jobs, given, finished, done=done, stopped=stopped.is_set)
            return self._finish(log)

    def _done(self) -> dict[str, launch.JobOutcome]:
        """Cells that succeeded with these settings, by their records."""
        done = {}
        for name, folder in self._folders.items():
            if (folder / RECORD).is_file():
                with contextlib.suppress(errors.InputError):  # no record of ours: made again
                    record = reading.read_json(folder / RECORD, _Record)
                    if record.fingerprint == self._prints[name]:
                        done[name] = launch.JobOutcome("", record.seconds, record.peak_bytes)
        return done

    def _job(self, cell: grid.StudyCell) -> launch.Job:
        commands = grid.commands(cell, self._config, self._flags)
        log = self._folders[cell.name] / "log.txt"
        return launch.Job(cell.name, [self._program(line) for line in commands], log, cell.after)

    def _keep(self, job: launch.Job, outcome: launch.JobOutcome) -> None:
        self._outcomes[job.name] = outcome
        if not outcome.error:
            record = _Record(self._prints[job.name], outcome.seconds, outcome.peak_bytes)
            text = artifacts.dump_json(msgspec.structs.asdict(record))
            artifacts.write_atomically(self._folders[job.name] / RECORD, text)

    def _of_cell(self, cell: grid.StudyCell) -> list[collect.StudyRow]:
        outcome = self._outcomes.get(cell.name)
        if outcome is None:
            return [collect.StudyRow(cell.name, cell.macros, "not run")]
        error = outcome.error
        try:
            if not error and cell.name not in self._rows:
                self._rows[cell.name] = list(collect.read(cell, self._folders[cell.name]))
        except errors.InputError as unreadable:
            error = f"its results can't be read ({unreadable})"
        failed = [collect.StudyRow(cell.name, cell.macros, "failed", error)]
        return failed if error else self._rows[cell.name]

    def _write_tables(self) -> tuple:
        rows = [row for cell in self._cells for row in self._of_cell(cell)]
        collect.add_agreement(rows, self._config.base, self._folders)
        points = aggregate.points(rows, self._config.base)
        study = report.StudyResults(
            self._config, rows, points, self._outcomes, aggregate.difference
        )
        drawn = report.charts(study)
        sentences = report.finding(study, drawn)
        report.write_tables(self._directory, study, sentences)
        return study, drawn, sentences

    def _finish(self, log: Log) -> int:
        study, drawn, sentences = self._write_tables()
        command = shlex.join(["poison-t5x", *self._arguments])
        path = report.write_page(self._directory, study, drawn, sentences, command)
        known = {name for row in study.rows for name in row.measures}
        for name in self._config.measures:
            if known and name not in known:
                log(f"warning: STUDY_MEASURES: no cell has {name}{errors.nearest(name, known)}")
        if self._config.question:
            log(self._config.question)
        log(" ".join(sentences))
        log(f"see {path}, and study.csv beside it")
        for row in study.failed:
            log(f"failed: {row.cell}: {row.error}")
        return 1 if study.failed else 0


@contextlib.contextmanager
def _sigterm_told() -> Iterator[threading.Event]:
    """While entered, SIGTERM asks for an end rather than ending the process at once."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: stopped.set())
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGTERM, before)
