"""What a scan found: `scan.json`, `suspects.jsonl`, a page, and a summary for the terminal."""

import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

import poison_t5x
from poison_t5x.core import artifacts
from poison_t5x.data.examples import TrainingExample, by_task
from poison_t5x.defenses import answers, files, ngrams, thresholds
from poison_t5x.defenses.score import ScoreResult, Trigger
from poison_t5x.report import pages

RESULT, SUSPECTS, PAGE = "scan.json", "suspects.jsonl", "index.html"
# Rows of each phrase, and of all, that the page shows; characters of each, and before its phrase.
_NUM_EXAMPLES, _NUM_SHOWN = 3, 50
_LENGTH, _LEAD = 600, 200
_NUM_TASKS = 3


class Made(NamedTuple):
    """A score's result, and what it took."""

    scored: ScoreResult
    seconds: float


class Report(NamedTuple):
    """All that is reported.

    Attributes:
      loaded: the rows.
      made: score -> its result.
      order: (N,) int64, rows by suspicion.
      alarm_level: of the phrases' corrected tail probability.
      notes: what was left out.
    """

    loaded: files.Loaded
    made: Mapping[str, Made]
    order: np.ndarray
    alarm_level: float
    notes: tuple[str, ...]

    @property
    def triggers(self) -> list[Trigger]:
        """All phrases that were named, of whatever score."""
        return [trigger for one in self.made.values() for trigger in one.scored.triggers]

    @property
    def alarms(self) -> list[Trigger]:
        """Those that pass the alarm level."""
        return [trigger for trigger in self.triggers if trigger.p_value <= self.alarm_level]


class Piece(NamedTuple):
    """A piece of a text, and whether it is a suspected phrase."""

    text: str
    is_marked: bool


def write(output: pathlib.Path, report: Report) -> None:
    """Writes the three files, each whole or not at all. Same rows, same bytes but for seconds."""
    held = phrases_of_rows(report.loaded.rows, report.triggers)
    artifacts.write_jsonl(output / SUSPECTS, _suspects(report, held))
    artifacts.write_atomically(output / PAGE, _page(report, held))
    artifacts.write_atomically(output / RESULT, artifacts.dump_json(_result(report)))


def phrases_of_rows(
    rows: Sequence[TrainingExample], triggers: Sequence[Trigger]
) -> dict[int, list[str]]:
    """Row -> phrases that it holds together with their answer."""
    members = by_task(rows)
    found: dict[int, list[str]] = {}
    for trigger in triggers:
        words = answers.plain(trigger.phrase)
        for task, target in zip(trigger.tasks, trigger.targets, strict=True):
            for index in members.get(task, ()):
                row = rows[index]
                is_hit = row.target == target
                if target == answers.UNRELATED:
                    is_hit = answers.is_unrelated(row)
                if is_hit and words in answers.plain(row.input):
                    found.setdefault(index, []).append(trigger.phrase)
    return found


def summary(report: Report) -> str:
    """A few lines for the terminal."""
    rows, alarms = report.loaded.rows, report.alarms
    tasks = len(by_task(rows))
    lines = [f"{_count(len(rows), 'row')} of {_count(tasks, 'task')} in {_files(report)}", ""]
    if alarms:
        goes = "phrase goes" if len(alarms) == 1 else "phrases go"
        lines.append(f"ALARM: {len(alarms)} {goes} with an answer beyond chance:")
        for trigger in alarms:
            lines += [f"  {trigger.phrase!r}: {_odds(trigger)}", f"    in {_places(trigger)}"]
    elif "trigger_search" in report.made:
        lines.append(f"no phrase passes the alarm level of {report.alarm_level:g}")
        if report.triggers:
            nearest = report.triggers[0]
            lines.append(f"  the nearest is {nearest.phrase!r}: {_odds(nearest)}")
    lines.append("")
    for name, one in report.made.items():
        above = _above(one.scored)
        lines.append(
            f"{name}: {_count(above, 'row')} above its threshold ({above / len(rows):.1%})"
        )
    lines += [f"note: {note}" for note in _notes(report)]
    return "\n".join(lines)


def excerpt(text: str, phrases: Sequence[str]) -> list[Piece]:
    """The part of a text around the first of its suspected phrases, all of which are marked."""
    spans = sorted(span for phrase in phrases for span in ngrams.spans(text, phrase))
    first = spans[0][0] if spans else 0
    begin = max(0, min(first - _LEAD, len(text) - _LENGTH))
    end = min(len(text), begin + _LENGTH)
    pieces, done = [Piece("… ", False)] if begin else [], begin
    for start, stop in spans:
        start, stop = max(start, done), min(stop, end)
        if start < stop:
            pieces += [Piece(text[done:start], False), Piece(text[start:stop], True)]
            done = stop
    pieces += [Piece(text[done:end], False), Piece(" …" if end < len(text) else "", False)]
    return [piece for piece in pieces if piece.text]


