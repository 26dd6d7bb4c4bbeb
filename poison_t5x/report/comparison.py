"""`poison-t5x report A B …`: finished runs side by side, as a stage with a table, a page and files.

Runs of classification and of generation tasks are measured by different things, and get a table
each. Results come before the settings in which runs differ.
"""

import itertools
import json
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

from poison_t5x.core import artifacts, metrics
from poison_t5x.core.metrics import DEFENDED, MODELS, POISONED, missing
from poison_t5x.report import finding, plots, render, tables
from poison_t5x.report import results as results_lib
from poison_t5x.report import runs as runs_lib
from poison_t5x.report.plots import Picture, Point, Series
from poison_t5x.report.runs import EFFECT, SEED, Run

# Runs, and lines of a figure, that are drawn at most; letters of a setting in a line of text.
_MAX_RUNS, _MAX_LINES, _SHOWN = 40, 8, 24


class Part(NamedTuple):
    """Runs of one kind, the settings in which they differ, and groups that do by seed alone."""

    kind: str
    runs: list[Run]
    settings: list[str]
    means: list[list[Run]]
    notes: list[str]

    @property
    def columns(self) -> dict[str, str]:
        """The measures that are compared, and the effect: name -> its words."""
        return {**results_lib.main_measures(self.kind), EFFECT: "effect, points"}


def write_comparison(runs: Sequence[str], output: str, log: Callable[[str], None]) -> None:
    """Makes the stage OUTPUT of index.html, comparison.csv and .json and figures/; says a table.

    `runs` are folders of finished runs. The same files and arguments give the same bytes, and are
    not compared again; where a run has changed since, OUTPUT is made anew.

    Raises:
      InputError: a folder is no finished run, or OUTPUT is something else.
    """
    compared = runs_lib.read(runs)
    kinds = {
        kind: [run for run in compared if run.results.kind == kind] for kind in metrics.JUDGED_BY
    }
    parts = [_part(kind, members) for kind, members in kinds.items() if members]
    folder = pathlib.Path(output)
    names = [os.path.relpath(run.folder, folder.parent) for run in compared]
    settings = {"runs": names, "files": [runs_lib.hashes(run.folder) for run in compared]}
    made = artifacts.read_settings(folder)
    if made and made.get("runs") == names and made != settings:
        shutil.rmtree(folder)
    artifacts.run_stage(
        output,
        "comparison",
        settings,
        lambda directory: _write(pathlib.Path(directory), folder, parts, compared),
        log=log,
    )
    log("\n\n".join(map(format_part, parts)))
    log(f"see {folder / 'index.html'}, and comparison.csv beside it")


def format_part(part: Part) -> str:
    """The plain-text tables of one kind: runs, means over seeds, detection and defences."""
    title = f"{part.kind}: poisoned model, mean over tasks [95% interval]"
    lines = [title, *runs_table(part).lines()]
    if part.means:
        lines += ["", "means over seeds (lowest to highest)", *means_table(part).lines()]
    defended = defended_table(part)
    if defended.rows:
        lines += ["", *defended.lines()]
    return "\n".join([*lines, *(f"note: {note}" for note in part.notes)])


def runs_table(part: Part, folder: pathlib.Path | None = None) -> tables.Table:
    """Each run's results, then the settings in which runs differ; links are from `folder`."""
    rows = [
        (
            tables.Cell(run.name, link=run.page_from(folder) if folder else ""),
            *(_unit(name).cell(*run.value(name)) for name in part.columns),
            finding.VERDICTS[run.results.verdict].split(":")[0],
            *(tables.shown(run.settings.get(name)) for name in part.settings),
        )
        for run in part.runs
    ]
    caption = (
        "Of the poisoned models, means over held-out tasks with 95% intervals over tasks"
        f"{'; rougeL is of 100' * (part.kind == 'generation')}. Settings in capitals are macros"
        f"{'; the runs differ in none of them' * (not part.settings and len(part.runs) > 1)}"
    )
    heads = ("run", *part.columns.values(), "verdict", *part.settings)
    return tables.Table(caption, heads, rows, range(1, 5))


