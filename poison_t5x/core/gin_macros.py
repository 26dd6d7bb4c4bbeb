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
from poison_t5x.core import errors, reading

# Macros of ours by the names that they had; those still work, and warn, for one version.
RENAMED: dict[str, str] = {}
# Bytes of a gin file, and files that one names, itself included.
_MOST_BYTES, _MOST_FILES = 2**20, 1000
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


class _Text(io.StringIO):
    """A file's text, with its name as gin looks it up."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        text = reading.read_text(path, _MOST_BYTES).removeprefix("\ufeff")
        super().__init__(text, newline=None)  # whatever ends its lines
        self.name = str(path)


def open_text(path: str | os.PathLike[str]) -> io.StringIO:
    """A gin file, which is UTF-8 whatever the locale is. Raises InputError as `reading` does."""
    return _Text(path)


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


def bound_macro(record: str, field: str) -> str | None:
    """The macro that the project's run files bind to a class's field, in gin's scope of now."""
    by_scope = bound_macros().get((record, field), {})
    anywhere = next(iter(by_scope.values()), None)
    return by_scope.get(gin.current_scope_str()) or by_scope.get("") or anywhere


@functools.cache
def bound_macros() -> dict[tuple[str, str], dict[str, str]]:
    """(class or function, parameter) -> scope -> macro, as in runs/*.gin."""
    bound: dict[tuple[str, str], dict[str, str]] = {}
    for path in sorted((project_folder() / "runs").glob("*.gin")):
        text = reading.read_text(path)
        for statement in gin.config_parser.ConfigParser(text, _Delegate()):
            match statement:
                case gin.config_parser.BindingStatement(
                    scope=scope, selector=selector, arg_name=str(name), value=_Reference() as value
                ) if name and value.startswith("%"):
                    key = selector.rpartition(".")[2], name
                    bound.setdefault(key, {})[scope] = value[1:]
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
    except RecursionError:  # which is told where the flag is read
        return value


@contextlib.contextmanager
def _errors_of(place: str) -> Iterator[None]:
    """Names the file or flag that can't be read."""
    try:
        yield
    except errors.InputError:
        raise
    except RecursionError:
        raise errors.InputError(f"gin: {place}: nested too deep") from None
    except SyntaxError as error:
        raise errors.InputError(f"gin: {place}:{error.lineno}: {_line(error.msg)}") from error
    except tokenize.TokenError as error:
        text, (line, _) = error.args
        raise errors.InputError(f"gin: {place}:{line}: {text}") from error
    except ValueError as error:
        raise errors.InputError(f"gin: {place}: {errors.first_line(error)}") from error


def _line(text: str) -> str:
    """A message of several lines as one."""
    return "; ".join(part.strip() for part in text.splitlines())


class Macros(dict[str, Macro]):
    """All macros by name, in the order in which files set them first."""

    def __init__(self, given_paths: Sequence[str]) -> None:
        super().__init__()
        self._paths = search_paths(given_paths)
        self._read_at: dict[str, str] = {}  # macro -> where it is first read
        self._open: list[str] = []  # the file that is read, after those that include it
        self._num_files = 0

    def read_file(self, name: str, place: str = "--gin_file") -> None:
        """Adds a file's, and those of the files that it includes; `place` is what names it."""
        path = self._find(name, place)
        if str(path) in self._open:
            chain = " includes ".join([*self._open[self._open.index(str(path)) :], str(path)])
            raise errors.InputError(f"{place}: a circle of files: {chain}")
        self._num_files += 1
        if self._num_files > _MOST_FILES:
            raise errors.InputError(f"{place}: more than {_MOST_FILES:,} files are included")
        self._open.append(str(path))
        with _errors_of(name):
            text = open_text(path).read()
            tokens = tokenize.generate_tokens(io.StringIO(text).readline)
            comments = {token.start[0]: token for token in tokens if token.type == tokenize.COMMENT}
            for statement in gin.config_parser.ConfigParser(text, _Delegate()):
                line = statement.location.line_num
                if isinstance(statement, gin.config_parser.IncludeStatement):
                    self.read_file(statement.filename, f"{name}:{line}")
                else:
                    self._bind(statement, f"{name}:{line}", _meaning(comments, line))
        self._open.pop()

    def _find(self, name: str, place: str) -> pathlib.Path:
        there = [path for folder in self._paths if (path := pathlib.Path(folder, name)).exists()]
        if not there:
            raise errors.InputError(
                f"{place}: no file {name!r}{errors.nearest(name, project_files())}; looked in "
                f"{', '.join(self._paths)}"
            )
        return next((path for path in there if path.is_file()), there[0])

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
        set_at = {name: macro.origin for name, macro in self.items()}
        check(self.values_by_name(), self._read_at, known, set_at)

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
        for reference in references(statement.value):
            self._read_at.setdefault(reference, origin)
        if statement.arg_name:
            return
        selector = "/".join(filter(None, (statement.scope, statement.selector)))
        name = RENAMED.get(selector, selector)
        if name != selector:
            text = f"{origin}: {selector} is called {name} now; the next version won't"
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


def references(value: Any) -> Iterator[str]:
    """The macros that a value stands for or holds, of gin's references or ours."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case dict() as one:
                waiting += [*one.values(), *one.keys()]
            case list() | tuple() as several:
                waiting += several
            case str() as text if not isinstance(text, _Reference):
                pass
            case other:
                if name := re.fullmatch(r"%([\w/]+)", repr(other)):
                    yield name[1]


def check(
    values: Mapping[str, Any],
    read_at: Mapping[str, str],
    known: Collection[str],
    set_at: Mapping[str, str],
) -> None:
    """Raises InputError where a macro is set that nothing reads, is read and not set, or stands
    for itself.

    Args:
      values: macro -> value, with gin's references or ours, which both show as '%NAME'.
      read_at: macro that a binding names -> where.
      known: macros that need not be read.
      set_at: macro -> where it is set, as far as that is known.
    """
    for name in values:
        if name not in known and name not in read_at:
            raise errors.InputError(f"unknown macro {name}{errors.nearest(name, sorted(known))}")
    for name, place in read_at.items():
        if name not in values:
            near = errors.nearest(name, values)
            raise errors.InputError(f"{place}: macro {name} is read, and set nowhere{near}")
        _check_circle(name, values, set_at.get(name, place))


def _check_circle(name: str, values: Mapping[str, Any], place: str) -> None:
    """Raises InputError where a macro's value leads back to it."""
    came_from: dict[str, str] = {}
    waiting = [name]
    while waiting:
        at = waiting.pop()
        for reference in references(values.get(at)):
            if reference == name:
                chain = [name, at]
                while chain[-1] != name:
                    chain.append(came_from[chain[-1]])
                text = " = %".join([name, *chain[-2:0:-1], name])
                raise errors.InputError(f"{place}: macro {name} refers to itself: {text}")
            if reference not in came_from:
                came_from[reference] = at
                waiting.append(reference)


def resolve(name: str, values: Mapping[str, Any]) -> Any:
    """A macro's value, through those that it stands for; of macros that `check` has let pass."""
    value = values[name]
    while reference := re.fullmatch(r"%([\w/]+)", repr(value)):
        value = values[reference[1]]
    return value
