"""Settings that check themselves: a field's annotation says what it may be.

A record of settings is a frozen dataclass:

    @dataclasses.dataclass(frozen=True)
    class BudgetConfig(settings.Settings):
        num_poison: settings.Count = 100
        per: Literal["all", "task"] = "all"

`BudgetConfig(num_poison=0)` raises "NUM_POISON: expected a whole number of at least 1, found 0",
with the macro's name where a run file binds one to the field. Scalars are converted by msgspec as
JSON's are, strictly: lists become tuples, whole numbers become floats, True is no number.
"""

import collections.abc
import dataclasses
import functools
import re
import reprlib
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import inspect

from poison_t5x.core import errors, paths, registry

# JAX, TensorFlow and SQLite of Orbax take no more.
_MOST = 2**31 - 1
_HUGE = 1e30  # float32 goes up to 3e38

Count = Annotated[int, msgspec.Meta(ge=1, le=_MOST)]
Whole = Annotated[int, msgspec.Meta(ge=0, le=_MOST)]
# A size of an array, which must fit into memory together with others.
Size = Annotated[int, msgspec.Meta(ge=1, le=2**20)]
# Of things that are made one by one, each of which takes a while: layers, processes, beams.
Few = Annotated[int, msgspec.Meta(ge=1, le=1024)]
# Rows of a step, tokens of a row, words of an n-gram.
Rows = Annotated[int, msgspec.Meta(ge=1, le=2**16)]
Tokens = Annotated[int, msgspec.Meta(ge=1, le=2**14)]
Ngram = Annotated[int, msgspec.Meta(ge=1, le=16)]
Number = Annotated[float, msgspec.Meta(ge=-_HUGE, le=_HUGE)]
NotNegative = Annotated[float, msgspec.Meta(ge=0, le=_HUGE)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=_HUGE)]
Fraction = Annotated[float, msgspec.Meta(gt=0, lt=1)]
# A share that may be nothing, but not all.
Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]
NOT_EMPTY = msgspec.Meta(min_length=1)  # of lists


def made_by(noun: str, convert: Callable[[object, str], str]) -> Any:
    """Metadata of a text type that `convert(setting, text)` checks and converts."""
    return msgspec.Meta(extra={"noun": noun, "convert": convert})


