"""A study's settings (gin/runs/study.gin), its cells, and the commands that make each cell."""

import ast
import dataclasses
import hashlib
import itertools
import operator
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import poison_t5x
from poison_t5x.core import artifacts, errors, gin_macros
from poison_t5x.core.settings import NOT_EMPTY, Few, Folder, NotNegative, Settings, checked
from poison_t5x.report.study import DIMENSIONS

Command = Literal["run", "detect", "defend", "craft"]
# Macros that a cell can't set: its folders and the study's settings are the study's to choose.
_RESERVED = re.compile(r"RUN_DIR|MODEL_DIR|STAGE_STORE_DIR|STUDY_(?!COMMAND$).*")
# A cell's result doesn't follow from these.
_NOT_OF_THE_CELL = re.compile(r"RUN_DIR|STAGE_STORE_DIR|COMPILATION_CACHE_DIR|STUDY_(?!COMMAND).*")
_MAX_VALUE, _MAX_NAME = 24, 120
_ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


_Names = str | Sequence[str] | None


@dataclasses.dataclass(frozen=True)
class StudyConfig(Settings):
    """A study: gin/runs/study.gin says what each of the macros STUDY_… means.

    `directory` is the study's folder, RUN_DIR; `base` all macros, for what a cell doesn't set;
    `memory_gb` in 10^9 bytes; `store_dir` of finished stages, None for a folder of the study's own.
    """

    MACROS: ClassVar = {"directory": "RUN_DIR", "store_dir": "STAGE_STORE_DIR"} | {
        name: f"STUDY_{name.upper()}"
        for name in (
            *("grid", "cells", "command", "defense_macros", "processes", "memory_gb"),
            *("x", "lines", "measures", "question"),
        )
    }

    directory: Folder = ""
    grid: Mapping[str, Annotated[Sequence[Any], NOT_EMPTY]] = dataclasses.field(
        default_factory=dict
    )
    cells: Sequence[Mapping[str, Any]] = ()
    command: Command = "run"
    defense_macros: _Names = None
    processes: Few | None = None
    memory_gb: NotNegative | None = None
    x: _Names = None
    lines: _Names = None
    measures: _Names = None
    question: str | None = None
    base: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    store_dir: Folder | None = None


def from_macros(macros: Mapping[str, Any]) -> StudyConfig:
    """The study of gin's macros, of which a value may stand for another macro.

    Raises:
      InputError: a value of another kind than expected, or a macro that nothing reads.
    """
    base = {name: gin_macros.resolve(name, macros) for name in macros}
    given = {name: base[macro] for name, macro in StudyConfig.MACROS.items() if macro in base}
    config = StudyConfig(**given, base=base)
    if not config.grid and not config.cells:
        raise errors.InputError(
            "STUDY_GRID and STUDY_CELLS are empty: give --gin_file=studies/NAME.gin, or "
            "--gin.STUDY_GRID=\"{'NUM_POISON': (25, 50, 100)}\""
        )
    for cell in ({}, *config.cells):
        checked("STUDY_COMMAND", cell.get("STUDY_COMMAND", config.command), Command)
    names = {name: _names(getattr(config, name)) for name in ("defense_macros", "x", "lines")}
    shown = [name for name in (*names["x"], *names["lines"]) if name not in DIMENSIONS]
    set_by_cells = [*config.grid, *itertools.chain(*config.cells), *names["defense_macros"]]
    for name in dict.fromkeys([*set_by_cells, *shown]):
        if _RESERVED.fullmatch(name):
            raise errors.InputError(f"study: cells can't set {name}, which is the study's own")
        if name not in base:
            raise errors.InputError(f"unknown macro {name}{errors.nearest(name, base)}")
    return dataclasses.replace(
        config,
        **names,
        measures=_names(config.measures) or ("effect",),
        directory=os.path.normpath(config.directory),
    )


def _names(value: _Names) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


class StudyCell(NamedTuple):
    """One run of a study, in STUDY_DIR/cells/NAME; it reads the folders of the cells `after`."""

    name: str
    macros: dict[str, Any]
    command: str
    after: tuple[str, ...] = ()


