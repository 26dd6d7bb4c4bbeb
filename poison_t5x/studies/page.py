"""A study's page: one self-contained file."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from poison_t5x.core import artifacts
from poison_t5x.report import pages
from poison_t5x.studies import aggregate, charts, figures, rows, runner, settings, words

_USUAL = ("clean", "poisoned", "control", "effect", "accuracy")


def write(
    directory: pathlib.Path,
    config: settings.StudyConfig,
    found: Sequence[rows.Row],
    points: Sequence[aggregate.Point],
    drawn: Sequence[charts.Chart],
    sentences: Sequence[str],
    outcomes: Mapping[str, runner.Outcome],
    command: str,
) -> pathlib.Path:
    """Draws the figures, writes index.html, and returns its path.

    Args:
      outcomes: cell -> how it ended.
      command: what was typed.
    """
    import markupsafe

    pictures = [
        {
            "svg": markupsafe.Markup(figures.write(directory / "figures", chart)),
            "label": figures.label(chart),
            "name": chart.name,
            "caption": f"{words.measure(chart.measure)} by {chart.x}",
            "over": _over(chart),
        }
        for chart in drawn
    ]
    values = {
        "title": directory.resolve().name,
        "question": config.question,
        "sentences": sentences,
        "pictures": pictures,
        "summary": _summary(config, points),
        "cells": _cells(directory, config, found, outcomes),
        "failed": [row for row in found if row.status == "failed"],
        "command": command,
    }
    text = pages.render("study.html.j2", {"measure": words.measure}, values)
    artifacts.write_atomically(directory / "index.html", text)
    return directory / "index.html"


def _over(chart: charts.Chart) -> str:
    """What a figure's intervals are over."""
    estimates = [found for series in chart.series for found in series.estimates]
    return "; ".join(dict.fromkeys(found.over for found in estimates if found.over))


def _shown(config: settings.StudyConfig, points: Sequence[aggregate.Point]) -> list[str]:
    """Measures of the table: the study's own, and the usual ones that there are."""
    there = {name for point in points for name in point.measures()}
    return [name for name in dict.fromkeys([*config.measures, *_USUAL]) if name in there]


def _summary(config: settings.StudyConfig, points: Sequence[aggregate.Point]) -> dict[str, Any]:
    names = charts.varying(points, config.base)
    measures = _shown(config, points)
    lines = []
    for point in points:
        estimates = {name: point.estimate(name) for name in measures}
        if not any(estimates.values()):
            continue
        overs = dict.fromkeys(found.over for found in estimates.values() if found and found.over)
        lines.append(
            {
                "places": [_place(point.place(name, config.base)) for name in names],
                "values": [words.estimate(name, estimates[name]) for name in measures],
                "seeds": ", ".join(str(seed) for seed in point.seeds if seed is not None),
                "over": "; ".join(overs),
            }
        )
    return {"names": names, "measures": measures, "lines": lines}


def _place(value: Any) -> str:
    return "" if value is None else words.place("", value)


def _cells(
    directory: pathlib.Path,
    config: settings.StudyConfig,
    found: Sequence[rows.Row],
    outcomes: Mapping[str, runner.Outcome],
) -> list[dict[str, Any]]:
    lines = []
    for row in found:
        if row.score is not None or row.checkpoint is not None:
            continue
        outcome = outcomes.get(row.cell)
        report = pathlib.Path("cells") / row.cell / "report" / "index.html"
        effect = row.value("effect")
        lines.append(
            {
                "name": row.cell,
                "link": report.as_posix() if (directory / report).is_file() else None,
                "status": row.status,
                "effect": words.value("effect", effect),
                "seconds": f"{outcome.seconds:.0f} s" if outcome and outcome.seconds else "–",
                "peak": f"{outcome.peak_bytes / 1e9:.1f} GB"
                if outcome and outcome.peak_bytes
                else "–",
            }
        )
    return lines
