"""A scan's page, and its summary for the terminal, from plain records."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from poison_t5x.report import examples, render, tables

_ANSWER_SHOWN = 60


class SuspectRow(NamedTuple):
    """A row to show: segments of its texts, in which suspected phrases are marked."""

    where: str
    task: str
    id: str
    input: Sequence[examples.Segment]
    target: Sequence[examples.Segment]


class SuspectPhrase(NamedTuple):
    """A phrase that goes with an answer in `places`, (task, answer) pairs; `rows` are examples.

    The p-value is corrected for all phrases looked at.
    """

    phrase: str
    places: Sequence[tuple[str, str]]
    num_rows: int
    num_with_target: int
    expected: float
    z: float
    p_value: float
    rows: Sequence[SuspectRow] = ()


class ScoreUse(NamedTuple):
    """A score, the rows above its threshold, and where that is from."""

    name: str
    num_above: int
    source: str
    seconds: float


class Scan(NamedTuple):
    """All that is told of a scan of `files`, path -> rows in it, the most suspicious first.

    `alarms` are the phrases whose p-value passes the level, if phrases were `searched` for at all;
    `suspects` is the name of the file with all rows.
    """

    num_rows: int
    num_tasks: int
    files: Mapping[str, int]
    alarm_level: float
    searched: bool
    alarms: Sequence[SuspectPhrase]
    others: Sequence[SuspectPhrase]
    scores: Sequence[ScoreUse]
    rows: Sequence[SuspectRow]
    notes: Sequence[str]
    suspects: str


def write_page(path: pathlib.Path, scan: Scan) -> None:
    """Writes the page; the same records give the same bytes."""
    context = {"scan": scan, "tail": tail_probability, "short": _short}
    render.write_page(path, "scan.html.j2", context)


def summary(scan: Scan) -> str:
    """A few lines for the terminal."""
    return render.text("scan.txt.j2", scan=scan, tail=tail_probability, short=_short)


def tail_probability(value: float) -> str:
    """A tail probability; of one below what a float holds, that it is.

    >>> tail_probability(0.0)
    'below 1e-324'
    """
    return f"{value:.2g}" if value > 0 else f"below 1e{math.floor(math.log10(5e-324))}"


def _short(text: str) -> str:
    return tables.shown(" ".join(text.split()), _ANSWER_SHOWN)
