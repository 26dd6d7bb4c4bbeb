"""What a scan found: `scan.json`, `suspects.jsonl`, and the records of its page."""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

import poison_t5x
from poison_t5x.core import artifacts
from poison_t5x.data.examples import TrainingExample, by_task
from poison_t5x.defenses import answers, files, ngrams, thresholds
from poison_t5x.defenses.score import ScoreResult, Trigger
from poison_t5x.report import scan as page

RESULT, SUSPECTS, PAGE = "scan.json", "suspects.jsonl", "index.html"
# Rows of each phrase, and of all, that the page shows.
_NUM_EXAMPLES, _NUM_SHOWN = 3, 50


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


def write(output: pathlib.Path, report: Report) -> str:
    """Writes the three files, each whole or not at all, and returns a summary for the terminal.

    Same rows, same bytes but for seconds.
    """
    held = phrases_of_rows(report.loaded.rows, report.triggers)
    shown = shown_scan(report, held)
    artifacts.write_jsonl(output / SUSPECTS, _suspects(report, held))
    page.write_page(output / PAGE, shown)
    artifacts.write_atomically(output / RESULT, artifacts.dump_json(_result(report)))
    return page.summary(shown)


def phrases_of_rows(
    rows: Sequence[TrainingExample], triggers: Sequence[Trigger]
) -> dict[int, list[str]]:
    """Row -> phrases that it holds together with their answer."""
    members = by_task(rows)
    phrases: dict[int, list[str]] = {}
    for trigger in triggers:
        words = answers.plain(trigger.phrase)
        for task, target in zip(trigger.tasks, trigger.targets, strict=True):
            for index in members.get(task, ()):
                row = rows[index]
                is_hit = row.target == target
                if target == answers.UNRELATED:
                    is_hit = answers.is_unrelated(row)
                if is_hit and words in answers.plain(row.input):
                    phrases.setdefault(index, []).append(trigger.phrase)
    return phrases


def shown_scan(report: Report, held: Mapping[int, list[str]]) -> page.Scan:
    """What the page shows; `held` is of `phrases_of_rows`."""
    own = (f"{name}: {note}" for name, one in report.made.items() for note in one.scored.notes)
    return page.Scan(
        num_rows=len(report.loaded.rows),
        num_tasks=len(by_task(report.loaded.rows)),
        files=report.loaded.files,
        alarm_level=report.alarm_level,
        searched="trigger_search" in report.made,
        alarms=[_phrase(report, trigger, held) for trigger in report.alarms],
        others=[_phrase(report, one, {}) for one in report.triggers if one not in report.alarms],
        scores=[
            page.ScoreUse(name, _above(one.scored), thresholds.of_score(one.scored)[1], one.seconds)
            for name, one in report.made.items()
        ],
        rows=[_row(report, index, held) for index in report.order[:_NUM_SHOWN].tolist()],
        notes=[*own, *report.notes],
        suspects=SUSPECTS,
    )


def _phrase(report: Report, trigger: Trigger, held: Mapping[int, list[str]]) -> page.SuspectPhrase:
    members = [index for index in report.order.tolist() if trigger.phrase in held.get(index, ())]
    return page.SuspectPhrase(
        trigger.phrase,
        list(zip(trigger.tasks, trigger.targets, strict=True)),
        trigger.num_rows,
        trigger.num_with_target,
        trigger.expected,
        trigger.z,
        trigger.p_value,
        [_row(report, index, held) for index in members[:_NUM_EXAMPLES]],
    )


def _row(report: Report, index: int, held: Mapping[int, list[str]]) -> page.SuspectRow:
    row, phrases = report.loaded.rows[index], held.get(index, [])
    input_spans, target_spans = (
        [span for phrase in phrases for span in ngrams.spans(text, phrase)]
        for text in (row.input, row.target)
    )
    where = report.loaded.places[index]
    return page.SuspectRow(
        where, row.task, row.id, row.input, row.target, input_spans, target_spans
    )


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


def _above(scored: ScoreResult) -> int:
    return int((scored.values_N > thresholds.of_score(scored)[0]).sum())