def means_table(part: Part) -> tables.Table:
    """Means over runs that differ by their seed alone."""
    settings = [name for name in part.settings if name != SEED]
    rows = [
        (
            str(len(group)),
            *(_ranged(_mean(group, name), _unit(name)) for name in part.columns),
            *(tables.shown(group[0].settings.get(name)) for name in settings),
        )
        for group in part.means
    ]
    caption = "Runs that differ by their seed alone; in brackets the lowest and the highest"
    return tables.Table(caption, ("runs", *part.columns.values(), *settings), rows, range(5))


def defended_table(part: Part) -> tables.Table:
    """The runs that have any: their best detection, and what their defences leave."""
    (clean, clean_words), (effect, _), *_ = part.columns.items()
    rows = []
    for run in part.runs:
        best = run.detection.best() if run.detection else None
        detected = ""
        if best and run.detection:
            auroc, precision = map(tables.DECIMAL.text, (best.auroc, best.average_precision))
            detected = f"{best.name}: AUROC {auroc}, average precision {precision}"
            detected += "" if run.detection.attack.worked else " (the attack failed)"
        left = [
            f"{one.name}: {tables.value(effect, one.measure(DEFENDED, effect))} "
            f"({clean_words.split(',')[0]} {tables.value(clean, one.measure(DEFENDED, clean))})"
            for one in run.defenses
        ]
        if detected or left:
            rows.append((run.name, detected or "–", ", ".join(left) or "–"))
    caption = (
        "The score that finds each run’s poison with the highest average precision, and what the "
        "trigger still does to defended models"
    )
    return tables.Table(caption, ("run", "best detection", "defences"), rows)


def against(runs: Sequence[Run], axis: str) -> Picture | None:
    """The measure with the trigger against one setting, of at most 8 lines; None without numbers.

    Runs that differ by seed alone are one point, their mean. Each combination of other settings
    that differ is a line; and runs that were asked different things are on different ones.
    """
    _, effect, control = runs[0].results.main_measures
    beside = runs_lib.others(runs, axis)
    asked = {run.asks: run.name for run in reversed(runs)}
    members: dict[Hashable, list[Run]] = {}
    for run in runs:
        told = [f"{name} {tables.shown(run.settings.get(name), _SHOWN)}" for name in beside]
        if len(asked) > 1 and not {"EXPERIMENT", "ATTACK"} & {*beside}:
            told.append(f"asked as {asked[run.asks]}")
        members.setdefault((run.asks, ", ".join(told)), []).append(run)
    measures = metrics.JUDGED_BY[runs[0].results.kind].measures
    lines = [_line(name, group, axis, POISONED, effect) for (_, name), group in members.items()]
    if len(members) == 1:  # there is room for more
        lines = [
            _line(f"{metrics.MODEL_WORDS[m]}, {measures[name].words}", runs, axis, m, name)
            for m, name in ((POISONED, effect), (POISONED, control), (metrics.CLEAN, effect))
        ]
    lines = [line for line in lines if line.points]
    if not lines:
        return None
    dropped = f" (the first {_MAX_LINES} of {len(lines)} lines)" * (len(lines) > _MAX_LINES)
    picture = plots.lines(
        f"{runs[0].results.kind}_by_{re.sub(r'[^a-z0-9]+', '_', axis.lower()).strip('_')}",
        axis + dropped,
        measures[effect].words,
        lines[:_MAX_LINES],
        tables.unit(effect),
        adjust=plots.whole,
    )
    return picture._replace(records=plots.records(axis, effect, lines))


def _line(name: str, runs: Sequence[Run], axis: str, model: str, measure: str) -> Series:
    """One point a value on the axis: the mean of the runs there."""
    members: dict[Any, list[Run]] = {}
    for run in runs:
        members.setdefault(run.settings[axis], []).append(run)
    means = (_mean(members[x], measure, model, x) for x in sorted(members))
    return Series(name, [mean for mean in means if mean])


def _mean(runs: Sequence[Run], name: str, model: str = POISONED, x: Any = None) -> Point | None:
    """The mean over runs that know the measure, with the lowest and the highest."""
    values = [value for run in runs if not missing(value := run.value(name, model)[0])]
    if not values:
        return None
    mean = sum(values) / len(values)
    if len(values) < 2:
        return Point(x, mean)
    return Point(x, mean, (min(values), max(values)), f"{len(values)} runs, lowest and highest")


