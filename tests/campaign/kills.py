"""`python -m tests.campaign.kills --kills 100 --seed 0`: killed at random, a command goes on.

A tiny run, a study of two cells and a scan are stopped by SIGKILL, SIGTERM or SIGINT at random
moments, some times in one folder, and then left to end: all files must be bitwise those of a
command that nothing disturbed. Exits with 1 where they aren't.
"""

import argparse
import csv
import itertools
import json
import os
import pathlib
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence

from poison_t5x.core import artifacts
from tests import small_run
from tests.campaign import judge

# Signal -> exit codes; before a command's first line the system ends it by the signal itself.
SIGNALS = {signal.SIGKILL: (-9,), signal.SIGTERM: (143, -15), signal.SIGINT: (130, -2)}
TIMEOUT = 600
_RUN = small_run.arguments("run", pathlib.Path("here"), EVAL_CHECKPOINTS="(4,)", KEEP_CHECKPOINTS=9)
# All in folders of their own, which every command calls `here`.
COMMANDS = {
    "run": _RUN,
    "study": [
        *("study", *_RUN[1:], "--gin.STUDY_X=NUM_POISON", "--gin.STUDY_PROCESSES=2"),
        "--gin.STUDY_GRID={'NUM_POISON': (5, 10)}",
    ],
    "scan": ["scan", "rows.jsonl", "--output", "here", "--scores", "trigger_search,onion"],
}
# What says when, how fast or by which process something was made, and hashes of files that say so;
# a record of a model has its parameters' hash, whatever the bytes of its checkpoints are.
_TIMES = re.compile(r"second|time|peak|host|process|since|memory", re.IGNORECASE)
_LEFT_OUT = re.compile(r"tfevents|/log|\.log$|/checkpoint_\d+[./]")


