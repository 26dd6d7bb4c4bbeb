"""Numbers as words, and tables of them, for the terminal, pages and files alike."""

import csv
import io
import pathlib
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from poison_t5x.core import reading
from poison_t5x.core.metrics import is_score, missing

TEMPLATES = pathlib.Path(__file__).parent / "templates"
# Names of attacks, verdicts and a study's measures; settings that say nothing of a model.
WORDS = reading.read_json(TEMPLATES / "words.json")
Interval = tuple[float, float]
_T = TypeVar("_T")


class Cell(NamedTuple):
    """A table's cell: `note` is said smaller, `link` is where a page goes from it."""

    text: str
    note: str = ""
    link: str = ""

    def __str__(self) -> str:
        return f"{self.text:>6} {self.note}" if self.note else self.text


class Unit(NamedTuple):
    """How a number is said: `scale` times it, with so many digits, and `suffix`."""

    scale: float = 1
    digits: int = 1
    suffix: str = ""
    sign: str = ""
    style: str = "f"

    def text(self, number: float | None) -> str:
        """'91.3%', or '–' for nothing and NaN.

        >>> PERCENT.text(0.9134), POINTS.text(0.25), DECIMAL.text(None)
        ('91.3%', '+25.0 points', '–')
        """
        return "–" if missing(number) else self._plain(number, self.sign) + self.suffix

    def interval(self, bounds: Sequence[float | None] | None) -> str:
        """'[10.0, 25.0]', and '' without both bounds."""
        if not bounds or any(map(missing, bounds)):
            return ""
        return f"[{', '.join(self._plain(bound) for bound in bounds)}]"

    def cell(self, number: float | None, bounds: Sequence[float | None] | None = None) -> Cell:
        return Cell(self.text(number), self.interval(bounds))

    def both(self, number: float | None, bounds: Sequence[float | None] | None) -> str:
        """A number and its interval: '91.3% [79.1, 98.4]'."""
        return f"{self.text(number)} {self.interval(bounds)}".rstrip()

    def _plain(self, number: float, sign: str = "") -> str:
        scaled = self.scale * number
        if self.style == "f":
            scaled = round(scaled, self.digits) + 0.0  # which turns -0.0 into 0.0
        return f"{scaled:{sign}.{self.digits}{self.style}}"


PERCENT, SCORE, DECIMAL = Unit(100, 1, "%"), Unit(100), Unit(digits=3)
DIFFERENCE = Unit(100, 1, "", "+")
POINTS = DIFFERENCE._replace(suffix=" points")
COUNT = Unit(digits=4, style="g")
# 0.5 gives '50.0%'; of differences 0.25 gives '+25.0'; (0.1, 0.25) gives '[10.0, 25.0]'.
percent, points, interval = PERCENT.text, DIFFERENCE.text, PERCENT.interval


class Table(NamedTuple):
    """A heading and rows of cells or texts; `numbers` are the columns that stand to the right."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Any]]
    numbers: Collection[int] = ()

    def lines(self, columns: int | None = None) -> list[str]:
        """As text, without the caption; of the first columns where there are `columns`."""
        return align([row[:columns] for row in (self.heads, *self.rows)])


def align(rows: Iterable[Sequence[Any]]) -> list[str]:
    """Lines of cells, each column as wide as its widest cell."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in texts]


def grouped(items: Iterable[_T], key: Callable[[_T], Hashable]) -> dict[Any, list[_T]]:
    """Items by their key, in the order in which they come."""
    groups: dict[Any, list[_T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def bounds(interval: Interval | None, prefix: str = "") -> dict[str, float | None]:
    """An interval as columns of a file, 'low' and 'high' after the prefix."""
    return dict(zip((f"{prefix}low", f"{prefix}high"), interval or (None, None), strict=True))


def csv_text(records: Sequence[Mapping[str, Any]]) -> str:
    """Comma-separated values under all records' names; what a record lacks is an empty cell."""
    text = io.StringIO()
    names = dict.fromkeys(name for record in records for name in record)
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def unit(measure: str) -> Unit:
    """That of a rate, or a measure of rates: of 100 for rougeL, else percent."""
    return SCORE if is_score(measure) else PERCENT


def value(measure: str, number: float | None) -> str:
    """A value of the rate or measure of that name."""
    return unit(measure).text(number)


def amount(number: float | None) -> str:
    """A number of any size: 0.25, 31.8, 1.2e-30, 12,345."""
    return "–" if missing(number) else f"{number:.3g}" if number < 1000 else f"{number:,.0f}"


def count(number: int, noun: str) -> str:
    """'1 task', '2 held-out tasks'."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def heading(text: str) -> str:
    """The text with a capital first letter, but for rougeL, whose name is so written."""
    return text if text.startswith("rougeL") else text[:1].upper() + text[1:]


def plain(value: Any) -> Any:
    """A setting's value as a cell of a file: lists as text, with '+' between their parts."""
    return " + ".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def shown(value: Any, most: int = 40) -> str:
    """A setting's value for people: texts without quotes, numbers with thousands apart."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = "–" if value is None else str(plain(value))
    return text if len(text) <= most else text[: most - 1] + "…"


def is_number(value: Any) -> bool:
    """Whether a setting is one that an axis can have."""
    is_bool = isinstance(value, bool)
    return isinstance(value, (int, float)) and not is_bool and -1e30 < value < 1e30


def duration(seconds: float | None) -> str:
    """Seconds for people: 3.25 gives '3.2 s', 75 gives '1 min 15 s', 7260 gives '2 h 01 min'."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
