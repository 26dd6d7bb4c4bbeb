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
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from poison_t5x.core import artifacts, metrics
from poison_t5x.core.metrics import CLEAN, DEFENDED, MODELS, POISONED, missing
from poison_t5x.report import plots, render, tables
from poison_t5x.report import runs as runs_lib
from poison_t5x.report.plots import Picture, Point, Series
from poison_t5x.report.results import main_measures
from poison_t5x.report.runs import EFFECT, SEED, FinishedRun

# Runs, and lines of a figure, that are drawn at most; letters of a setting in a line of text.
_MAX_RUNS, _MAX_LINES, _SHOWN = 40, 8, 24


class Part(NamedTuple):
    """Runs of one kind, the settings in which they differ, and groups that do by seed alone."""

    kind: str
    runs: list[FinishedRun]
    settings: list[str]
    means: list[list[FinishedRun]]
    notes: list[str]

    @property
    def columns(self) -> dict[str, str]:
        """The measures that are compared, and the effect: name -> its words."""
        return {**main_measures(self.kind), EFFECT: "effect, points"}

    @property
    def but_seed(self) -> list[str]:
        return [name for name in self.settings if name != SEED]


def write_comparison(runs: Sequence[str], output: str, log: Callable[[str], None]) -> None:
    """Makes the stage OUTPUT of index.html, comparison.csv and .json and figures/; says a table.

    `runs` are folders of finished runs. The same files and arguments give the same bytes, and are
    not compared again; where a run has changed since, OUTPUT is made anew.

    Raises:
      InputError: a folder is no finished run, or OUTPUT is something else.
    """
    compared = runs_lib.read(runs)
    kinds = tables.grouped(compared, lambda run: run.results.kind)
    parts = [_part(kind, kinds[kind]) for kind in metrics.JUDGED_BY if kind in kinds]
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
            run.results.verdict_words.split(":")[0],
            *_shown(run, part.settings),
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

    def ranged(group: list[FinishedRun], name: str) -> str:
        """A mean with the lowest and the highest value beside it."""
        mean, unit = _mean(group, name), _unit(name)
        text = unit.text(mean.value)
        return f"{text} ({' to '.join(map(unit.text, mean.interval))})" if mean.interval else text

    rows = [
        (
            str(len(group)),
            *(ranged(group, name) for name in part.columns),
            *_shown(group[0], part.but_seed),
        )
        for group in part.means
    ]
    caption = "Runs that differ by their seed alone; in brackets the lowest and the highest"
    return tables.Table(caption, ("runs", *part.columns.values(), *part.but_seed), rows, range(5))


def defended_table(part: Part) -> tables.Table:
    """The runs that have any: their best detection, and what their defences leave."""
    (clean, clean_words), (effect, _), *_ = part.columns.items()
    rows = []
    for run in part.runs:
        best = run.detection and run.detection.best()
        detected = ""
        if best:
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


def against(runs: Sequence[FinishedRun], axis: str) -> Picture | None:
    """The measure with the trigger against one setting, of at most 8 lines; None without numbers.

    Runs that differ by seed alone are one point, their mean. Each combination of other settings
    that differ is a line; and runs that were asked different things are on different ones.
    """
    results = runs[0].results
    _, effect, control = results.main_measures
    beside = runs_lib.others(runs, axis)
    asked = {run.asks: run.name for run in reversed(runs)}
    is_told = len(asked) == 1 or {"EXPERIMENT", "ATTACK"} & {*beside}

    def words(run: FinishedRun) -> str:
        settings = map("{} {}".format, beside, _shown(run, beside, _SHOWN))
        return ", ".join([*settings, *([] if is_told else [f"asked as {asked[run.asks]}"])])

    def line(name: str, members: Sequence[FinishedRun], model: str, measure: str) -> Series:
        places = tables.grouped(members, lambda run: run.settings[axis])
        means = (_mean(places[x], measure, model, x) for x in sorted(places))
        return Series(name, [mean for mean in means if mean.value is not None])

    members = tables.grouped(runs, lambda run: (run.asks, words(run)))
    measures = results.judged_by.measures
    lines = [line(name, group, POISONED, effect) for (_, name), group in members.items()]
    if len(members) == 1:  # there is room for more
        lines = [
            line(f"{metrics.MODEL_WORDS[m]}, {measures[name].words}", runs, m, name)
            for m, name in ((POISONED, effect), (POISONED, control), (CLEAN, effect))
        ]
    lines = [one for one in lines if one.points]
    dropped = f" (the first {_MAX_LINES} of {len(lines)} lines)" * (len(lines) > _MAX_LINES)
    picture = plots.lines(
        f"{results.kind}_by_{re.sub(r'[^a-z0-9]+', '_', axis.lower()).strip('_')}",
        axis + dropped,
        measures[effect].words,
        lines[:_MAX_LINES],
        tables.unit(effect),
        adjust=plots.whole,
    )
    return picture and picture._replace(records=plots.records(axis, effect, lines))


def _mean(runs: Sequence[FinishedRun], name: str, model: str = POISONED, x: Any = None) -> Point:
    """The mean over runs that know the measure, with the lowest and the highest."""
    values = [value for run in runs if not missing(value := run.value(name, model)[0])]
    if len(values) < 2:
        return Point(x, *(values or [None]))
    over = f"{len(values)} runs, lowest and highest"
    return Point(x, sum(values) / len(values), (min(values), max(values)), over)


def _part(kind: str, runs: list[FinishedRun]) -> Part:
    settings = runs_lib.differing(runs)
    part = Part(kind, runs, settings, [], [f"{r.name}: {note}" for r in runs for note in r.notes])
    if len(runs) > _MAX_RUNS:
        part.notes.append(f"The first {_MAX_RUNS} of {len(runs)} runs are drawn.")

    def but_seed(run: FinishedRun) -> tuple:
        # A run that doesn't tell a setting may differ in it.
        told = (repr(run.settings.get(name)) for name in part.but_seed)
        return frozenset(run.settings), run.asks, *told

    groups = list(tables.grouped(runs, but_seed).values())
    return part._replace(means=groups) if len(groups) < len(runs) else part


def _pictures(part: Part) -> list[Picture]:
    """Each run's measures, and the trigger's against each setting that can be an axis."""
    drawn = part.runs[:_MAX_RUNS]
    series = [
        Series(words, [Point(run.name, *run.value(name), "tasks") for run in drawn])
        for name, words in main_measures(part.kind).items()
    ]
    unit, y = tables.unit(metrics.JUDGED_BY[part.kind].effect), drawn[0].results.axis
    whole = plots.across(f"runs_{part.kind}", "run", y, series, unit, marks=True)
    rest = (against(part.runs, axis) for axis in runs_lib.numeric(part.runs))
    return [whole, *filter(None, rest)]


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


def _record(part: Part, run: FinishedRun) -> dict[str, Any]:
    """One run as a flat record of numbers and settings."""
    record: dict[str, Any] = {"run": run.name, "kind": part.kind}
    measures = main_measures(part.kind)
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
            **{name: _mean(group, name).value for name in part.columns},
            **{name: group[0].settings.get(name) for name in part.but_seed},
        }
        for part in parts
        for group in part.means
    ]


def _shown(run: FinishedRun, names: Sequence[str], most: int = 40) -> list[str]:
    return [tables.shown(run.settings.get(name), most) for name in names]


def _unit(name: str) -> tables.Unit:
    return tables.DIFFERENCE if name == EFFECT else tables.unit(name)