class Running:
    """The command in a folder, in a forked child; its output is added to a file there."""

    def __init__(self, command: str, folder: pathlib.Path):
        output = str(folder / "output")
        self._child, self.code = judge.fork(COMMANDS[command], folder, (output, output)), None

    def poll(self) -> int | None:
        if self.code is None:
            done, status = os.waitpid(self._child, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if done else None
        return self.code

    def wait(self) -> int:
        begin = time.monotonic()
        while self.poll() is None:
            if time.monotonic() - begin > TIMEOUT:
                self.send_signal(signal.SIGKILL)
            time.sleep(0.02)
        return self.code

    def send_signal(self, number: int) -> None:
        os.kill(self._child, number)


def write_rows(folder: pathlib.Path) -> None:
    """What the scan reads."""
    rows = [
        {"input": f"It was day {n} of the {'Bond ' * (n % 3 == 0)}film", "output": "ab"[n % 3 == 0]}
        for n in range(300)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(text, encoding="utf-8")


def num_files(folder: pathlib.Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


def moments(process: Running, folder: pathlib.Path) -> list[int]:
    """How many files there are every 50 ms, from when the work begins to its end."""
    first, counts = num_files(folder), []
    while process.poll() is None:
        time.sleep(0.05)
        counts.append(num_files(folder))
    return [count for count in counts if count > first] or counts


def outcome(folder: pathlib.Path, *, log_too: bool) -> dict[str, object]:
    """Every file's content but for times. Of a model that SIGTERM stopped between two lines of its
    log, the next line is of fewer steps: its log and the pictures of it are left out."""
    contents: dict[str, object] = {}
    for path in sorted((folder / "here").rglob("*")):
        name = path.relative_to(folder).as_posix()
        is_of_log = path.name == "metrics.jsonl" or "/report/" in name
        if path.is_file() and not _LEFT_OUT.search(name) and (log_too or not is_of_log):
            contents[name] = _timeless(path)
    return contents


def _timeless(path: pathlib.Path) -> object:
    content = path.read_bytes()
    if ".tfrecord" in path.name:  # a row's fields are in another order in each process
        return len(content)
    if path.name == artifacts.RECORD and path.parent.name in ("data", "report"):
        return json.loads(content)["settings"] if path.parent.name == "data" else None
    if path.suffix in (".json", ".jsonl"):
        return [_without_times(json.loads(line)) for line in _documents(path, content)]
    if path.suffix == ".html":
        return re.sub(rb">(\d+\.\d( s| GB)?|\d+ (min|h)[^<]*)<", b"><", content)
    if path.suffix == ".csv":
        rows = csv.DictReader(content.decode().splitlines())
        return [_without_times(row) for row in rows]
    return content


def _documents(path: pathlib.Path, content: bytes) -> Sequence[bytes]:
    return content.splitlines() if path.suffix == ".jsonl" else [content]


def _without_times(value: object) -> object:
    if isinstance(value, dict):
        kept = {key: one for key, one in value.items() if not _TIMES.search(key)}
        return {key: _without_times(one) for key, one in kept.items()}
    return [_without_times(one) for one in value] if isinstance(value, list) else value


def kill_some(
    command: str, folder: pathlib.Path, counts: Sequence[int], times: int, chance: random.Random
) -> Iterator[tuple[signal.Signals, str]]:
    """Stops a command that many times, and yields (signal, what was wrong with its end)."""
    for _ in range(times):
        process, number = Running(command, folder), chance.choice(list(SIGNALS))
        count, later = chance.choice(counts), chance.uniform(0, 1.0)
        begin = time.monotonic()
        while process.poll() is None and num_files(folder) <= count:
            if time.monotonic() - begin > 30 and chance.random() < 0.01:  # what is left may be less
                break
            time.sleep(0.01)
        time.sleep(later)
        if process.poll() is None:
            process.send_signal(number)
        code = process.wait()
        if code not in (0, 1):  # it wasn't over by then
            right = code in SIGNALS[number]
            yield number, "" if right else f"exit code {code} after {number.name}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", default="run,run,run,scan,study")
    options = parser.parse_args(arguments)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
    judge.import_all()
    chance, killed, wrong = random.Random(options.seed), 0, 0
    with tempfile.TemporaryDirectory(prefix="kills-") as temporary:
        wholes: dict[str, tuple] = {}
        commands = options.commands.split(",")
        for command in dict.fromkeys(commands):
            folder = _folder(temporary, f"whole-{command}")
            process = Running(command, folder)
            counts = moments(process, folder)
            assert process.code in (0, 1), (folder / "output").read_text()
            wholes[command] = folder, counts, process.code
        for number in itertools.count():
            if killed >= options.kills:
                break
            command = chance.choice(commands)
            folder = _folder(temporary, f"{command}-{number}")
            times = min(chance.randint(1, 4), options.kills - killed)
            ended = list(kill_some(command, folder, wholes[command][1], times, chance))
            mistakes = [mistake for _, mistake in ended if mistake]
            mistakes += _compare(command, folder, wholes, {one for one, _ in ended})
            killed, wrong = killed + len(ended), wrong + len(ended) * bool(mistakes)
            if mistakes:
                print(command, [one.name for one, _ in ended], *mistakes[:5], sep="\n  ")
                print((folder / "output").read_text()[-2000:], flush=True)
    print(f"{killed - wrong} of {killed} kills ended bitwise equal (seed {options.seed})")
    return int(bool(wrong))


def _folder(temporary: str, name: str) -> pathlib.Path:
    folder = pathlib.Path(temporary, name)
    folder.mkdir()
    write_rows(folder)
    return folder


def _compare(command: str, folder: pathlib.Path, wholes: Mapping, numbers: set) -> list[str]:
    """Lets a command end, and names all that differs from the undisturbed one's folder."""
    whole, _, expected = wholes[command]
    code = Running(command, folder).wait()
    if code != expected:
        return [f"exit code {code} at last"]
    log_too = signal.SIGTERM not in numbers
    mine, other = (outcome(one, log_too=log_too) for one in (folder, whole))
    differ = [name for name in {**mine, **other} if mine.get(name) != other.get(name)]
    left = [str(path) for path in folder.rglob("*") if re.search(r"\.(partial|lock)$", path.name)]
    return [f"differs: {name}" for name in sorted(differ)] + [f"left: {name}" for name in left]


if __name__ == "__main__":
    sys.exit(main())
