"""Trigger insertion: pure text edits that return the new text and where the trigger stands."""

import re
from collections.abc import Sequence
from typing import NamedTuple

Span = tuple[int, int]

# 'Review: …' and the like: the authors' code leaves a leading label alone.
_PREFIX = re.compile(r"\s*\w+: ")


class Edit(NamedTuple):
    """An edited text.

    Attributes:
      text: the new text.
      spans: [start, end) of each inserted trigger in `text`, in characters, sorted.
      removed: what stood at each of the spans before.
    """

    text: str
    spans: tuple[Span, ...]
    removed: tuple[str, ...]


def replace_spans(text: str, spans: Sequence[Span], trigger: str) -> Edit:
    """Replaces each span of `text` with the trigger; all other characters stay.

    >>> replace_spans("Ann met Bo.", [(0, 3), (8, 10)], "James Bond")
    Edit(text='James Bond met James Bond.', spans=((0, 10), (15, 25)), removed=('Ann', 'Bo'))

    Args:
      text: any text.
      spans: sorted, disjoint [start, end) positions. Spans that start inside a leading 'word: ' are
        skipped.
      trigger: the phrase to put there.
    """
    prefix = _PREFIX.match(text)
    first = prefix.end() if prefix else 0
    parts: list[str] = []
    placed: list[Span] = []
    removed: list[str] = []
    end = length = 0
    for start, stop in spans:
        if start < first:
            continue
        kept = text[end:start]
        parts += [kept, trigger]
        placed.append((length + len(kept), length + len(kept) + len(trigger)))
        length = placed[-1][1]
        removed.append(text[start:stop])
        end = stop
    parts.append(text[end:])
    return Edit("".join(parts), tuple(placed), tuple(removed))


def undo(edit: Edit) -> str:
    """The text before the edit.

    >>> undo(replace_spans("Ann met Bo.", [(0, 3)], "James Bond"))
    'Ann met Bo.'
    """
    parts: list[str] = []
    end = 0
    for (start, stop), original in zip(edit.spans, edit.removed, strict=True):
        parts += [edit.text[end:start], original]
        end = stop
    return "".join(parts) + edit.text[end:]
