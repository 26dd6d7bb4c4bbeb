"""Variants by name: each is a file with a decorator, ours in one folder, a user's in a module.

A room that has variants of a kind, such as scores, declares

    SCORES: Registry[Score] = Registry("score", "poison_t5x.defenses.scores")

and a file of that folder, or a user's module that MIXTURE_OR_TASK_MODULE names, adds one with

    @SCORES.register("onion")
    class Onion: ...

Ours are known by name and first line before their files are imported, which may take seconds.
"""

import ast
import functools
import importlib
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from poison_t5x.core import errors

T = TypeVar("T")


class Registry(Generic[T]):
    """Targets (classes or functions) of one kind, by name."""

    def __init__(self, kind: str, package: str) -> None:
        """A registry; nothing is imported.

        Args:
          kind: the variants' noun, for messages, such as 'score'.
          package: the folder of our own variants, as a dotted name.
        """
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
                ours is not None and target.__module__ != ours[0]
            ):
                raise errors.InputError(f"{self.kind} {name!r} is registered twice")
            return target

        return add

    def names(self) -> tuple[str, ...]:
        """All names: ours by file, then the user's."""
        return tuple(self.summaries())

    def summaries(self) -> dict[str, str]:
        """Name -> the first line of the target's docstring."""
        ours = {name: line for name, (_, line) in self._ours.items()}
        others = {
            name: (target.__doc__ or "").strip().partition("\n")[0]
            for name, target in self._targets.items()
            if name not in ours
        }
        return {**ours, **others}

    def get(self, name: object, setting: str) -> Callable[..., T]:
        """The target of a name, its file imported.

        Args:
          name: as a user gave it.
          setting: the macro or flag that it was given in.

        Raises:
          InputError: there is none, with the nearest name.
        """
        self.check(name, setting)
        assert isinstance(name, str)
        if name not in self._targets:
            importlib.import_module(self._ours[name][0])
        return self._targets[name]

    def check(self, name: object, setting: str) -> None:
        """Raises InputError, with the nearest name, where there is none of this name."""
        known = self.names()
        if name not in known:
            raise errors.InputError(
                f"{setting}: no {self.kind} {name!r}{errors.nearest(str(name), known)}; there are "
                f"{', '.join(known)}"
            )

    @functools.cached_property
    def _ours(self) -> dict[str, tuple[str, str]]:
        """Name -> (module, first line) of what the folder's files register, read as text."""
        *above, folder = self._package.split(".")
        parent = pathlib.Path(str(sys.modules[above[0]].__file__)).parent
        found: dict[str, tuple[str, str]] = {}
        for path in sorted(parent.joinpath(*above[1:], folder).glob("*.py")):
            for name, line in _registered(ast.parse(path.read_text(encoding="utf-8"))):
                found[name] = (f"{self._package}.{path.stem}", line)
        return found


def _registered(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(name, first line of the docstring) of what a file's decorators register."""
    for node in tree.body:
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            continue
        for decorator in node.decorator_list:
            if (
                isinstance(decorator, ast.Call)
                and isinstance(decorator.func, ast.Attribute)
                and decorator.func.attr == "register"
                and isinstance(name := getattr(decorator.args[0], "value", None), str)
            ):
                yield name, (ast.get_docstring(node) or "").partition("\n")[0]