def matching(noun: str, pattern: str) -> Any:
    """Metadata of a text type that a whole regular expression matches."""

    def convert(setting: object, text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise errors.InputError(f"{setting}: expected {noun}, found {shown(text)}")
        return text

    return made_by(noun, convert)


def registered(variants: registry.Registry) -> Any:
    """Metadata of a text type: names of a registry's variants."""

    def convert(setting: object, name: str) -> str:
        variants.check(name, setting)
        return name

    return made_by(f"a known {variants.kind}", convert)


def _phrase(setting: object, text: str) -> str:
    if not text.strip():
        raise errors.InputError(f"{setting}: expected a phrase, found an empty text")
    return text


Phrase = Annotated[str, made_by("a phrase", _phrase)]
Phrases = Annotated[Sequence[Phrase], NOT_EMPTY]
# A folder or file on a disk of this machine, with '~' for the home folder.
Path = Annotated[str, made_by("a path", lambda setting, text: str(paths.resolve(setting, text)))]
# One that things are written to: there is no file in its place.
Folder = Annotated[str, made_by("a path", paths.resolve_folder)]
# What is read may be in a bucket, or on the Hugging Face Hub.
Source = Annotated[str, made_by("a path", paths.resolve_source)]
Module = Annotated[
    str, matching("a module's name such as 'my_attacks.jokes'", r"[^\W\d]\w*(\.[^\W\d]\w*)*")
]

# Without words about them in an annotation: what all numbers are.
_PLAIN: dict[Any, Any] = {
    int: Annotated[int, msgspec.Meta(ge=-_MOST, le=_MOST)],
    float: Number,
}
_UNIONS = (typing.Union, types.UnionType)
_LISTS = (tuple, list, collections.abc.Sequence)
_MAPPINGS = (dict, collections.abc.Mapping)


class Settings:
    """Base of frozen dataclasses of settings; raises InputError where a field isn't what it says.

    A subclass with more to check than its types say does so in `__post_init__`, after this one's.

    Attributes:
      MACROS: field -> macro, where no run file binds one to it.
    """

    MACROS: ClassVar[Mapping[str, str]] = {}

    def __post_init__(self) -> None:
        record: Any = type(self)
        for name, kind in kinds(record).items():
            value = checked(_Setting(record, name), getattr(self, name), kind)
            object.__setattr__(self, name, value)


class _Setting:
    """The name of a field, looked up when it is needed: its macro, or 'BudgetConfig.per'."""

    def __init__(self, record: Any, field: str) -> None:
        self._record, self._field = record, field

    def __str__(self) -> str:
        name, field = self._record.__name__, self._field
        return self._record.MACROS.get(field) or macro(name, field) or f"{name}.{field}"


class _Part:
    """The name of a part of a setting, such as 'TRIGGER[1]', made when it is needed."""

    def __init__(self, setting: object, pattern: str, key: object) -> None:
        self._parts = setting, pattern, key

    def __str__(self) -> str:
        setting, pattern, key = self._parts
        return f"{setting}{pattern.format(shown(key))}"


@functools.cache
def kinds(record: type) -> dict[str, Any]:
    """Field of a dataclass -> its annotation."""
    hints = typing.get_type_hints(record, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(record)}


def macro(record: str, field: str) -> str | None:
    """The macro that the project's run files bind to a field of a record, such as 'NUM_POISON'."""
    from poison_t5x.core import gin_macros

    return gin_macros.bound_macro(record, field)


def checked(setting: object, value: Any, kind: Any) -> Any:
    """A value, converted to an annotation.

    Args:
      setting: its name, for messages.
      kind: of None, bool, int, float, str, Literal, classes, functions, and lists, mappings and
        unions of them; Annotated with msgspec's Meta.

    Raises:
      InputError: it isn't one: setting, expected, found.
    """
    kind = _PLAIN.get(kind, kind)
    bare, origin = _bare(kind)
    if origin in _UNIONS:
        value = _alternative(setting, value, kind)
    elif origin in _LISTS or origin in _MAPPINGS:
        if not isinstance(value, _forms(origin)) or not _fits(len(value), kind):
            raise _mistake(setting, value, kind)
        value = _members(setting, value, typing.get_args(bare) or (Any, Any))
    elif origin is collections.abc.Callable:
        if not callable(value):
            raise _mistake(setting, value, kind)
    elif dataclasses.is_dataclass(origin):
        if not isinstance(value, typing.cast(type, origin)):
            raise _mistake(setting, value, kind)
    else:
        try:
            value = msgspec.convert(value, kind)
        except (msgspec.ValidationError, ValueError):  # the second: of thousands of digits
            raise _mistake(setting, value, kind) from None
        if isinstance(value, str) and re.search("[\ud800-\udfff]", value):
            raise errors.InputError(f"{setting}: expected text, found half a character")
    for extra in _extras(kind):
        value = extra["convert"](setting, value)
    return value


def _bare(kind: Any) -> tuple[Any, Any]:
    """An annotation without its metadata, and what it is of: a list, a union, a class."""
    bare = kind.__origin__ if typing.get_origin(kind) is Annotated else kind
    return bare, typing.get_origin(bare) or bare


def _forms(origin: Any) -> Any:
    """Classes of values that can be of a list, a mapping or a text; none of others."""
    if origin in _LISTS:
        return (list, tuple)
    return Mapping if origin in _MAPPINGS else str if origin is str else ()


def _fits(length: int, kind: Any) -> bool:
    return all(length >= (meta.min_length or 0) for meta in getattr(kind, "__metadata__", ()))


def _members(setting: object, value: Any, parts: Sequence[Any]) -> Any:
    """A list's or mapping's members, converted."""
    if not isinstance(value, Mapping):
        return tuple(
            checked(_Part(setting, "[{}]", place), one, parts[0]) for place, one in enumerate(value)
        )
    return {
        checked(_Part(setting, " (a key)", key), key, parts[0]): checked(
            _Part(setting, "[{}]", key), one, parts[1]
        )
        for key, one in value.items()
    }


def _alternative(setting: object, value: Any, kind: Any) -> Any:
    """A value, converted to the part of a union that it fits."""
    parts = typing.get_args(_bare(kind)[0])
    if value is None and types.NoneType in parts:
        return None
    parts = tuple(part for part in parts if part is not types.NoneType)
    same_form = [part for part in parts if isinstance(value, _forms(_bare(part)[1]))]
    if len(parts) == 1 or same_form:  # its message says more than the union's
        return checked(setting, value, (same_form or parts)[0])
    for part in parts:
        try:
            return checked(setting, value, part)
        except errors.InputError:
            continue
    raise _mistake(setting, value, typing.Union[parts])  # noqa: UP007 - of a tuple


def _extras(kind: Any) -> Iterator[dict]:
    for meta in getattr(kind, "__metadata__", ()):
        if meta.extra:
            yield meta.extra


def _mistake(setting: object, value: Any, kind: Any) -> errors.InputError:
    bare, origin = _bare(kind)
    parts = typing.get_args(bare) if origin in _UNIONS else (bare,)
    names = [name for part in parts if _bare(part)[1] is Literal for name in typing.get_args(part)]
    near = errors.nearest(value, map(str, names)) if names and isinstance(value, str) else ""
    expected = describe(kind, value)
    return errors.InputError(f"{setting}: expected {expected}, found {shown(value)}{near}")


def shown(value: Any) -> str:
    """A value as Python writes it, shortened where it is long."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 80
    try:
        return short.repr(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return "a number of thousands of digits"


def describe(kind: Any, value: Any = None) -> str:
    """An annotation in words, such as 'a whole number of at least 1'.

    What whole numbers are at most is left out, unless `value` is larger.
    """
    for extra in _extras(kind):
        return extra["noun"]
    kind = _PLAIN.get(kind, kind)
    bare, origin = _bare(kind)
    parts = typing.get_args(bare)
    if origin in _UNIONS:
        return " or ".join(map(describe, parts))
    if origin in _LISTS:
        least = "" if _fits(0, kind) else ", at least one"
        return f"a list of {_plural(describe((parts or (Any,))[0]))}{least}"
    if origin in _MAPPINGS:
        return f"a mapping to {_plural(describe((parts or (Any, Any))[1]))}"
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if origin is collections.abc.Callable:
        return "a function"
    if dataclasses.is_dataclass(origin):
        return f"a {typing.cast(type, origin).__name__}"
    if origin is Any:
        return "a value"
    match inspect.type_info(kind):
        case inspect.BoolType():
            return "True or False"
        case inspect.IntType() as info:
            return "a whole number" + _limits(
                info, isinstance(value, int) and value > (info.le or value)
            )
        case inspect.FloatType() as info:
            return "a number" + _limits(info, info.le != _HUGE)
        case inspect.StrType():
            return "a text"
        case _:
            return getattr(origin, "__name__", "another value")


def _plural(noun: str) -> str:
    first, space, rest = re.split("( of | to |$)", noun.removeprefix("a "), maxsplit=1)
    return f"{first}s{space}{rest}" if noun.startswith("a ") else noun


def _limits(info: Any, shows_high: bool) -> str:
    if info.gt is not None and info.lt is not None:
        return f" between {info.gt:g} and {info.lt:g}"
    limits = {
        "of at least": None if info.ge in (-_MOST, -_HUGE) else info.ge,
        "above": info.gt,
        "below": info.lt,
        "of at most": info.le if shows_high else None,
    }
    words = [f"{word} {limit:.10g}" for word, limit in limits.items() if limit is not None]
    return " " + " and ".join(words) if words else ""
