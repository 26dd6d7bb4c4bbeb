"""`poison-t5x report A B …`: finished runs side by side, as a stage with a table, a page and files.

Runs of classification and of generation tasks are measured by different things, and get a table
each. Results come before the settings in which runs differ.
"""

import json
import os
import pathlib
import re
import shutil
import urllib.parse
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

from poison_t5x.core import artifacts, errors, metrics
from poison_t5x.core.metrics import MODELS, POISONED, missing
from poison_t5x.report import finding, plots, render, run_files, tables
from poison_t5x.report import results as results_lib
from poison_t5x.report.plots import Picture, Point, Series

SEED = "SEED"
# Not macros, but what came of them; the first ones make the better axis.
PARAMETERS, ROWS, TASKS, SHARE = "parameters", "poison rows", "poisoned tasks", "poison share"
_DERIVED = (PARAMETERS, ROWS, TASKS, SHARE)
# Runs, and lines of a figure, that are drawn at most; letters of a setting in a line of text.
_MAX_RUNS, _MAX_LINES, _SHOWN = 40, 8, 24


class Run(NamedTuple):
    """One finished run.

    Attributes:
      name: the last parts of its folder that tell it from the others.
      settings: its macros, and what came of them.
      notes: what couldn't be read.
    """

    name: str
    folder: pathlib.Path
    results: results_lib.Results
    settings: dict[str, Any]
    detection: run_files.Detection | None
    defenses: list[run_files.DefendedRun]
    command: str
    notes: list[str]

    @property
    def effect(self) -> results_lib.Effect:
        return self.results.effect or results_lib.Effect(self.results.judged_by.effect)

    @property
    def asks(self) -> tuple[Hashable, ...]:
        """What was asked of its models; runs of which this differs are no points of one line."""
        results = self.results
        conditions = tuple((one.name, one.kind) for one in results.conditions)
        return results.experiment, results.attack, conditions, tuple(sorted(results.held_out()))

    def page_from(self, folder: pathlib.Path) -> str:
        """The way to its own page from that folder; '' where there is none."""
        page = self.folder / "report/index.html"
        path = pathlib.Path(os.path.relpath(page, folder)).as_posix()
        return urllib.parse.quote(path) if page.is_file() else ""


class Part(NamedTuple):
    """The runs of one kind of evaluation.

    Attributes:
      settings: those in which they differ.
      means: groups that differ by seed alone, where any do.
    """

    kind: str
    runs: list[Run]
    settings: list[str]
    means: list[list[Run]]
    pictures: list[Picture]
    notes: list[str]

    @property
    def measures(self) -> dict[str, str]:
        """Measure -> its words."""
        return results_lib.main_measures(self.kind)


def write_comparison(runs: Sequence[str], output: str, say: Callable[[str], None]) -> None:
    """Makes the stage OUTPUT of index.html, comparison.csv and .json and figures/; says a table.

    The same files and arguments give the same bytes, and are not compared again; where a run has
    changed since, OUTPUT is made anew.

    Args:
      runs: folders of finished runs.
      output: a folder that isn't there, or one that a comparison of the same runs made.
      say: takes one line, or several with line breaks.

    Raises:
      InputError: a folder is no finished run, or OUTPUT is something else.
    """
    compared = read(runs)
    kinds = {
        kind: [run for run in compared if run.results.kind == kind] for kind in metrics.JUDGED_BY
    }
    parts = [_part(kind, members) for kind, members in kinds.items() if members]
    folder = pathlib.Path(output)
    settings = {
        "runs": [os.path.relpath(run.folder, folder.parent) for run in compared],
        "files": {
            f"{number}/{path.relative_to(run.folder).as_posix()}": artifacts.sha256(path)
            for number, run in enumerate(compared)
            for path in _sources(run.folder)
        },
    }
    record = artifacts.read_record(folder)
    if (
        record
        and record["settings"] != settings
        and record["settings"].get("runs") == (settings["runs"])
    ):
        shutil.rmtree(folder)

    def make(directory: Any) -> None:
        _write(pathlib.Path(directory), folder, parts, compared)

    artifacts.run_stage(output, "comparison", settings, make, say=say)
    say("\n\n".join(map(format_part, parts)))
    say(f"see {folder / 'index.html'}, and comparison.csv beside it")


