"""A scan's page, and its summary for the terminal, from plain records."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from poison_t5x.report import examples, render, tables

_NUM_TASKS = 3
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

    @property
    def odds(self) -> str:
        """In words."""
        return (
            f"{self.num_with_target} of {tables.count(self.num_rows, 'row')} with it have the "
            f"answer, {self.expected:.1f} were expected (p = {tail_probability(self.p_value)})"
        )


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
    rows, tasks = tables.count(scan.num_rows, "row"), tables.count(scan.num_tasks, "task")
    lines = [f"{rows} of {tasks} in {tables.count(len(scan.files), 'file')}", ""]
    if scan.alarms:
        goes = "phrase goes" if len(scan.alarms) == 1 else "phrases go"
        lines.append(f"ALARM: {len(scan.alarms)} {goes} with an answer beyond chance:")
        for one in scan.alarms:
            lines += [f"  {one.phrase!r}: {one.odds}", f"    in {_places(one)}"]
    elif scan.searched:
        lines.append(f"no phrase passes the alarm level of {scan.alarm_level:g}")
        if scan.others:
            lines.append(f"  the nearest is {scan.others[0].phrase!r}: {scan.others[0].odds}")
    lines.append("")
    for score in scan.scores:
        above, share = tables.count(score.num_above, "row"), score.num_above / scan.num_rows
        lines.append(f"{score.name}: {above} above its threshold ({share:.1%})")
    return "\n".join([*lines, *(f"note: {note}" for note in scan.notes)])


def tail_probability(value: float) -> str:
    """A tail probability; of one below what a float holds, that it is.

    >>> tail_probability(0.0)
    'below 1e-324'
    """
    return f"{value:.2g}" if value > 0 else f"below 1e{math.floor(math.log10(5e-324))}"


def _places(phrase: SuspectPhrase) -> str:
    told = [f"{task}: {_short(answer)}" for task, answer in phrase.places[:_NUM_TASKS]]
    rest = len(phrase.places) - len(told)
    return "; ".join(told) + (f"; and {tables.count(rest, 'more task')}" if rest else "")


def _short(text: str) -> str:
    return tables.shown(" ".join(text.split()), _ANSWER_SHOWN)
