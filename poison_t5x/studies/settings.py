"""A study's settings, from the macros of gin/runs/study.gin."""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from poison_t5x.core import checks, errors

COMMANDS = ("run", "detect", "defend", "craft")
# Macros that a cell can't set: its folders are the study's to choose.
_RESERVED = ("RUN_DIR", "MODEL_DIR", "STAGE_STORE_DIR")
# What rows have beside macros, for the x axis and lines.
DIMENSIONS = ("score", "checkpoint")


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """What a study runs and shows.

    Attributes:
      directory: the study's folder, RUN_DIR.
      base: macro -> value of all macros, as the gin files and flags have them: what a cell doesn't
        set.
      grid: macro -> values; every combination is a cell.
      cells: further cells, {macro: value}; one without a SEED is made with each SEED of the grid.
      command: what a cell runs: 'run'; 'detect' or 'defend', after a 'run'; or 'craft'.
      defense_macros: what holds for 'defend' alone, and not for the run before it.
      processes: cells at once; None for half of the cores.
      memory_gb: GB (10^9 bytes) that all cells together may take; None for nine tenths of what is
        free.
      x: macros, 'checkpoint' or 'score', for the x axis: a figure each.
      lines: macros, 'checkpoint' or 'score', that tell lines apart.
      measures: columns of the table that are drawn.
      question: what the study asks.
      store_dir: the store of finished stages; None for a folder of the study's own.
    """

    directory: str
    base: Mapping[str, Any]
    grid: Mapping[str, Sequence[Any]]
    cells: Sequence[Mapping[str, Any]] = ()
    command: str = "run"
    defense_macros: Sequence[str] = ()
    processes: int | None = None
    memory_gb: float | None = None
    x: Sequence[str] = ()
    lines: Sequence[str] = ()
    measures: Sequence[str] = ("effect",)
    question: str | None = None
    store_dir: str | None = None

    def __post_init__(self):
        if not self.directory:
            raise errors.InputError("RUN_DIR isn't set: give --gin.RUN_DIR=FOLDER")
        checks.path("RUN_DIR", self.directory)
        if self.store_dir is not None:
            checks.path("STAGE_STORE_DIR", self.store_dir)
        self._check_values()
        _check_command("STUDY_COMMAND", self.command)
        for name in ("defense_macros", "x", "lines", "measures"):
            object.__setattr__(self, name, _names(f"STUDY_{name.upper()}", getattr(self, name)))
        if self.processes is not None:
            checks.whole_number("STUDY_PROCESSES", self.processes)
        if self.memory_gb is not None:
            checks.number("STUDY_MEMORY_GB", self.memory_gb, minimum=0)
        if self.question is not None:
            checks.phrase("STUDY_QUESTION", self.question)
        self._check_names()

    def _check_values(self) -> None:
        if not isinstance(self.grid, Mapping):
            raise errors.InputError(f"STUDY_GRID: expected {{macro: values}}, found {self.grid!r}")
        for name, values in self.grid.items():
            if not isinstance(values, (list, tuple)) or not values:
                raise errors.InputError(
                    f"STUDY_GRID: expected a list of values for {name}, found {values!r}"
                )
        cells = self.cells
        if not isinstance(cells, (list, tuple)) or not all(isinstance(c, Mapping) for c in cells):
            raise errors.InputError(
                f"STUDY_CELLS: expected a list of {{macro: value}}, found {cells!r}"
            )
        if not self.grid and not cells:
            raise errors.InputError(
                "STUDY_GRID and STUDY_CELLS are empty: give --gin_file=studies/NAME.gin, or "
                "--gin.STUDY_GRID=\"{'NUM_POISON': (25, 50, 100)}\""
            )

    def _check_names(self) -> None:
        for cell in self.cells:
            if "STUDY_COMMAND" in cell:
                _check_command("STUDY_CELLS: STUDY_COMMAND", cell["STUDY_COMMAND"])
        set_by_cells = [*self.grid, *(name for cell in self.cells for name in cell)]
        for name in dict.fromkeys([*set_by_cells, *self.defense_macros]):
            _check_macro(name, self.base)
        for name in (*self.x, *self.lines):
            if name not in DIMENSIONS:
                _check_macro(name, self.base)


def _check_macro(name: Any, base: Mapping[str, Any]) -> None:
    if name in _RESERVED or (str(name).startswith("STUDY_") and name != "STUDY_COMMAND"):
        raise errors.InputError(f"study: cells can't set {name}, which is the study's own")
    if name not in base:
        raise errors.InputError(f"unknown macro {name}{errors.nearest(str(name), base)}")


def _check_command(name: str, value: Any) -> None:
    if value not in COMMANDS:
        raise errors.InputError(f"{name}: expected one of {', '.join(COMMANDS)}, found {value!r}")


def _names(name: str, value: Any) -> tuple[str, ...]:
    """One name, a list of them, or None, as a tuple."""
    found = () if value is None else (value,) if isinstance(value, str) else value
    if not isinstance(found, (list, tuple)) or not all(isinstance(item, str) for item in found):
        raise errors.InputError(f"{name}: expected a name or a list of names, found {value!r}")
    return tuple(found)


def resolve(name: str, macros: Mapping[str, Any]) -> Any:
    """A macro's value, where it stands for another one that one's."""
    value = macros.get(name)
    while reference := re.fullmatch(r"%(\w+)", repr(value)):
        value = macros.get(reference[1])
    return value


def from_macros(macros: Mapping[str, Any]) -> StudyConfig:
    """The study that gin's macros describe.

    Args:
      macros: all of them; a value that stands for another macro has the repr '%NAME'.

    Raises:
      InputError: a value of another kind than expected, or a macro that nothing reads.
    """
    base = {name: resolve(name, macros) for name in macros}
    fields = ("grid", "cells", "command", "defense_macros", "processes", "memory_gb", "question")
    directory = base.get("RUN_DIR")
    return StudyConfig(
        directory=os.path.normpath(directory)
        if directory and isinstance(directory, str)
        else directory,
        base=base,
        store_dir=base.get("STAGE_STORE_DIR"),
        x=base.get("STUDY_X"),
        lines=base.get("STUDY_LINES"),
        measures=base.get("STUDY_MEASURES") or ("effect",),
        **{name: base[f"STUDY_{name.upper()}"] for name in fields},
    )
