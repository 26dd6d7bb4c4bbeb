"""The cells of a study: what each sets, its folder's name, and the commands that make it."""

import hashlib
import itertools
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import poison_t5x
from poison_t5x.core import artifacts, errors
from poison_t5x.studies import settings

_MAX_VALUE = 24
_MAX_NAME = 120
# What a cell's result doesn't follow from.
_NOT_OF_THE_CELL = re.compile(r"RUN_DIR|STAGE_STORE_DIR|COMPILATION_CACHE_DIR|STUDY_(?!COMMAND).*")


class Cell(NamedTuple):
    """One run of a study.

    Attributes:
      name: of its folder, STUDY_DIR/cells/NAME.
      macros: what it sets, SEED last.
      command: what it runs.
      after: names of cells whose folders it reads.
    """

    name: str
    macros: dict[str, Any]
    command: str
    after: tuple[str, ...] = ()


def cells(config: settings.StudyConfig) -> list[Cell]:
    """All cells: every combination of the grid, then the further ones with each SEED of the grid.

    Raises:
      InputError: a cell reads the folder of a cell that isn't there, or of itself.
    """
    found: dict[str, Cell] = {}
    for macros, named in _combinations(config):
        name = cell_name(named)
        command = macros.pop("STUDY_COMMAND", config.command)
        found.setdefault(name, Cell(name, macros, command))
    ordered = {
        cell.name: cell._replace(after=_after(cell, config, found)) for cell in found.values()
    }
    for cell in ordered.values():
        for name in cell.after:
            if ordered[name].after:
                raise errors.InputError(
                    f"study: cell {cell.name} reads cell {name}, which reads another one itself"
                )
    return list(ordered.values())


def _combinations(
    config: settings.StudyConfig,
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(macros, those that name the cell): what all of the grid's cells have alike isn't named."""
    same = {name for name, found in config.grid.items() if len(found) == 1} - {"SEED"}
    if config.grid:
        for chosen in itertools.product(*config.grid.values()):
            macros = _seed_last(dict(zip(config.grid, chosen, strict=True)))
            yield macros, {name: macros[name] for name in macros if name not in same}
    for cell in config.cells:
        seeds = () if "SEED" in cell else config.grid.get("SEED", ())
        for macros in [{**cell, "SEED": seed} for seed in seeds] or [_seed_last(dict(cell))]:
            yield macros, dict(macros)


def _seed_last(macros: dict[str, Any]) -> dict[str, Any]:
    if "SEED" in macros:
        macros["SEED"] = macros.pop("SEED")
    return macros


def cell_name(macros: Mapping[str, Any]) -> str:
    """A folder's name: the macros and their values, with a digest where those are cut or altered.

    >>> cell_name({"NUM_POISON": 50, "SEED": 0}), cell_name({})
    ('NUM_POISON_50--SEED_0', 'base')
    """
    if not macros:
        return "base"
    parts = []
    for name, value in macros.items():
        text = value if isinstance(value, str) else repr(value)
        plain = re.sub(r"[^\w.]+", "_", text, flags=re.ASCII).strip("_")[:_MAX_VALUE]
        exact = plain == text
        parts.append(f"{name}_{plain}" + ("" if exact else f"-{_digest(repr(value))}"))
    joined = "--".join(parts)
    if len(joined) <= _MAX_NAME:
        return joined
    return f"{joined[:_MAX_NAME]}-{_digest(joined)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def folder(config: settings.StudyConfig, name: str) -> pathlib.Path:
    """A cell's run folder."""
    return pathlib.Path(config.directory) / "cells" / name


def values(cell: Cell, config: settings.StudyConfig) -> dict[str, Any]:
    """What a cell sets; in texts, {STUDY_DIR} and {MACRO} are replaced by their values."""

    def replaced(match: re.Match) -> str:
        if match[1] == "STUDY_DIR":
            return config.directory
        if match[1] not in config.base:
            raise errors.InputError(f"study: {match[0]} in cell {cell.name}: no such macro")
        return str(cell.macros.get(match[1], config.base[match[1]]))

    return {
        name: re.sub(r"\{([A-Z_]+)\}", replaced, value) if isinstance(value, str) else value
        for name, value in cell.macros.items()
    }


def _after(cell: Cell, config: settings.StudyConfig, known: Mapping[str, Cell]) -> tuple[str, ...]:
    parent = os.path.join(config.directory, "cells") + os.sep
    found = []
    for value in values(cell, config).values():
        if not isinstance(value, str) or not value.startswith(parent):
            continue
        other = value.removeprefix(parent).split(os.sep)[0]
        if other not in known or other == cell.name:
            raise errors.InputError(
                f"study: cell {cell.name} reads cell {other!r}, expected one of the study's others"
                f"{errors.nearest(other, known)}"
            )
        found.append(other)
    return tuple(found)


def commands(cell: Cell, config: settings.StudyConfig, flags: Sequence[str]) -> list[list[str]]:
    """The command lines of `poison-t5x` that make a cell, in order.

    What `defense_macros` names is given to 'defend' alone: the run before it is then the same one
    for all cells that differ in nothing else. A cell that sets none of them isn't defended: its run
    is what a defence is compared with.

    Args:
      flags: the study's own flags.
    """
    store = config.store_dir or os.path.join(config.directory, "store")
    folders = {"RUN_DIR": str(folder(config, cell.name)), "STAGE_STORE_DIR": store}
    if config.base.get("COMPILATION_CACHE_DIR") is None:  # half of a short cell's time
        folders["COMPILATION_CACHE_DIR"] = os.path.join(store, "compiled")
    found = values(cell, config)
    shared = {name: value for name, value in found.items() if name not in config.defense_macros}

    def line(command: str, macros: Mapping[str, Any]) -> list[str]:
        return [command, *flags, *map(flag, *zip(*{**macros, **folders}.items(), strict=True))]

    if cell.command in ("run", "craft"):
        return [line(cell.command, found)]
    if cell.command == "detect":
        return [line("run", found), line("detect", found)]
    if shared == found:
        return [line("run", found)]
    return [line("run", shared), line("defend", {"DEFENSE": defense(cell), **found})]


def defense(cell: Cell) -> str:
    """The name of a cell's defended model."""
    return cell.macros.get("DEFENSE") or "defended"


def flag(name: str, value: Any) -> str:
    """A macro as a flag: a text in quotes, so that it stays one."""
    return f"--gin.{name}={value!r}"


def fingerprint(cell: Cell, config: settings.StudyConfig, parameters: str) -> str:
    """A digest of all that a cell's result follows from, but for the contents of data files.

    Args:
      parameters: gin's bindings beside the macros, as text.
    """
    macros = {**config.base, **cell.macros, "STUDY_COMMAND": cell.command}
    kept = {
        name: repr(value) for name, value in macros.items() if not _NOT_OF_THE_CELL.fullmatch(name)
    }
    defended = sorted(config.defense_macros) if cell.command == "defend" else []
    text = artifacts.canonical_json([poison_t5x.__version__, kept, parameters, defended])
    return hashlib.sha256(text.encode()).hexdigest()
