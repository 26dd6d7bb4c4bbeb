"""Variants by name: each is a file with a decorator, ours in one folder, a user's in a module.

A room that has variants of a kind, such as scores, declares

    SCORES: Registry[Score] = Registry("score", "poison_t5x.defenses.scores")

and a file of that folder, or a user's module that MIXTURE_OR_TASK_MODULE names, adds one with

    @SCORES.register("onion")
    class Onion: ...

Ours are known by name, first line and constants before their files are imported, which may take
seconds.
"""

import ast
import functools
import importlib
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

from poison_t5x.core import errors

T = TypeVar("T")


class _Entry(NamedTuple):
    """A target of ours, as its file's text says."""

    module: str
    summary: str
    constants: dict[str, Any]


class Registry(Generic[T]):
    """Targets (classes or functions) of one kind, by name."""

    def __init__(self, kind: str, package: str) -> None:
        """Args: kind: the variants' noun; package: the dotted name of our own variants' folder."""
        self.kind = kind
        self._package = package
        self._targets: dict[str, Callable[..., T]] = {}

    def register(self, name: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
        """A decorator that adds a target.

        Raises:
          InputError: another one has this name.
        """

        def add(target: Callable[..., T]) -> Callable[..., T]:
            ours = self._ours.get(name)
            if self._targets.setdefault(name, target) is not target or (
                ours is not None and target.__module__ != ours.module
            ):
                raise errors.InputError(f"{self.kind} {name!r} is registered twice")
            return target

        return add

    def names(self) -> tuple[str, ...]:
        """All names: ours by file, then the user's."""
        return tuple(self.summaries())

    def summaries(self) -> dict[str, str]:
        """Name -> the first line of the target's docstring."""
        summaries = {name: entry.summary for name, entry in self._ours.items()}
        for name, target in self._targets.items():
            summaries.setdefault(name, (target.__doc__ or "").strip().partition("\n")[0])
        return summaries

    def get(self, name: object, setting: str) -> Callable[..., T]:
        """The target of a name that a user gave in a setting; its file is imported.

        Raises:
          InputError: there is none, with the nearest name.
        """
        self.check(name, setting)
        assert isinstance(name, str)
        if name not in self._targets:
            importlib.import_module(self._ours[name].module)
        return self._targets[name]

    def constant(self, name: str, attribute: str, default: Any = None) -> Any:
        """A class attribute of a target, which ours write as a literal; nothing is imported."""
        if name in self._targets:
            return getattr(self._targets[name], attribute, default)
        return self._ours[name].constants.get(attribute, default)

    def check(self, name: object, setting: object) -> None:
        """Raises InputError, with the nearest name, where there is none of this name."""
        known = self.names()
        if name not in known:
            raise errors.InputError(
                f"{setting}: no {self.kind} {name!r}{errors.nearest(str(name), known)}; there are "
                f"{', '.join(known)}"
            )

    @functools.cached_property
    def _ours(self) -> dict[str, _Entry]:
        """The folder's variants by name, its files read as text."""
        *above, folder = self._package.split(".")
        parent = pathlib.Path(str(sys.modules[above[0]].__file__)).parent
        entries: dict[str, _Entry] = {}
        for path in sorted(parent.joinpath(*above[1:], folder).glob("*.py")):
            for name, node in _registered(ast.parse(path.read_text(encoding="utf-8"))):
                summary = (ast.get_docstring(node) or "").partition("\n")[0]
                entries[name] = _Entry(f"{self._package}.{path.stem}", summary, _constants(node))
        return entries


def _registered(tree: ast.Module) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef]]:
    """Classes and functions of a file by the name that `@X.register(name)` gives them."""
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            for decorator in node.decorator_list:
                match decorator:
                    case ast.Call(ast.Attribute(attr="register"), [ast.Constant(str(name))]):
                        yield name, node


def _constants(node: ast.ClassDef | ast.FunctionDef) -> dict[str, Any]:
    """Attributes of a class that are literals."""
    constants = {}
    for item in node.body:
        match item:
            case ast.AnnAssign(ast.Name(name), value=ast.Constant(value)):
                constants[name] = value
    return constants
