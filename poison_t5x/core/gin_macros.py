"""Macros of gin files and flags, read as text: nothing that the files name is imported.

So a missing file, an unknown macro or a RUN_DIR that isn't set is found within a moment.
"""

import contextlib
import functools
import io
import os
import pathlib
import re
import tokenize
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import gin
import poison_t5x
from poison_t5x.core import errors

# Macros of ours by the names that they had; those still work, and warn, for one version.
RENAMED: dict[str, str] = {}
_PACKAGE = pathlib.Path(poison_t5x.__file__).parent
_REMEDIES = {
    "RUN_DIR": "give --gin.RUN_DIR=FOLDER",
    "EXPERIMENT": "give --gin_file=experiments/demo.gin, another experiment file, or "
    "--gin.EXPERIMENT=NAME",
}


class Macro(NamedTuple):
    """A macro's value, where it was set ('runs/run.gin:34', '--gin.NAME'), and its meaning.

    The meaning is the comment beside or right above it, in the first file that has one.
    """

    value: Any
    origin: str
    meaning: str


class _Delegate(gin.config_parser.ParserDelegate):
    """Leaves references as gin writes them."""

    def configurable_reference(self, scoped_configurable_name, evaluate):
        return _Reference(f"@{scoped_configurable_name}" + "()" * evaluate)

    def macro(self, macro_name):
        return _Reference(f"%{macro_name}")


class _Reference(str):
    __repr__ = str.__str__


def project_folder() -> pathlib.Path:
    """The project's own gin folder: inside an installed package, beside it in a checkout."""
    for folder in (_PACKAGE / "gin", _PACKAGE.parent / "gin"):
        if (folder / "runs").is_dir():
            return folder
    raise errors.InputError(f"the project's gin files are missing from {_PACKAGE}")


def project_files() -> list[str]:
    """The project's own gin files, as --gin_file takes them."""
    folder = project_folder()
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*.gin"))


@functools.cache
def bound_macros() -> dict[tuple[str, str], str]:
    """(class or function, parameter) -> the macro that the project's run files bind to it."""
    bound = {}
    for path in sorted((project_folder() / "runs").glob("*.gin")):
        text = path.read_text(encoding="utf-8")
        for statement in gin.config_parser.ConfigParser(text, _Delegate()):
            match statement:
                case gin.config_parser.BindingStatement(
                    selector=selector, arg_name=str(name), value=_Reference() as value
                ) if name and value.startswith("%"):
                    bound[selector.rpartition(".")[2], name] = value[1:]
    return bound


def search_paths(given: Sequence[str]) -> list[str]:
    """Folders that gin files are looked for in: the working directory, those, the project's."""
    return [os.getcwd(), *given, str(project_folder())]


def quoted(value: str) -> str:
    """A flag's value as gin writes it: what isn't a gin value is a plain string.

    >>> quoted("James Bond"), quoted("1e-5"), quoted("'x'")
    ("'James Bond'", '1e-5', "'x'")
    """
    # As a whole statement: gin's parser of values alone stops after the first one.
    try:
        parser = gin.config_parser.ConfigParser(f"X = {value}", gin.config.ParserDelegate())
        return value if len(list(parser)) == 1 else repr(value)
    except (SyntaxError, ValueError, tokenize.TokenError):
        return repr(value)


