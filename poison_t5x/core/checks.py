"""Checks of settings: one wording for each kind of mistake. All raise InputError."""

import math
from collections.abc import Iterable
from typing import Any

from poison_t5x.core import errors


def whole_number(name: str, value: Any, minimum: int = 1) -> None:
    """`value` must be an int of at least `minimum`; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise errors.InputError(
            f"{name}: expected a whole number of at least {minimum}, found {value!r}"
        )


def whole_numbers(name: str, value: Any) -> None:
    """`value` must be a list of ints of at least 1."""
    if not isinstance(value, (list, tuple)):
        raise errors.InputError(f"{name}: expected a list of whole numbers, found {value!r}")
    for one in value:
        whole_number(name, one)


def number(name: str, value: Any, minimum: float = -math.inf) -> None:
    """`value` must be a finite int or float of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise errors.InputError(f"{name}: expected a number, found {value!r}")
    if value < minimum:
        raise errors.InputError(
            f"{name}: expected a number of at least {minimum:g}, found {value!r}"
        )


def between(name: str, value: Any, low: float, high: float) -> None:
    """`value` must be a number between two others, neither of them."""
    number(name, value)
    if not low < value < high:
        raise errors.InputError(
            f"{name}: expected a number between {low:g} and {high:g}, found {value!r}"
        )


def one_of(name: str, value: Any, known: Iterable[str]) -> None:
    """`value` must be one of some names."""
    known = tuple(known)
    if value not in known:
        raise errors.InputError(
            f"{name}: expected one of {', '.join(known)}, found {value!r}"
            + errors.nearest(str(value), known)
        )


def switch(name: str, value: Any) -> None:
    """`value` must be True or False."""
    if not isinstance(value, bool):
        raise errors.InputError(f"{name}: expected True or False, found {value!r}")


def path(name: str, value: Any) -> None:
    """`value` must be a text that can name a file or folder."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise errors.InputError(f"{name}: expected a path, found {value!r}")


def phrase(name: str, value: Any) -> None:
    """`value` must be a text with more than white space."""
    if not isinstance(value, str) or not value.strip():
        shown = "an empty text" if isinstance(value, str) else repr(value)
        raise errors.InputError(f"{name}: expected a phrase, found {shown}")


def phrases(name: str, value: Any, minimum: int = 1) -> tuple[str, ...]:
    """`value`, which must be a list of at least so many phrases, as a tuple."""
    if not isinstance(value, (list, tuple)) or len(value) < minimum:
        raise errors.InputError(f"{name}: expected a list of phrases, found {value!r}")
    for one in value:
        phrase(name, one)
    return tuple(value)