def cells(config: StudyConfig) -> list[StudyCell]:
    """All cells: every combination of the grid, then the further ones with each SEED of the grid.

    Raises:
      InputError: a formula that has no value, or a cell that reads the folder of a cell that isn't
        there, of itself, or of one that reads another.
    """
    known: dict[str, StudyCell] = {}
    for macros, named in _combinations(config):
        command = macros.pop("STUDY_COMMAND", config.command)
        cell = StudyCell(_cell_name(named), macros, command)
        known.setdefault(cell.name, cell._replace(macros=_computed(cell, config)))
    after = {name: _after(cell, config, known) for name, cell in known.items()}
    for name, others in after.items():
        for other in others:
            if after[other]:
                raise errors.InputError(
                    f"study: cell {name} reads cell {other}, which reads another one itself"
                )
    return [cell._replace(after=after[name]) for name, cell in known.items()]


def _combinations(config: StudyConfig) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(macros, those that name the cell): what all of the grid's cells have alike isn't named."""
    same = {name for name, values in config.grid.items() if len(values) == 1} - {"SEED"}
    for chosen in itertools.product(*config.grid.values()) if config.grid else ():
        macros = _seed_last(dict(zip(config.grid, chosen, strict=True)))
        yield macros, {name: macros[name] for name in macros if name not in same}
    for cell in config.cells:
        seeds = () if "SEED" in cell else config.grid.get("SEED", ())
        for macros in [{**cell, "SEED": seed} for seed in seeds] or [_seed_last(cell)]:
            yield macros, dict(macros)


def _seed_last(macros: Mapping[str, Any]) -> dict[str, Any]:
    return dict(sorted(macros.items(), key=lambda pair: pair[0] == "SEED"))


def _cell_name(macros: Mapping[str, Any]) -> str:
    """The macros and their values, with a digest where those are cut or altered.

    >>> _cell_name({"NUM_POISON": 50, "SEED": 0}), _cell_name({})
    ('NUM_POISON_50--SEED_0', 'base')
    """
    parts = []
    for name, value in macros.items():
        text = value if isinstance(value, str) else repr(value)
        plain = re.sub(r"[^\w.]+", "_", text, flags=re.ASCII).strip("_")[:_MAX_VALUE]
        parts.append(f"{name}_{plain}" + ("" if plain == text else f"-{_digest(repr(value))}"))
    joined = "--".join(parts) or "base"
    return joined if len(joined) <= _MAX_NAME else f"{joined[:_MAX_NAME]}-{_digest(joined)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _computed(cell: StudyCell, config: StudyConfig) -> dict[str, Any]:
    """A cell's macros with the values of formulas, rounded to whole numbers."""

    def look_up(name: str) -> Any:
        # Of a macro that is a formula itself, the study's own value.
        is_formula = _formula(cell.macros.get(name)) is not None
        return config.base[name] if is_formula else _macro(name, cell, config)

    macros = dict(cell.macros)
    for name, text in cell.macros.items():
        if (tree := _formula(text)) is not None:
            try:
                macros[name] = round(_value(tree, look_up))
            except (TypeError, ArithmeticError) as error:
                raise errors.InputError(
                    f"study: {text} in cell {cell.name}: expected a formula of numbers ({error})"
                ) from None
    return macros


def _formula(value: Any) -> ast.BinOp | None:
    """The tree of a text such as '{NUM_POISON / POISON_RATE}'; None for anything else."""
    match = re.fullmatch(r"\{([\w\s.+*/()-]+)\}", value) if isinstance(value, str) else None
    try:
        tree = ast.parse(match[1].strip(), mode="eval").body if match else None
    except SyntaxError:
        return None
    return tree if isinstance(tree, ast.BinOp) else None


def _value(tree: ast.expr, look_up: Callable[[str], Any]) -> Any:
    match tree:
        case ast.BinOp(left, op, right) if type(op) in _ARITHMETIC:
            return _ARITHMETIC[type(op)](_value(left, look_up), _value(right, look_up))
        case ast.Name(name):
            return look_up(name)
        case ast.Constant(value):
            return value
    raise TypeError("+, -, *, / of macros alone")


