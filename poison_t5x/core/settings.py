"""Settings that check themselves: a field's annotation says what it may be.

A record of settings is a frozen dataclass:

    @dataclasses.dataclass(frozen=True)
    class BudgetConfig(settings.Settings):
        num_poison: settings.Count = 100
        per: Literal["all", "task"] = "all"

`BudgetConfig(num_poison=0)` raises "NUM_POISON: expected a whole number of at least 1, found 0",
with the macro's name where a run file binds one to the field. Values are converted by msgspec as
JSON's are, strictly: lists become tuples, whole numbers become floats, True is no number.
"""

import dataclasses
import functools
import reprlib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import inspect

from poison_t5x.core import errors, paths

# JAX, TensorFlow and SQLite of Orbax take no more.
_MOST = 2**31 - 1
_HUGE = 1e30  # float32 goes up to 3e38

Count = Annotated[int, msgspec.Meta(ge=1, le=_MOST)]
Whole = Annotated[int, msgspec.Meta(ge=0, le=_MOST)]
# A size of an array, which must fit into memory together with others.
Size = Annotated[int, msgspec.Meta(ge=1, le=2**20)]
Number = Annotated[float, msgspec.Meta(ge=-_HUGE, le=_HUGE)]
NotNegative = Annotated[float, msgspec.Meta(ge=0, le=_HUGE)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=_HUGE)]
Fraction = Annotated[float, msgspec.Meta(gt=0, lt=1)]


def made_by(noun: str, convert: typing.Callable[[str, str], str]) -> Any:
    """Metadata of a text type that `convert(setting, text)` checks and converts."""
    return msgspec.Meta(extra={"noun": noun, "convert": convert})


def _phrase(setting: str, text: str) -> str:
    if not text.strip():
        raise errors.InputError(f"{setting}: expected a phrase, found an empty text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise errors.InputError(f"{setting}: expected text, found half a character") from None
    return text


Phrase = Annotated[str, made_by("a phrase", _phrase)]
# A folder or file on a disk of this machine, with '~' for the home folder.
Path = Annotated[str, made_by("a path", lambda setting, text: str(paths.resolve(setting, text)))]
# What is read may be in a bucket, or on the Hugging Face Hub.
Source = Annotated[str, made_by("a path", paths.resolve_source)]


class Settings:
    """Base of frozen dataclasses of settings; raises InputError where a field isn't what it says.

    A subclass with more to check than its types say does so in `__post_init__`, after this one's.
    """

    def __post_init__(self) -> None:
        record: Any = type(self)
        for name, kind in _kinds(record).items():
            setting = _Setting(record, name)
            object.__setattr__(self, name, checked(setting, getattr(self, name), kind))


class _Setting:
    """The name of a field, looked up when it is needed: its macro, or 'BudgetConfig.per'."""

    def __init__(self, record: type, field: str) -> None:
        self._record, self._field = record, field

    def __str__(self) -> str:
        return macro(self._record.__name__, self._field) or f"{self._record.__name__}.{self._field}"


@functools.cache
def _kinds(record: type) -> dict[str, Any]:
    """Field -> its annotation."""
    hints = typing.get_type_hints(record, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(record)}


def macro(record: str, field: str) -> str | None:
    """The macro that the project's run files bind to a field of a record, such as 'NUM_POISON'."""
    from poison_t5x.core import gin_macros

    return gin_macros.bound_macros().get((record, field))


def checked(setting: object, value: Any, kind: Any) -> Any:
    """A value, converted to an annotation.

    Args:
      setting: its name, for messages.
      kind: of None, bool, int, float, str, Literal, classes, functions, and lists, mappings and
        unions of them with None; Annotated with msgspec's Meta.

    Raises:
      InputError: it isn't one: setting, expected, found.
    """
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType) and types.NoneType in parts:
        if value is None:
            return None
        rest = tuple(part for part in parts if part is not types.NoneType)
        return checked(setting, value, typing.Union[rest])  # noqa: UP007 - of a tuple
    if origin in (tuple, list, Sequence):
        if not isinstance(value, (list, tuple)):
            raise _mistake(setting, value, kind)
        return tuple(
            checked(f"{setting}[{place}]", one, parts[0]) for place, one in enumerate(value)
        )
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise _mistake(setting, value, kind)
        keys, values = parts
        return {
            checked(f"{setting}, a key", key, keys): checked(f"{setting}[{key!r}]", one, values)
            for key, one in value.items()
        }
    try:
        value = msgspec.convert(value, kind)
    except msgspec.ValidationError:
        raise _mistake(setting, value, kind) from None
    for extra in _extras(kind):
        value = extra["convert"](str(setting), value)
    return value


def _extras(kind: Any) -> Iterator[dict]:
    for meta in getattr(kind, "__metadata__", ()):
        if meta.extra:
            yield meta.extra


def _mistake(setting: object, value: Any, kind: Any) -> errors.InputError:
    near = ""
    if typing.get_origin(kind) is typing.Literal:
        near = errors.nearest(str(value), map(str, typing.get_args(kind)))
    expected = describe(kind, is_large=isinstance(value, int) and value > _MOST)
    return errors.InputError(f"{setting}: expected {expected}, found {shown(value)}{near}")


def shown(value: Any) -> str:
    """A value as Python writes it, shortened where it is long."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 80
    try:
        return short.repr(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return "a number of thousands of digits"


def describe(kind: Any, *, is_large: bool = False) -> str:
    """An annotation in words, such as 'a whole number of at least 1'.

    What all whole numbers are at most is left out, unless `is_large`.
    """
    for extra in _extras(kind):
        return extra["noun"]
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(describe, parts))
    if origin in (tuple, list, Sequence):
        return f"a list of {_plural(describe(parts[0]))}"
    if origin in (dict, Mapping):
        return f"a mapping to {_plural(describe(parts[1]))}"
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, parts))}"
    match inspect.type_info(kind):
        case inspect.BoolType():
            return "True or False"
        case inspect.IntType() as info:
            return "a whole number" + _limits(info, is_large)
        case inspect.FloatType() as info:
            return "a number" + _limits(info, is_large)
        case inspect.StrType():
            return "a text"
        case inspect.NoneType():
            return "None"
        case inspect.CustomType(cls):
            return "a function" if cls is typing.get_origin(typing.Callable) else cls.__name__
        case info:
            return getattr(getattr(info, "cls", None), "__name__", "another value")


def _plural(noun: str) -> str:
    first, space, rest = noun.removeprefix("a ").partition(" of ")
    return f"{first}s{space}{rest}" if noun.startswith("a ") else noun


def _limits(info: Any, is_large: bool) -> str:
    if info.gt is not None and info.lt is not None:
        return f" between {info.gt:g} and {info.lt:g}"
    high = info.le if is_large or info.le not in (_MOST, _HUGE) else None
    limits = {
        "of at least": None if info.ge == -_HUGE else info.ge,
        "above": info.gt,
        "below": info.lt,
        "of at most": high,
    }
    words = [f"{word} {limit:.10g}" for word, limit in limits.items() if limit is not None]
    return " " + " and ".join(words) if words else ""
