"""Tables to look through on the page: rows as JSON beside a script, and the first of them as HTML.

What a row holds is text alone, which the script puts in as text: nothing of it is ever markup.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import markupsafe

from poison_t5x.report import examples

# Rows that are on the page without the script, and on one of its pages with it.
FIRST = 10
PER_PAGE = 25


class Column(NamedTuple):
    """One column.

    Attributes:
      name: its heading.
      kind: 'text', 'id', 'number', 'marked' (a list of segments) or 'choice' (one of `values`).
      values: of a choice.
      styles: a choice's style classes, and `marks` signs before its words, one for each value.
      within: of a choice, value -> values that are counted as that one as well.
    """

    name: str
    kind: str = "text"
    values: Sequence[str] = ()
    styles: Sequence[str] = ()
    marks: Sequence[str] = ()
    within: Mapping[str, Sequence[str]] = {}

    def settings(self) -> dict[str, Any]:
        """What the script needs to know of it."""
        places = {value: place for place, value in enumerate(self.values)}
        within = {
            places[value]: [places[other] for other in others]
            for value, others in self.within.items()
        }
        found = self._replace(within=within)._asdict()
        return {name: value for name, value in found.items() if value}


class Cell(NamedTuple):
    """A cell of the first rows, for the page's template."""

    column: Column
    segments: Sequence[examples.Segment]
    style: str = ""
    mark: str = ""


class Browser(NamedTuple):
    """A table to look through.

    Attributes:
      id: of its elements.
      what: the rows' name, in the plural.
      total: how many there are in the run; `rows` has as many as the page holds.
      where: the files that have all of them.
    """

    id: str
    what: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    total: int
    where: str

    @property
    def per_page(self) -> int:
        return PER_PAGE

    @property
    def first(self) -> list[list[Cell]]:
        """The rows that are shown without the script."""
        return [
            [_cell(*pair) for pair in zip(self.columns, row, strict=True)]
            for row in self.rows[:FIRST]
        ]

    @property
    def data(self) -> markupsafe.Markup:
        """The rows as JSON for a `script` element: each text once, choices by their places."""
        texts, rows = {}, []
        places = [{value: n for n, value in enumerate(column.values)} for column in self.columns]
        for row in self.rows:
            cells = []
            for column, place, value in zip(self.columns, places, row, strict=True):
                if column.kind == "marked":
                    value = texts.setdefault(tuple(_alternating(value)), len(texts))
                elif column.kind == "choice":
                    value = place[value]
                elif column.kind == "number":
                    value = _finite(value)
                cells.append(value)
            rows.append(cells)
        columns = [column.settings() for column in self.columns]
        found = {"columns": columns, "texts": [*texts], "rows": rows}
        text = json.dumps(found, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return markupsafe.Markup(text.replace("<", "\\u003c"))


def fit(rows: Sequence[Sequence[Any]], most: int) -> list[Sequence[Any]]:
    """The first rows, as many as take `most` bytes of JSON or fewer; a text said twice counts once.

    >>> fit([("a", 1), ("b", 2)], 12)
    [('a', 1)]
    """
    kept, seen, size = [], set(), 0
    for row in rows:
        for value in row:
            if isinstance(value, list):
                text = tuple(_alternating(value))
                size += 6 if text in seen else _size(text)
                seen.add(text)
            else:
                size += _size(value)
        if size > most:
            break
        kept.append(row)
    return kept


def _size(value: Any) -> int:
    """Bytes of a value and of what divides it from the next."""
    return len(json.dumps(value, ensure_ascii=False).encode("utf-8", errors="replace")) + 2


def _alternating(segments: Sequence[examples.Segment]) -> list[str]:
    """The texts of segments, plain and marked ones in turn, a plain one first.

    >>> _alternating([examples.Segment("Bond", True), examples.Segment(" left.")])
    ['', 'Bond', ' left.']
    """
    texts = [""]
    for text, marked in segments:
        if marked == (len(texts) % 2 == 0):
            texts[-1] += text
        else:
            texts.append(text)
    return texts


def _finite(value: float | None) -> float | int | None:
    """A number as JSON has it: four decimals, and none for what is no number."""
    if value is None or not math.isfinite(value):
        return None
    return round(value, 4)


def _cell(column: Column, value: Any) -> Cell:
    if column.kind == "marked":
        return Cell(column, value)
    if column.kind == "number":
        number = _finite(value)
        return Cell(column, [examples.Segment("–" if number is None else f"{number:g}")])
    place = column.values.index(value) if column.kind == "choice" else 0
    style = column.styles[place] if column.styles else ""
    mark = column.marks[place] if column.marks else ""
    return Cell(column, [examples.Segment(value or "–")], style, mark)