def _macro(name: str, cell: StudyCell, config: StudyConfig) -> Any:
    if name not in config.base:
        raise errors.InputError(f"study: {{{name}}} in cell {cell.name}: no such macro")
    return cell.macros.get(name, config.base[name])


def _values(cell: StudyCell, config: StudyConfig) -> dict[str, Any]:
    """A cell's macros; in texts, {STUDY_DIR} and {MACRO} are replaced by their values."""

    def replaced(match: re.Match) -> str:
        is_folder = match[1] == "STUDY_DIR"
        return config.directory if is_folder else str(_macro(match[1], cell, config))

    return {
        name: re.sub(r"\{([A-Z_]+)\}", replaced, value) if isinstance(value, str) else value
        for name, value in cell.macros.items()
    }


def _after(cell: StudyCell, config: StudyConfig, known: Mapping[str, StudyCell]) -> tuple[str, ...]:
    parent = os.path.join(config.directory, "cells") + os.sep
    texts = [v for v in _values(cell, config).values() if isinstance(v, str)]
    paths = [text.removeprefix(parent) for text in texts if text.startswith(parent)]
    others = tuple(path.split(os.sep)[0] for path in paths)
    for other in others:
        if other not in known or other == cell.name:
            raise errors.InputError(
                f"study: cell {cell.name} reads cell {other!r}, expected one of the study's others"
                f"{errors.nearest(other, known)}"
            )
    return others


def settings(cell: StudyCell, config: StudyConfig) -> dict[str, Any]:
    """A cell's macros as its commands are given them, but for paths that other cells make."""
    parent = os.path.join(config.directory, "cells")
    values = {**_values(cell, config), "RUN_DIR": str(folder(config, cell.name))}
    is_made = [name for name, value in values.items() if str(value).startswith(parent)]
    return {
        name: value for name, value in values.items() if name not in is_made or name == "RUN_DIR"
    }


def folder(config: StudyConfig, name: str) -> pathlib.Path:
    """A cell's run folder."""
    return pathlib.Path(config.directory) / "cells" / name


def defense(cell: StudyCell) -> str:
    """The name of a cell's defended model."""
    return cell.macros.get("DEFENSE") or "defended"


def commands(cell: StudyCell, config: StudyConfig, flags: Sequence[str]) -> list[list[str]]:
    """The command lines of `poison-t5x` that make a cell, in order.

    What `defense_macros` names is given to 'defend' alone: the run before it is then the same one
    for all cells that differ in nothing else. A cell that sets none of them isn't defended: its run
    is what a defence is compared with. `flags` are the study's own.
    """
    store = config.store_dir or os.path.join(config.directory, "store")
    folders = {"RUN_DIR": str(folder(config, cell.name)), "STAGE_STORE_DIR": store}
    if config.base.get("COMPILATION_CACHE_DIR") is None:  # half of a short cell's time
        folders["COMPILATION_CACHE_DIR"] = os.path.join(store, "compiled")

    def line(command: str, macros: Mapping[str, Any]) -> list[str]:
        given = {**macros, **folders}.items()
        # A text in quotes, so that it stays one.
        return [command, *flags, *(f"--gin.{name}={value!r}" for name, value in given)]

    own = _values(cell, config)
    if cell.command in ("run", "craft"):
        return [line(cell.command, own)]
    if cell.command == "detect":
        return [line("run", own), line("detect", own)]
    shared = {name: value for name, value in own.items() if name not in config.defense_macros}
    defend = line("defend", {"DEFENSE": defense(cell), **own})
    return [line("run", shared)] if shared == own else [line("run", shared), defend]


def fingerprint(cell: StudyCell, config: StudyConfig, parameters: str) -> str:
    """A digest of all that a cell's result follows from, but for the contents of data files.

    `parameters` are gin's bindings beside the macros, as text.
    """
    macros = {**config.base, **cell.macros, "STUDY_COMMAND": cell.command}
    kept = {
        name: repr(value) for name, value in macros.items() if not _NOT_OF_THE_CELL.fullmatch(name)
    }
    defended = sorted(config.defense_macros) if cell.command == "defend" else []
    return artifacts.digest([poison_t5x.__version__, kept, parameters, defended])