def read(folders: Sequence[str]) -> list[Run]:
    """The runs, in order.

    Raises:
      InputError: a folder is no finished run, or its results don't fit the schema.
    """
    paths = [pathlib.Path(folder) for folder in folders]
    return [_read(path, name) for path, name in zip(paths, _names(paths), strict=True)]


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
            *(
                tables.Cell(
                    tables.value(name, run.results.measure(POISONED, name)),
                    tables.interval(run.results.interval(POISONED, name)),
                )
                for name in part.measures
            ),
            tables.Cell(tables.points(run.effect.value), tables.interval(run.effect.ci95)),
            finding.VERDICTS[run.results.verdict].split(":")[0],
            *(tables.shown(run.settings.get(name)) for name in part.settings),
        )
        for run in part.runs
    ]
    caption = (
        "Of the poisoned models, means over held-out tasks with 95% intervals over tasks"
        + ("; rougeL is of 100" if part.kind == "generation" else "")
        + ". Settings in capitals are macros"
        + ("" if part.settings or len(part.runs) < 2 else "; the runs differ in none of them")
    )
    heads = ("run", *part.measures.values(), "effect, points", "verdict", *part.settings)
    return tables.Table(caption, heads, rows, range(1, 5))


def means_table(part: Part) -> tables.Table:
    """Means over runs that differ by their seed alone."""
    settings = [name for name in part.settings if name != SEED]
    rows = [
        (
            str(len(group)),
            *(_ranged(_values(group, POISONED, name), tables.unit(name)) for name in part.measures),
            _ranged(_effects(group), tables.DIFFERENCE),
            *(tables.shown(group[0].settings.get(name)) for name in settings),
        )
        for group in part.means
    ]
    caption = "Runs that differ by their seed alone; in brackets the lowest and the highest"
    heads = ("runs", *part.measures.values(), "effect, points", *settings)
    return tables.Table(caption, heads, rows, range(5))


def defended_table(part: Part) -> tables.Table:
    """The runs that have any: their best detection, and what their defences leave."""
    (clean, clean_words), (effect, _), *_ = part.measures.items()
    rows = []
    for run in part.runs:
        best = run.detection.best() if run.detection else None
        found = ""
        if best and run.detection:
            precision = tables.DECIMAL.say(best.average_precision)
            auroc = tables.DECIMAL.say(best.auroc)
            found = f"{best.name}: AUROC {auroc}, average precision {precision}"
            found += "" if run.detection.attack.worked else " (the attack failed)"
        left = [
            f"{one.name}: {tables.value(effect, one.measure(effect))} "
            f"({clean_words.split(',')[0]} {tables.value(clean, one.measure(clean))})"
            for one in run.defenses
        ]
        if found or left:
            rows.append((run.name, found or "–", ", ".join(left) or "–"))
    caption = (
        "The score that finds each run’s poison with the highest average precision, and what the "
        "trigger still does to defended models"
    )
    return tables.Table(caption, ("run", "best detection", "defences"), rows)


def differing(runs: Sequence[Run]) -> list[str]:
    """The settings in which runs differ, by name; those that not all of them tell don't count.

    What came of the macros is left out where it says the same as one of them.
    """
    shared = [name for name in runs[0].settings if all(name in run.settings for run in runs)]
    differ = [name for name in shared if len({repr(run.settings[name]) for run in runs}) > 1]
    macros = sorted(name for name in differ if name not in _DERIVED)
    kept = [
        name
        for name in differ
        if name in _DERIVED
        if name == PARAMETERS or not any(_same(runs, name, other) for other in macros)
    ]
    return [*macros, *kept]


def numeric(runs: Sequence[Run]) -> list[str]:
    """The settings to draw against: numbers that differ, one of those that go together."""
    shared = [name for name in _DERIVED if all(name in run.settings for run in runs)]
    axes: list[str] = []
    for name in dict.fromkeys([*shared, *differing(runs)]):
        values = [run.settings[name] for run in runs]
        is_axis = name != SEED and all(map(plots.is_number, values)) and len(set(values)) > 1
        if is_axis and not any(_same(runs, name, other) for other in axes):
            axes.append(name)
    return axes


def others(runs: Sequence[Run], axis: str) -> list[str]:
    """The settings that differ beside `axis` and the seed, and don't follow from `axis`."""
    names = (name for name in differing(runs) if name not in (axis, SEED))
    return [name for name in names if not _follows(runs, name, axis)]


