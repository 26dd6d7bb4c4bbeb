"""Gin on the command line: T5X's flags, plain strings, and unknown names that don't pass silently.

With `gin_macros`, which reads the same files as text, the only place that imports gin.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gin
from poison_t5x.core import errors, failures, gin_macros


def parse(
    base_file: str,
    gin_files: Sequence[str],
    gin_search_paths: Sequence[str],
    bindings: Sequence[tuple[str, str]],
) -> None:
    """Reads the run file, then the user's files, then the flags; later ones win.

    Unknown macros pass: `gin_macros.read` refuses them, and takes the same arguments.

    Args:
      base_file: a run file of the project, which binds macros to functions.
      gin_files: the user's, found from the working directory, the search paths, or the project.
      gin_search_paths: more folders.
      bindings: (name, value) of each `--gin.NAME=value`.

    Raises:
      InputError: an unknown parameter, or what can't be imported.
    """
    gin.clear_config()
    find_files_by_path()
    # Replaced, not added to: gin keeps the paths of earlier calls, and has no way to drop them.
    gin.config._LOCATION_PREFIXES[:] = gin_macros.search_paths(gin_search_paths)
    try:
        for name in (base_file, *gin_files):
            gin.parse_config_file(name)
            _rename()
        for name, value in bindings:
            text = gin_macros.quoted(value)
            gin.parse_config(f"{gin_macros.RENAMED.get(name, name)} = {text}")
    except (Exception, SystemExit) as error:
        raise errors.InputError(f"gin: {_told(error)}") from error


def _told(error: BaseException) -> str:
    """An error of gin, or of a module that a file imports, with the place in the gin file.

    gin adds the place to the message: the innermost file first, after the error's own lines.
    """
    place = re.search(r'\n  In file "(.+)", line (\d+)\n', str(error))
    is_gins = failures.told(error).startswith("ValueError: ")
    text = errors.first_line(error) if is_gins else failures.told(error)
    return f"{place[1]}:{place[2]}: {text}" if place else text


def _rename() -> None:
    """Moves what a file set under a macro's old name; `gin_macros.read` has warned of it."""
    for old, new in gin_macros.RENAMED.items():
        if (value := gin.config._CONFIG.pop((old, "gin.macro"), None)) is not None:
            gin.config._CONFIG[new, "gin.macro"] = value


def find_files_by_path() -> None:
    """Has gin look for files by their paths alone, in this process, and read them as UTF-8.

    It also takes 'runs/run.gin' for a file of a Python package `runs`, and fails where the working
    directory, on the module path, has a folder of that name without one.
    """
    readers = gin.config._FILE_READERS
    others = [pair for pair in readers if pair[0] not in (open, gin_macros.open_text)]
    readers[:] = [
        (gin_macros.open_text, os.path.isfile),
        *(pair for pair in others if pair[0].__module__ != "gin.resource_reader"),
    ]


def check_macros(base_file: str) -> None:
    """For gin that was parsed elsewhere: raises InputError where a macro is set that nothing reads.

    Those of the project's `base_file` are known whether read or not.
    """
    known = gin_macros.read(base_file, (), (), ())
    read = gin_macros.references([dict(one) for one in gin.config._CONFIG.values()])
    gin_macros.check(macros(), dict.fromkeys(read, "gin"), known, {})


def macros() -> dict[str, Any]:
    """All macros' values."""
    return {
        scope: value["value"]
        for (scope, selector), value in gin.config._CONFIG.items()
        if selector == "gin.macro" and "value" in value
    }


def macro(name: str) -> Any:
    """A macro's value."""
    return macros().get(name)


def configured(selector: str):
    """A function or class with gin's bindings."""
    return gin.get_configurable(selector)


def made(selector: str) -> dict[str, Any]:
    """The arguments that gin has for a function, made: the settings in them have checked
    themselves, before the function is called."""
    return gin.get_bindings(selector, resolve_references=True)


@contextlib.contextmanager
def changed(values: Mapping[str, Any]) -> Iterator[None]:
    """While entered, macros have these values."""
    before = dict(gin.config._CONFIG)
    try:
        for name, value in values.items():
            gin.config._CONFIG[name, "gin.macro"] = {"value": value}
        yield
    finally:
        gin.config._CONFIG.clear()
        gin.config._CONFIG.update(before)


def text() -> str:
    """All that was parsed, as gin text that can be parsed again."""
    return gin.config_str()


def parameters() -> str:
    """All that was parsed but the macros, as gin text."""
    return "".join(text().partition("# Parameters for")[1:])