@contextlib.contextmanager
def _errors_of(place: str) -> Iterator[None]:
    """Names the file or flag that can't be read."""
    try:
        yield
    except errors.InputError:
        raise
    except (SyntaxError, ValueError, tokenize.TokenError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        text = error if isinstance(error, ValueError) else error.args[0]
        raise errors.InputError(f"gin: {place}{line}: {text}") from error
    except RecursionError:
        raise errors.InputError(f"gin: {place}: includes itself") from None


class Macros(dict[str, Macro]):
    """All macros by name, in the order in which files set them first."""

    def __init__(self, given_paths: Sequence[str]) -> None:
        super().__init__()
        self._paths = search_paths(given_paths)
        self._named: set[str] = set()

    def read_file(self, name: str) -> None:
        """Adds a file's, and those of the files that it includes."""
        for folder in self._paths:
            if (path := pathlib.Path(folder, name)).is_file():
                break
        else:
            raise errors.InputError(
                f"--gin_file: no file {name!r}{errors.nearest(name, project_files())}; looked in "
                f"{', '.join(self._paths)}"
            )
        with _errors_of(name):
            text = path.read_text(encoding="utf-8")
            tokens = tokenize.generate_tokens(io.StringIO(text).readline)
            comments = {token.start[0]: token for token in tokens if token.type == tokenize.COMMENT}
            for statement in gin.config_parser.ConfigParser(text, _Delegate()):
                if isinstance(statement, gin.config_parser.IncludeStatement):
                    self.read_file(statement.filename)
                else:
                    line = statement.location.line_num
                    self._bind(statement, f"{name}:{line}", _meaning(comments, line))

    def read_flag(self, name: str, value: str) -> None:
        """Adds what `--gin.NAME=VALUE` sets."""
        with _errors_of(f"--gin.{name}"):
            text = f"{name} = {quoted(value)}"
            for statement in gin.config_parser.ConfigParser(text, _Delegate()):
                self._bind(statement, f"--gin.{name}", "")

    def values_by_name(self) -> dict[str, Any]:
        return {name: macro.value for name, macro in self.items()}

    def check(self, known: Collection[str]) -> None:
        """Raises InputError where a macro is set that nothing reads, or stands for none."""
        check(self.values_by_name(), self._named, known)

    def get_value(self, name: str) -> Any:
        """A macro's value, through those that it stands for; None where it isn't set."""
        return resolve(name, self.values_by_name()) if name in self else None

    def require(self, *names: str, instead: str | None = None) -> None:
        """Raises InputError where one of these isn't set, nor a folder `instead` of them."""
        if instead and self.get_value(instead):
            return
        also = f"; or --gin.{instead}=FOLDER" if instead else ""
        for name in names:
            if not self.get_value(name):
                raise errors.InputError(f"{name} isn't set: {_REMEDIES[name]}{also}")

    def _bind(self, statement: Any, origin: str, meaning: str) -> None:
        if not isinstance(statement, gin.config_parser.BindingStatement):
            return
        self._named |= set(re.findall(r"%(\w+)", repr([statement.value])))
        if statement.arg_name:
            return
        name = RENAMED.get(statement.selector, statement.selector)
        if name != statement.selector:
            text = f"{origin}: {statement.selector} is called {name} now; the next version won't"
            warnings.warn(f"{text} know the old name", errors.InputWarning, stacklevel=2)
        first = self[name].meaning if name in self else ""
        self[name] = Macro(statement.value, origin, first or meaning)


def _meaning(comments: Mapping[int, tokenize.TokenInfo], line: int) -> str:
    """The comment beside a line, or else the block right above it."""
    first = line if line not in comments else line + 1
    while first - 1 in comments and not comments[first - 1].start[1]:
        first -= 1
    lines = [line] if line in comments else range(first, line)
    return " ".join(comments[number].string.lstrip("# ") for number in lines)


def read(
    base_file: str,
    gin_files: Sequence[str],
    gin_search_paths: Sequence[str],
    bindings: Sequence[tuple[str, str]],
) -> Macros:
    """The macros that `gin_config.parse` is going to find.

    Args: as of `gin_config.parse`.

    Raises:
      InputError: no such file, an unknown macro, or a syntax error.
    """
    macros = Macros(gin_search_paths)
    macros.read_file(base_file)
    known = set(macros)
    for name in gin_files:
        macros.read_file(name)
    for name, value in bindings:
        macros.read_flag(name, value)
    macros.check(known)
    return macros


def check(values: Mapping[str, Any], read_names: Collection[str], known: Collection[str]) -> None:
    """Raises InputError where a macro is set that nothing reads, or stands for none.

    Args:
      values: macro -> value, with gin's references or ours, which both show as '%NAME'.
      read_names: macros that a binding names.
      known: macros that need not be read.
    """
    for name in values:
        if name not in known and name not in read_names:
            raise errors.InputError(f"unknown macro {name}{errors.nearest(name, sorted(known))}")
        resolve(name, values)


def resolve(name: str, values: Mapping[str, Any]) -> Any:
    """A macro's value, through those that it stands for. Raises InputError where there is none."""
    passed = [name]
    while reference := re.fullmatch(r"%(\w+)", repr(values[passed[-1]])):
        if reference[1] in passed:
            chain = " = %".join([*passed, reference[1]])
            raise errors.InputError(f"macro {name} refers to itself: {chain}")
        if reference[1] not in values:
            raise errors.InputError(
                f"macro {passed[-1]} refers to {reference[1]}, which isn't set"
                + errors.nearest(reference[1], values)
            )
        passed.append(reference[1])
    return values[passed[-1]]
