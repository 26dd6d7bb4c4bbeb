"""`python -m tests.studies.driver DIRECTORY COUNT PROCESSES [MEMORY_GB]`: a study of fake cells."""

import pathlib
import sys

from poison_t5x.studies import collect, command, grid
from tests.studies import fake_cell

BASE = {"NUM_POISON": 100, "SEED": 0, "TRAIN_STEPS": 10, "PROXY": "ngrams", "ATTACK": "dirty"}
BASE |= {"STUDY_COMMAND": "run", "POISON_RATE": 0.1}


def config(directory: str | pathlib.Path, /, base=BASE, **fields) -> grid.StudyConfig:
    values = {"grid": {"NUM_POISON": (10, 20), "SEED": (0, 1)}, "x": "NUM_POISON", **fields}
    own = {f"STUDY_{name.upper()}": value for name, value in values.items()}
    return grid.from_macros({**base, "RUN_DIR": str(directory), **own})


def study(directory: pathlib.Path, **fields) -> command.Study:
    def program(line):
        return [sys.executable, fake_cell.__file__, str(directory / "notes.txt"), *line]

    return command.Study(config(directory, **fields), ["study"], make_program=program)


def row(value, by_task=None, interval=None, **macros) -> collect.StudyRow:
    """A finished cell with that effect, of these macros."""
    measures = {"effect": collect.Value(value, interval, by_task or {})}
    of = "triggered_misclassification"
    return collect.StudyRow("c", macros, "done", measure=of, measures=measures)


def notes(directory: pathlib.Path) -> list[list[str]]:
    """(cell, command, process id, cores…) of each fake cell that started."""
    path = directory / "notes.txt"
    return [line.split(" ", 3) for line in path.read_text().splitlines()] if path.exists() else []


def main(directory: str, count: str, processes: str, memory_gb: str | None = None) -> int:
    path = pathlib.Path(directory)
    values = {"NUM_POISON": tuple(range(1, int(count) + 1))}
    memory = float(memory_gb) if memory_gb else None
    return study(path, grid=values, processes=int(processes), memory_gb=memory).run(print)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