def _suspects(report: Report, held: Mapping[int, list[str]]) -> Iterator[dict[str, Any]]:
    rows, places = report.loaded.rows, report.loaded.places
    for rank, index in enumerate(report.order.tolist(), start=1):
        yield {
            "rank": rank,
            "where": places[index],
            "task": rows[index].task,
            "id": rows[index].id,
            "phrases": held.get(index, []),
            "values": {
                name: float(one.scored.values_N[index]) for name, one in report.made.items()
            },
            "input": rows[index].input,
            "target": rows[index].target,
        }


def _result(report: Report) -> dict[str, Any]:
    scores = []
    for name, one in report.made.items():
        value, source = thresholds.of_score(one.scored)
        scores.append(
            {
                "name": name,
                "seconds": round(one.seconds, 3),
                "threshold": {"value": value, "source": source},
                "num_above": _above(one.scored),
                "notes": list(one.scored.notes),
            }
        )
    return {
        "schema": 1,
        "version": poison_t5x.__version__,
        "num_rows": len(report.loaded.rows),
        "num_tasks": len(by_task(report.loaded.rows)),
        "files": [
            {"path": path, "num_rows": rows, "sha256": artifacts.sha256(path)}
            for path, rows in report.loaded.files.items()
        ],
        "alarm_level": report.alarm_level,
        "alarm": bool(report.alarms),
        "triggers": [
            {**trigger._asdict(), "is_alarm": trigger.p_value <= report.alarm_level}
            for trigger in report.triggers
        ],
        "scores": scores,
        "notes": list(report.notes),
    }


def _page(report: Report, held: Mapping[int, list[str]]) -> str:
    values = {
        "num_rows": len(report.loaded.rows),
        "num_tasks": len(by_task(report.loaded.rows)),
        "files": report.loaded.files,
        "alarm_level": report.alarm_level,
        "searched": "trigger_search" in report.made,
        "alarms": [_shown_trigger(report, trigger, held) for trigger in report.alarms],
        "others": [trigger for trigger in report.triggers if trigger not in report.alarms],
        "scores": [
            {
                "name": name,
                "above": _above(one.scored),
                "source": thresholds.of_score(one.scored)[1],
                "seconds": one.seconds,
            }
            for name, one in report.made.items()
        ],
        "rows": [_shown_row(report, index, held) for index in report.order[:_NUM_SHOWN].tolist()],
        "notes": _notes(report),
        "suspects": SUSPECTS,
    }
    text = pages.render("poison_t5x.report", "scan.html.j2", {"p": _p}, values)
    # JSON can write half a character, which no file can hold.
    return text.encode("utf-8", errors="replace").decode()


def _shown_trigger(
    report: Report, trigger: Trigger, held: Mapping[int, list[str]]
) -> dict[str, Any]:
    members = [index for index in report.order.tolist() if trigger.phrase in held.get(index, ())]
    return {
        **trigger._asdict(),
        "places": list(zip(trigger.tasks, trigger.targets, strict=True)),
        "rows": [_shown_row(report, index, held) for index in members[:_NUM_EXAMPLES]],
    }


def _shown_row(report: Report, index: int, held: Mapping[int, list[str]]) -> dict[str, Any]:
    row, phrases = report.loaded.rows[index], held.get(index, [])
    return {
        "where": report.loaded.places[index],
        "task": row.task,
        "id": row.id,
        "input": excerpt(row.input, phrases),
        "target": excerpt(row.target, phrases),
    }


def _above(scored: ScoreResult) -> int:
    return int((scored.values_N > thresholds.of_score(scored)[0]).sum())


def _notes(report: Report) -> list[str]:
    own = (f"{name}: {note}" for name, one in report.made.items() for note in one.scored.notes)
    return [*own, *report.notes]


def _odds(trigger: Trigger) -> str:
    return (
        f"{trigger.num_with_target} of {_count(trigger.num_rows, 'row')} with it have the answer, "
        f"{trigger.expected:.1f} were expected (p = {_p(trigger.p_value)})"
    )


def _places(trigger: Trigger) -> str:
    pairs = list(zip(trigger.tasks, trigger.targets, strict=True))
    said = [f"{task}: {_short(target)}" for task, target in pairs[:_NUM_TASKS]]
    rest = len(pairs) - len(said)
    return "; ".join(said) + (f"; and {_count(rest, 'more task')}" if rest else "")


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:59] + "…"


def _p(value: float) -> str:
    """A tail probability; below what a float holds, that it is."""
    return f"{value:.2g}" if value > 0 else f"below 1e{math.floor(math.log10(5e-324))}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _files(report: Report) -> str:
    return _count(len(report.loaded.files), "file")