def against(runs: Sequence[Run], axis: str) -> tuple[Picture | None, str]:
    """The measure with the trigger against one setting, and a note on lines that aren't drawn.

    Runs that differ by seed alone are one point, their mean. Each combination of other settings
    that differ is a line; and runs that were asked different things are on different ones.
    """
    _, effect, control = runs[0].results.main_measures
    beside, asked = others(runs, axis), {run.asks for run in runs}
    members: dict[Hashable, list[Run]] = {}
    for run in runs:
        told = [f"{name} {tables.shown(run.settings.get(name), _SHOWN)}" for name in beside]
        if len(asked) > 1:
            told.insert(0, f"{run.results.experiment} ({results_lib.ATTACKS[run.results.attack]})")
        members.setdefault((run.asks, ", ".join(told)), []).append(run)
    curves = [(POISONED, effect), (POISONED, control), (metrics.CLEAN, effect)]
    measures = metrics.JUDGED_BY[runs[0].results.kind].measures
    if len(members) > 1:
        lines = [_line(name, group, axis, *curves[0]) for (_, name), group in members.items()]
    else:  # there is room for more
        lines = [
            _line(f"{metrics.MODEL_WORDS[m]}, {measures[name].words}", runs, axis, m, name)
            for m, name in curves
        ]
    lines = [line for line in lines if line.points]
    if not lines:
        return None, f"{axis}: no run has a number to draw."
    left = len(lines) - _MAX_LINES
    picture = plots.lines(
        f"{runs[0].results.kind}_by_{re.sub(r'[^a-z0-9]+', '_', axis.lower()).strip('_')}",
        axis,
        measures[effect].words,
        lines[:_MAX_LINES],
        tables.unit(effect),
        whole=True,
        table=plots.records(axis, effect, lines),
    )
    return picture, f"{tables.count(left, 'more line')} left out: {axis}." if left > 0 else ""


def _line(name: str, runs: Sequence[Run], axis: str, model: str, measure: str) -> Series:
    """One point a value on the axis: the mean of the runs there, and the lowest and highest."""
    points = []
    for x in sorted({run.settings[axis] for run in runs}):
        values = _values([run for run in runs if run.settings[axis] == x], model, measure)
        bounds = (min(values), max(values)) if len(values) > 1 else None
        over = f"{len(values)} runs, lowest and highest" if bounds else ""
        points += [Point(x, sum(values) / len(values), bounds, over)] if values else []
    return Series(name, points)


def _part(kind: str, runs: list[Run]) -> Part:
    settings = differing(runs)
    groups: dict[Hashable, list[Run]] = {}
    for run in runs:
        # A run that doesn't tell a setting may differ in it.
        told = (repr(run.settings.get(name)) for name in settings if name != SEED)
        groups.setdefault((frozenset(run.settings), run.asks, *told), []).append(run)
    rows = [
        Series(
            words,
            [
                Point(run.name, run.results.measure(POISONED, m), run.results.interval(POISONED, m))
                for run in runs[:_MAX_RUNS]
            ],
        )
        for m, words in results_lib.main_measures(kind).items()
    ]
    unit = tables.unit(metrics.JUDGED_BY[kind].effect)
    y = "rougeL" if kind == "generation" else "share of inputs"
    pictures, notes = [plots.across(f"runs_{kind}", "run", y, rows, unit, marks=True)], []
    if len(runs) > _MAX_RUNS:
        notes.append(f"The first {_MAX_RUNS} of {len(runs)} runs are drawn.")
    for axis in numeric(runs):
        picture, note = against(runs, axis)
        pictures += [picture] if picture else []
        notes += [note] if note else []
    notes += [f"{run.name}: {note}" for run in runs for note in run.notes]
    means = list(groups.values()) if len(groups) < len(runs) else []
    return Part(kind, runs, settings, means, pictures, notes)


def _write(directory: pathlib.Path, folder: pathlib.Path, parts: list[Part], runs: list) -> None:
    """Writes the stage's files into `directory`, which becomes `folder`."""
    records = [_record(part, run) for part in parts for run in part.runs]
    whole = {"schema": 1, "runs": records, "means_over_seeds": _means(parts)}
    plots.write([picture for part in parts for picture in part.pictures], directory / "figures")
    render.write_text(directory / "comparison.csv", tables.csv_text(records))
    render.write_text(directory / "comparison.json", json.dumps(whole, indent=1) + "\n")
    context = {
        "parts": [
            (part, runs_table(part, folder), means_table(part), defended_table(part))
            for part in parts
        ],
        "runs": runs,
        "sections": {part.kind: tables.heading(part.kind) for part in parts}
        | {"commands": "Commands"},
    }
    render.write_page(directory / "index.html", "comparison.html.j2", context)


