"""Gin on the command line: T5X's flags, plain strings, and unknown names that don't pass silently.

With `cli.py`, the only place that imports gin.
"""

import os
import pathlib
import re
import tokenize
from collections.abc import Mapping, Sequence
from typing import Any

import gin
import poison_t5x
from poison_t5x.core import errors

_GIN_ERRORS = (
    ValueError,
    SyntaxError,
    OSError,
    ImportError,
    AttributeError,
    RuntimeError,
    tokenize.TokenError,
)
_PACKAGE = pathlib.Path(poison_t5x.__file__).parent


def project_folder() -> pathlib.Path:
    """The project's own gin folder: inside an installed package, beside it in a checkout."""
    for folder in (_PACKAGE / "gin", _PACKAGE.parent / "gin"):
        if (folder / "runs").is_dir():
            return folder
    raise errors.InputError(f"the project's gin files are missing from {_PACKAGE}")


def quoted(value: str) -> str:
    """A flag's value as gin writes it: what isn't a gin value is a plain string.

    >>> quoted("James Bond"), quoted("1e-5"), quoted("'x'")
    ("'James Bond'", '1e-5', "'x'")
    """
    # As a whole statement: gin's parser of values alone stops after the first one.
    try:
        statements = list(
            gin.config_parser.ConfigParser(f"X = {value}", gin.config.ParserDelegate())
        )
    except (SyntaxError, ValueError, tokenize.TokenError):
        return repr(value)
    return value if len(statements) == 1 else repr(value)


def _macros() -> dict[str, Any]:
    return {
        scope: value["value"]
        for (scope, selector), value in gin.config._CONFIG.items()
        if selector == "gin.macro" and "value" in value
    }


def _check_files(files: Sequence[str], search_paths: Sequence[str]) -> None:
    known = sorted(
        path.relative_to(project_folder()).as_posix() for path in project_folder().glob("*/*.gin")
    )
    for name in files:
        if not any(os.path.isfile(os.path.join(path, name)) for path in search_paths):
            raise errors.InputError(
                f"--gin_file: no file {name!r}{errors.nearest(name, known)}; looked in "
                f"{', '.join(search_paths)}"
            )


def _check_macros(base: set[str], flags: Sequence[str]) -> None:
    """Raises where a macro is set that nothing reads."""
    macros = _macros()
    read = set(re.findall(r"%(\w+)", repr(list(gin.config._CONFIG.values()))))
    for name in [*flags, *macros]:
        if name not in base and name not in read:
            known = sorted(base)
            raise errors.InputError(f"unknown macro {name}{errors.nearest(name, known)}")
    for name in macros:
        _check_chain(name, macros)


def check_macros(*files: str) -> None:
    """For gin that was parsed elsewhere: raises InputError where a macro is set that nothing reads.

    Args:
      files: the project's files whose macros are known whether read or not, such as 'runs/run.gin'.
    """
    texts = [(project_folder() / name).read_text(encoding="utf-8") for name in files]
    known = {name for text in texts for name in re.findall(r"^([A-Z]\w*) =", text, re.MULTILINE)}
    _check_macros(known, ())


def _check_chain(name: str, macros: Mapping[str, Any]) -> None:
    """A macro may stand for another one, but at the end there must be a value."""
    passed = [name]
    while reference := re.fullmatch(r"%(\w+)", repr(macros[passed[-1]])):
        if reference[1] in passed:
            chain = " = %".join([*passed, reference[1]])
            raise errors.InputError(f"macro {name} refers to itself: {chain}")
        if reference[1] not in macros:
            raise errors.InputError(
                f"macro {passed[-1]} refers to {reference[1]}, which isn't set"
                + errors.nearest(reference[1], macros)
            )
        passed.append(reference[1])


def find_files_by_path() -> None:
    """Has gin look for files by their paths alone, in this process.

    It also takes 'runs/run.gin' for a file of a Python package `runs`, and fails where the working
    directory, on the module path, has a folder of that name without one.
    """
    readers = gin.config._FILE_READERS
    readers[:] = [pair for pair in readers if pair[0].__module__ != "gin.resource_reader"]


def parse(
    base_file: str,
    gin_files: Sequence[str],
    gin_search_paths: Sequence[str],
    bindings: Sequence[tuple[str, str]],
) -> None:
    """Reads the run file, then the user's files, then the flags; later ones win.

    Args:
      base_file: a run file of the project, which binds macros to functions.
      gin_files: the user's, found from the working directory, the search paths, or the project.
      gin_search_paths: more folders.
      bindings: (name, value) of each `--gin.NAME=value`.

    Raises:
      InputError: no such file, unknown macro or parameter, or a syntax error.
    """
    search_paths = [os.getcwd(), *gin_search_paths, str(project_folder())]
    _check_files([base_file, *gin_files], search_paths)
    gin.clear_config()
    find_files_by_path()
    # Replaced, not added to: gin keeps the paths of earlier calls, and has no way to drop them.
    gin.config._LOCATION_PREFIXES[:] = search_paths
    try:
        gin.parse_config_file(base_file)
        base = set(_macros())
        for name in gin_files:
            gin.parse_config_file(name)
        macro_flags = [name for name, _ in bindings if name.isidentifier()]
        gin.parse_config([f"{name} = {quoted(value)}" for name, value in bindings])
        _check_macros(base, macro_flags)
    except errors.InputError:
        raise
    except _GIN_ERRORS as error:
        raise errors.InputError(f"gin: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """An error's message without the lines that gin adds about where it was called."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def macro(name: str) -> Any:
    """A macro's value."""
    return _macros().get(name)


def macros() -> dict[str, Any]:
    """All macros' values."""
    return dict(_macros())


def configured(selector: str):
    """A function or class with gin's bindings."""
    return gin.get_configurable(selector)


def text() -> str:
    """What was parsed, as gin text that can be parsed again."""
    return gin.config_str()


def parameters() -> str:
    """What was parsed, but for the macros, as gin text."""
    return "".join(text().partition("# Parameters for")[1:])