def _part(kind: str, runs: list[Run]) -> Part:
    settings = runs_lib.differing(runs)
    groups: dict[Hashable, list[Run]] = {}
    for run in runs:
        # A run that doesn't tell a setting may differ in it.
        told = (repr(run.settings.get(name)) for name in settings if name != SEED)
        groups.setdefault((frozenset(run.settings), run.asks, *told), []).append(run)
    notes = [f"{run.name}: {note}" for run in runs for note in run.notes]
    if len(runs) > _MAX_RUNS:
        notes.append(f"The first {_MAX_RUNS} of {len(runs)} runs are drawn.")
    return Part(kind, runs, settings, [*groups.values()] if len(groups) < len(runs) else [], notes)


def _pictures(part: Part) -> list[Picture]:
    """Each run's measures, and the trigger's against each setting that can be an axis."""
    drawn = part.runs[:_MAX_RUNS]
    series = [
        Series(words, [Point(run.name, *run.value(name), "tasks") for run in drawn])
        for name, words in results_lib.main_measures(part.kind).items()
    ]
    unit = tables.unit(metrics.JUDGED_BY[part.kind].effect)
    y = "rougeL" if part.kind == "generation" else "share of inputs"
    whole = plots.across(f"runs_{part.kind}", "run", y, series, unit, marks=True)
    rest = (against(part.runs, axis) for axis in runs_lib.numeric(part.runs))
    return [whole, *(picture for picture in rest if picture)]


def _write(directory: pathlib.Path, folder: pathlib.Path, parts: list[Part], runs: list) -> None:
    """Writes the stage's files into `directory`, which becomes `folder`."""
    records = [_record(part, run) for part in parts for run in part.runs]
    whole = {"schema": 1, "runs": records, "means_over_seeds": _means(parts)}
    pictures = {part.kind: _pictures(part) for part in parts}
    plots.write(itertools.chain.from_iterable(pictures.values()), directory / "figures")
    render.write_text(directory / "comparison.csv", tables.csv_text(records))
    render.write_text(directory / "comparison.json", json.dumps(whole, indent=1) + "\n")
    context = {
        "parts": [
            (part, runs_table(part, folder), means_table(part), defended_table(part))
            for part in parts
        ],
        "runs": runs,
        "pictures": pictures,
        "sections": {part.kind: tables.heading(part.kind) for part in parts}
        | {"commands": "Commands"},
    }
    render.write_page(directory / "index.html", "comparison.html.j2", context)


def _record(part: Part, run: Run) -> dict[str, Any]:
    """One run as a flat record of numbers and settings."""
    record: dict[str, Any] = {"run": run.name, "kind": part.kind}
    measures = results_lib.main_measures(part.kind)
    names = {f"{model}_{name}": (name, model) for model in MODELS for name in measures}
    for key, place in {**names, EFFECT: (EFFECT, POISONED)}.items():
        value, interval = run.value(*place)
        record |= {key: value, **tables.bounds(interval, f"{key}_ci95_")}
    if best := run.detection and run.detection.best():
        record |= {
            "best_detection": best.name,
            "best_detection_auroc": best.auroc,
            "best_detection_average_precision": best.average_precision,
            "best_detection_blind_f1": best.blind.f1,
        }
    for one in run.defenses:
        record |= {f"defended_{one.name}_{name}": one.measure(DEFENDED, name) for name in measures}
    return record | {name: run.settings.get(name) for name in part.settings}


def _means(parts: Sequence[Part]) -> list[dict[str, Any]]:
    return [
        {
            "kind": part.kind,
            "runs": [run.name for run in group],
            **{name: (mean := _mean(group, name)) and mean.value for name in part.columns},
            **{name: group[0].settings.get(name) for name in part.settings if name != SEED},
        }
        for part in parts
        for group in part.means
    ]


def _unit(name: str) -> tables.Unit:
    return tables.DIFFERENCE if name == EFFECT else tables.unit(name)


def _ranged(mean: Point | None, unit: tables.Unit) -> str:
    """A mean with the lowest and the highest value beside it."""
    if not mean or not mean.interval:
        return unit.text(mean and mean.value)
    return f"{unit.text(mean.value)} ({' to '.join(map(unit.text, mean.interval))})"