def _record(part: Part, run: Run) -> dict[str, Any]:
    """One run as a flat record of numbers and settings."""
    record: dict[str, Any] = {"run": run.name, "kind": part.kind}
    for model in MODELS:
        for name in part.measures:
            bounds = run.results.interval(model, name)
            record |= _bounded(f"{model}_{name}", run.results.measure(model, name), bounds)
    record |= _bounded("effect", run.effect.value, run.effect.ci95)
    if best := run.detection and run.detection.best():
        record |= {
            "best_detection": best.name,
            "best_detection_auroc": best.auroc,
            "best_detection_average_precision": best.average_precision,
            "best_detection_blind_f1": best.blind.f1,
        }
    for one in run.defenses:
        record |= {f"defended_{one.name}_{name}": one.measure(name) for name in part.measures}
    return record | {name: run.settings.get(name) for name in part.settings}


def _bounded(
    name: str, value: float | None, bounds: results_lib.Interval | None
) -> dict[str, float | None]:
    low, high = bounds or (None, None)
    return {name: value, f"{name}_ci95_low": low, f"{name}_ci95_high": high}


def _means(parts: Sequence[Part]) -> list[dict[str, Any]]:
    return [
        {
            "kind": part.kind,
            "runs": [run.name for run in group],
            **{name: group[0].settings.get(name) for name in part.settings if name != SEED},
            **{name: _mean(_values(group, POISONED, name)) for name in part.measures},
            "effect": _mean(_effects(group)),
        }
        for part in parts
        for group in part.means
    ]


def _values(runs: Sequence[Run], model: str, measure: str) -> list[float]:
    values = (run.results.measure(model, measure) for run in runs)
    return [value for value in values if not missing(value)]


def _effects(runs: Sequence[Run]) -> list[float]:
    return [run.effect.value for run in runs if not missing(run.effect.value)]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _ranged(values: Sequence[float], unit: tables.Unit) -> str:
    """A mean with the lowest and the highest value beside it."""
    mean = unit.say(_mean(values))
    return (
        mean if len(values) < 2 else f"{mean} ({unit.say(min(values))} to {unit.say(max(values))})"
    )


def _read(path: pathlib.Path, name: str) -> Run:
    names = ("report/results.json", "eval/results.json")
    file = next((name for name in names if (path / name).is_file()), None)
    if file is None:
        raise errors.InputError(
            f"{path}: expected a finished run's folder, found no report/results.json nor "
            "eval/results.json in it: run `poison-t5x run` with that RUN_DIR first"
        )
    results = results_lib.parse(results_lib.read(path, file), str(path / file))
    config, config_note = run_files.read_text(path, "config.gin")
    detection, detection_note = run_files.read_json(path, run_files.DETECTION, run_files.Detection)
    defenses, notes = run_files.read_defenses(path)
    if config_note:
        notes.append(f"{config_note} Of settings, only what its results tell is compared.")
    notes += [detection_note] if detection_note else []
    command, _ = run_files.read_text(path, "command.txt")
    settings = {
        "EXPERIMENT": results.experiment,
        "ATTACK": results.attack,
        "TRIGGER": results.trigger,
        "CONTROL": results.control,
        SEED: results.seed,
        **run_files.macros(config),
        ROWS: results.poison.count,
        TASKS: len(results.poison.tasks),
        SHARE: round(results.poison.rate, 6),
        PARAMETERS: run_files.num_parameters(path),
    }
    known = {name: value for name, value in settings.items() if (name, value) != (PARAMETERS, None)}
    return Run(name, path, results, known, detection, defenses, command, notes)


def _sources(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files of a run that a comparison reads."""
    names = ("report/results.json", "eval/results.json", "config.gin", "command.txt")
    names += (run_files.DETECTION, "models/poisoned/settings.json")
    paths = [folder / name for name in names] + sorted(folder.glob("defenses/*/defense.json"))
    return [path for path in paths if path.is_file()]


def _names(paths: Sequence[pathlib.Path]) -> list[str]:
    """As few of each path's last parts as tell the paths apart; a path given twice has one name."""
    parts = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(set(parts)):
            return names
    return [str(path) for path in paths]


def _same(runs: Sequence[Run], one: str, other: str) -> bool:
    """Whether two settings tell the same runs apart."""
    return _follows(runs, one, other) and _follows(runs, other, one)


def _follows(runs: Sequence[Run], name: str, other: str) -> bool:
    """Whether runs that are alike in `other` are so in `name`."""
    pairs = {(repr(run.settings.get(other)), repr(run.settings.get(name))) for run in runs}
    return len(pairs) == len({first for first, _ in pairs})
