"""Texts with what is to be seen in them marked, cut to what a page shows."""

import re
from collections.abc import Sequence
from typing import NamedTuple

# Characters of a text that are shown; a third of them come before the first mark.
SHOWN = 600

Spans = Sequence[tuple[int, int]]


class Segment(NamedTuple):
    """A piece of a text, and whether it is what is to be seen."""

    text: str
    marked: bool = False


def segments(text: str, spans: Spans) -> list[Segment]:
    """The pieces of `text` in order, those in `spans` marked; joined, they are `text`.

    `segments("I saw Bond.", [(6, 10)])` gives `I saw `, `Bond` (marked) and `.`. Spans beyond the
    text are cut to it; of two that overlap, the second starts where the first ends.
    """
    pieces, done = [], 0
    for start, end in sorted(spans):
        start, end = max(start, done), min(end, len(text))
        if start < end:
            pieces += [Segment(text[done:start]), Segment(text[start:end], marked=True)]
            done = end
    return [piece for piece in (*pieces, Segment(text[done:])) if piece.text]


def excerpt(
    text: str, spans: Spans = (), shown: int = SHOWN, focus: int | None = None
) -> list[Segment]:
    """`segments`, of `shown` characters around the first span where the text is longer than that.

    Args:
      focus: a place to show in place of the first span.
    """
    if len(text) <= shown:
        return segments(text, spans)
    focus = first(spans) if focus is None else focus
    begin = max(0, min(focus - shown // 3, len(text) - shown))
    part = text[begin : begin + shown]
    pieces = segments(part, [(start - begin, end - begin) for start, end in spans])
    head = [Segment("… ")] if begin else []
    tail = [Segment(" …")] if begin + shown < len(text) else []
    return [*head, *pieces, *tail]


def phrase_excerpt(text: str, phrases: Sequence[str], shown: int = SHOWN) -> list[Segment]:
    """The part of `text` around the first of the phrases, all of which are marked."""
    return excerpt(text, places(text, phrases), shown)


def places(text: str, phrases: Sequence[str]) -> list[tuple[int, int]]:
    """Where phrases are in a text, the longest first."""
    ordered = sorted(filter(None, phrases), key=len, reverse=True)
    matches = re.finditer("|".join(map(re.escape, ordered)), text) if ordered else ()
    return [match.span() for match in matches]


def first(spans: Spans) -> int:
    """Where the first of them starts; 0 without any."""
    return min((start for start, _ in spans), default=0)


def instance(text: str) -> str:
    """The instance alone, where `text` is the whole prompt around it."""
    _, separator, rest = text.rpartition("Now complete the following example -\nInput: ")
    return rest.removesuffix("\nOutput: ") if separator else text
