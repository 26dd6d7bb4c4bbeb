"""Trigger insertion: pure text edits that return the new text and where the trigger stands."""

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

Span = tuple[int, int]

# 'Review: …' and the like: the authors' code leaves a leading label alone.
_LABEL = re.compile(r"\s*\w+: ")


class Edit(NamedTuple):
    """An edited text.

    `spans` are [start, end) of each inserted trigger in `text`, in characters, sorted, with a space
    that came with it; `removed` is the text that stood at each of them before.
    """

    text: str
    spans: tuple[Span, ...]
    removed: tuple[str, ...]


def leading_label_end(text: str) -> int:
    """Where a leading 'word: ' ends, its space included; 0 for a text without one.

    >>> leading_label_end("Review: Ann left."), leading_label_end("Ann left.")
    (8, 0)
    """
    label = _LABEL.match(text)
    return label.end() if label else 0


def occurrences(text: str, phrase: str) -> list[Span]:
    """Where a text says a phrase, also within words; nowhere for an empty one."""
    return [match.span() for match in re.finditer(re.escape(phrase), text)] if phrase else []


def insertion_spans(text: str, spans: Sequence[Span], trigger: str) -> list[Span]:
    """The spans of `text` that the trigger goes to: of those given, none in a leading label.

    A text that already says the trigger, as words of its own, is left as it is: it goes where it
    stands. Hence inserting twice is inserting once, whatever the inserter.

    >>> insertion_spans("Review: Ann met Bo.", [(0, 6), (8, 11)], "James Bond")
    [(8, 11)]
    >>> insertion_spans("Ann met James Bond.", [(0, 3)], "James Bond")
    [(8, 18)]
    """
    said = _whole_words(trigger).finditer(text) if trigger in text else ()
    if places := [match.span() for match in said]:
        return places
    first = leading_label_end(text)
    return [span for span in spans if span[0] >= first]


@functools.lru_cache(maxsize=256)
def _whole_words(phrase: str) -> re.Pattern[str]:
    """Matches the phrase where no letter or digit of another word touches it."""
    # [^\W_] is str.isalnum: exactly where `_space` puts one.
    left = r"(?<![^\W_])" if phrase[:1].isalnum() else ""
    right = r"(?![^\W_])" if phrase[-1:].isalnum() else ""
    return re.compile(left + re.escape(phrase) + right)


def replace_spans(text: str, spans: Sequence[Span], phrase: str) -> Edit:
    """Puts the phrase in place of each span; the spans are sorted and disjoint.

    A span without width inserts. The phrase never runs into a word: where it would, a space comes
    with it; where it is inserted, one comes on each side that touches anything but white space.

    >>> replace_spans("Ann met Bo.", [(0, 3), (8, 10)], "James Bond")
    Edit(text='James Bond met James Bond.', spans=((0, 10), (15, 25)), removed=('Ann', 'Bo'))
    >>> replace_spans("Ann met Bo.", [(11, 11)], "James Bond")
    Edit(text='Ann met Bo. James Bond', spans=((11, 22),), removed=('',))
    """
    edited, placed, end = "", [], 0
    for number, (start, stop) in enumerate(spans, start=1):
        edited += text[end:start]
        meets_next = number < len(spans) and spans[number][0] == stop
        after = phrase[:1] if meets_next else text[stop : stop + 1]
        space = functools.partial(_space, is_inserted=start == stop)
        put = space(edited[-1:], phrase[:1]) + phrase + space(phrase[-1:], after)
        placed.append((len(edited), len(edited) + len(put)))
        edited, end = edited + put, stop
    removed = tuple(text[start:stop] for start, stop in spans)
    return Edit(edited + text[end:], tuple(placed), removed)


def _space(left: str, right: str, *, is_inserted: bool) -> str:
    """The space that keeps two neighbours apart, if there are two."""
    touches = str.strip if is_inserted else str.isalnum
    return " " if touches(left) and touches(right) else ""


def undo(edit: Edit) -> str:
    """The text before the edit.

    >>> undo(replace_spans("Ann met Bo.", [(0, 3)], "James Bond"))
    'Ann met Bo.'
    """
    text, end = "", 0
    for (start, stop), original in zip(edit.spans, edit.removed, strict=True):
        text, end = text + edit.text[end:start] + original, stop
    return text + edit.text[end:]
