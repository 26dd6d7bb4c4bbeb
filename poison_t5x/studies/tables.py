"""study.json, study.csv, summary.csv and timings.json."""

import csv
import io
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from poison_t5x.core import artifacts
from poison_t5x.studies import aggregate, charts, rows, runner, settings

SCHEMA = 1


def write(
    directory: pathlib.Path,
    config: settings.StudyConfig,
    found: Sequence[rows.Row],
    points: Sequence[aggregate.Point],
    sentences: Sequence[str],
    outcomes: Mapping[str, runner.Outcome],
) -> None:
    """Writes the four files.

    study.json has no times in it: the same cells give the same bytes, in whatever order they ran.
    Those are in timings.json, and in a column of study.csv.

    Args:
      outcomes: cell -> how it ended.
    """
    whole = {
        "schema": SCHEMA,
        "question": config.question,
        "command": config.command,
        "x": list(config.x),
        "lines": list(config.lines),
        "measures": list(config.measures),
        "finding": list(sentences),
        "cells": [_row(row) for row in found],
        "summary": [_point(point) for point in points],
        "failed": [
            {"cell": row.cell, "error": row.error} for row in found if row.status == "failed"
        ],
    }
    artifacts.write_atomically(directory / "study.json", artifacts.dump_json(whole))
    artifacts.write_atomically(directory / "study.csv", _rows_csv(found, outcomes))
    artifacts.write_atomically(directory / "summary.csv", _summary_csv(points, config))
    times = {
        name: {"seconds": round(outcome.seconds, 1), "peak_bytes": outcome.peak_bytes}
        for name, outcome in sorted(outcomes.items())
    }
    artifacts.write_atomically(directory / "timings.json", artifacts.dump_json(times))


def _row(row: rows.Row) -> dict[str, Any]:
    return {
        "cell": row.cell,
        "macros": {name: plain(value) for name, value in row.macros.items()},
        "score": row.score,
        "checkpoint": row.checkpoint,
        "status": row.status,
        "error": row.error,
        "measure": row.measure,
        "values": row.measured.values,
        "ci95": {name: list(bounds) for name, bounds in row.measured.intervals.items()},
    }


def _point(point: aggregate.Point) -> dict[str, Any]:
    estimates = {name: point.estimate(name) for name in point.measures()}
    return {
        "macros": {name: plain(value) for name, value in point.macros.items()},
        "score": point.score,
        "checkpoint": point.checkpoint,
        "seeds": [plain(seed) for seed in point.seeds],
        "values": {
            name: {
                "mean": found.mean,
                "ci95": list(found.interval) if found.interval else None,
                "over": found.over,
                "seeds": found.count,
            }
            for name, found in estimates.items()
            if found is not None
        },
    }


def plain(value: Any) -> Any:
    """A macro's value as JSON has it; what JSON hasn't, as gin would write it."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return value if value is None or isinstance(value, (str, int, float)) else repr(value)


def _names(groups: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(name for group in groups for name in group))


def _rows_csv(found: Sequence[rows.Row], outcomes: Mapping[str, runner.Outcome]) -> str:
    macros = _names(row.macros for row in found)
    values = _names(row.measured.values for row in found)
    bounded = set(_names(row.measured.intervals for row in found))
    columns = [
        column
        for name in values
        for column in ([name, f"{name}_low", f"{name}_high"] if name in bounded else [name])
    ]
    text = io.StringIO()
    fields = ["cell", "status", "error", "seconds", *macros, "score", "checkpoint", "measure"]
    writer = csv.DictWriter(text, [*fields, *columns], lineterminator="\n")
    writer.writeheader()
    for row in found:
        outcome = outcomes.get(row.cell)
        low_high = {
            f"{name}_{end}": bound
            for name, bounds in row.measured.intervals.items()
            for end, bound in zip(("low", "high"), bounds, strict=True)
        }
        writer.writerow(
            {
                "cell": row.cell,
                "status": row.status,
                "error": row.error,
                "seconds": round(outcome.seconds, 1) if outcome else None,
                **row.macros,
                "score": row.score,
                "checkpoint": row.checkpoint,
                "measure": row.measure,
                **row.measured.values,
                **low_high,
            }
        )
    return text.getvalue()


def _summary_csv(points: Sequence[aggregate.Point], config: settings.StudyConfig) -> str:
    names = charts.varying(points, config.base)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, "measure", "mean", "low", "high", "interval_over", "seeds"])
    for point in points:
        where = [point.place(name, config.base) for name in names]
        for name in point.measures():
            found = point.estimate(name)
            if found is not None:
                low, high = found.interval or (None, None)
                writer.writerow([*where, name, found.mean, low, high, found.over, found.count])
    return text.getvalue()
