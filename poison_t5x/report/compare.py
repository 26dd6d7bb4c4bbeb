"""`poison-t5x report A B …`: finished runs side by side, as a table, a page and files."""

import json
import os
import pathlib
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from poison_t5x.core import errors
from poison_t5x.report import (
    compare_figures,
    comparison,
    drawing,
    finding,
    render,
    table,
    words,
)
from poison_t5x.report import results as results_lib

_SETTINGS_SHOWN = 24


class Part(NamedTuple):
    """The runs of one kind of evaluation.

    Attributes:
      settings: those in which they differ.
      means: over seeds, where some runs differ by seed alone; else none.
      figures: of all runs, and against settings.
    """

    kind: str
    runs: list[comparison.Run]
    settings: list[str]
    means: list[comparison.Group]
    figures: list[drawing.Picture]
    notes: list[str]

    @property
    def measures(self) -> list[tuple[str, str]]:
        """Measure -> its name."""
        return comparison.MEASURES[self.kind]

    @property
    def means_settings(self) -> list[str]:
        """The settings that tell the groups of `means` apart."""
        return [name for name in self.settings if name != comparison.SEED]


def write_comparison(runs: Sequence[str], output: str, say: Callable[[str], None]) -> None:
    """Writes OUTPUT/index.html, comparison.csv, comparison.json and figures/, and says a table.

    Runs of classification and of generation tasks are measured by different things, and get a
    table each. The same files and arguments give the same bytes.

    Args:
      runs: folders of finished runs.
      output: a folder, created if need be.
      say: takes one line, or several with line breaks.

    Raises:
      InputError: a folder is no finished run, or OUTPUT is a file.
    """
    found = comparison.read(runs)
    parts = [
        _part(kind, [run for run in found if run.results.kind == kind])
        for kind in comparison.MEASURES
        if any(run.results.kind == kind for run in found)
    ]
    folder = pathlib.Path(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.InputError(f"--output {output}: can't be a folder ({error})") from error
    drawing.write([picture for part in parts for picture in part.figures], folder / "figures")
    render.write_text(folder / "comparison.csv", drawing.csv_text(_csv(parts)))
    render.write_text(folder / "comparison.json", json.dumps(_json(parts), indent=1) + "\n")
    context = {"parts": parts, "runs": found, "links": _links(found, folder), **_words()}
    render.write_text(folder / "index.html", render.page("comparison.html.j2", context))
    say("\n\n".join(map(format_part, parts)))
    say(f"see {folder / 'index.html'}, and comparison.csv beside it")


def format_part(part: Part) -> str:
    """The plain-text tables of one kind: runs, then means over seeds where there are any."""
    heads = ("run", *part.settings, *(name for _, name in part.measures), "effect, points")
    rows = [(*heads, "best detection", "defences")]
    for run in part.runs:
        values = (_measure(run, measure) for measure, _ in part.measures)
        settings = (comparison.shown(run.setting(n), _SETTINGS_SHOWN) for n in part.settings)
        rows.append((run.name, *settings, *values, _effect(run), _best(run), _defended(run)))
    # What no run has takes no column.
    kept = [place for place, _ in enumerate(rows[0]) if any(row[place] != "–" for row in rows[1:])]
    rows = [[row[place] for place in kept] for row in rows]
    lines = [f"{part.kind}: poisoned model, mean over tasks [95% interval]", *table.align(rows)]
    if part.means:
        heads = ("runs", *part.means_settings, *(name for _, name in part.measures))
        rows = [(*heads, "effect, points")]
        for group in part.means:
            settings = (
                comparison.shown(group.runs[0].setting(name), _SETTINGS_SHOWN)
                for name in part.means_settings
            )
            values = (_mean(group, measure) for measure, _ in part.measures)
            rows.append((str(len(group.runs)), *settings, *values, _mean_effect(group)))
        lines += ["", "means over seeds (lowest to highest)", *table.align(rows)]
    return "\n".join([*lines, *(f"note: {note}" for note in part.notes)])


def _part(kind: str, runs: list[comparison.Run]) -> Part:
    settings = comparison.differing(runs)
    groups = comparison.groups(runs, settings)
    pictures, notes = [compare_figures.runs(runs, kind)], []
    if len(runs) > compare_figures.MAX_RUNS:
        notes.append(f"The first {compare_figures.MAX_RUNS} of {len(runs)} runs are drawn.")
    for axis in comparison.numeric(runs):
        picture, note = compare_figures.against(runs, kind, axis)
        pictures += [picture] if picture else []
        notes += [note] if note else []
    notes += [f"{run.name}: {note}" for run in runs for note in run.notes]
    means = groups if len(groups) < len(runs) else []
    return Part(kind, runs, settings, means, pictures, notes)


def _words() -> dict[str, Any]:
    """What the template calls."""
    return {
        "shown": comparison.shown,
        "effect": _effect,
        "verdict": finding.verdict,
        "best": _best,
        "defended": _defended,
        "mean": _mean,
        "mean_effect": _mean_effect,
        "max_runs": compare_figures.MAX_RUNS,
    }


def _measure(run: comparison.Run, measure: str) -> str:
    found = run.results
    text = words.value(measure, found.measure("poisoned", measure))
    return f"{text} {words.interval(found.interval('poisoned', measure))}".rstrip()


def _effect(run: comparison.Run) -> str:
    found = run.results.effect
    if found is None:
        return "–"
    return f"{words.points(found.value)} {words.interval(found.ci95)}".rstrip()


def _best(run: comparison.Run) -> str:
    """The score with the highest average precision, in words."""
    best = run.detection and run.detection.best()
    if not best:
        return "–"
    text = (
        f"{best.name}: AUROC {words.decimal(best.auroc)}, average precision "
        f"{words.decimal(best.average_precision)}"
    )
    return text if run.detection.attack.worked else f"{text} (the attack failed)"


def _defended(run: comparison.Run) -> str:
    """Each defence's name, what the trigger still does, and what is left without it, in words."""
    (without, name), (measure, _), *_ = comparison.MEASURES[run.results.kind]
    said = [
        f"{one.name}: {words.value(measure, one.measure('defended', measure))} "
        f"({name.split(',')[0]} {words.value(without, one.measure('defended', without))})"
        for one in run.defenses
    ]
    return ", ".join(said) or "–"


def _mean(group: comparison.Group, measure: str) -> str:
    values = group.values("poisoned", measure)
    return _with_range(values, lambda value: words.value(measure, value))


def _mean_effect(group: comparison.Group) -> str:
    return _with_range(group.effects(), words.points)


def _with_range(values: Sequence[float], text: Callable[[float | None], str]) -> str:
    """A mean with the lowest and the highest value beside it."""
    if len(values) < 2:
        return text(values[0] if values else None)
    mean = text(sum(values) / len(values))
    return f"{mean} ({text(min(values))} to {text(max(values))})"


def _links(runs: Sequence[comparison.Run], folder: pathlib.Path) -> dict[str, str]:
    """Run -> its own page, as seen from the comparison's folder, where it is there."""
    pages = {run.name: run.folder / "report/index.html" for run in runs}
    return {
        name: urllib.parse.quote(pathlib.Path(os.path.relpath(path, folder)).as_posix())
        for name, path in pages.items()
        if path.is_file()
    }


def _record(part: Part, run: comparison.Run) -> dict[str, Any]:
    """One run as a flat record of numbers and settings."""
    record: dict[str, Any] = {"run": run.name, "kind": part.kind}
    record |= {name: run.setting(name) for name in part.settings}
    for model in results_lib.MODELS:
        for measure, _ in part.measures:
            bounds = drawing.ends(run.results.interval(model, measure))
            values = (run.results.measure(model, measure), *bounds)
            record |= zip(drawing.with_ends(f"{model}_{measure}"), values, strict=True)
    effect = run.results.effect or results_lib.Effect("")
    values = (effect.value, *drawing.ends(effect.ci95))
    record |= zip(drawing.with_ends("effect"), values, strict=True)
    best = run.detection and run.detection.best()
    if best:
        record |= {
            "best_detection": best.name,
            "best_detection_auroc": best.auroc,
            "best_detection_average_precision": best.average_precision,
            "best_detection_blind_f1": best.blind.f1,
        }
    for one in run.defenses:
        for measure, _ in part.measures:
            record[f"defended_{one.name}_{measure}"] = one.measure("defended", measure)
    return record


def _csv(parts: Sequence[Part]) -> drawing.Table:
    records = [_record(part, run) for part in parts for run in part.runs]
    columns = list(dict.fromkeys(name for record in records for name in record))
    return drawing.Table(columns, [[record.get(name) for name in columns] for record in records])


def _json(parts: Sequence[Part]) -> dict[str, Any]:
    """The comparison, schema 1: the runs as records, and which of them are means over seeds."""
    return {
        "schema": 1,
        "runs": [_record(part, run) for part in parts for run in part.runs],
        "means_over_seeds": [
            {
                "kind": part.kind,
                "runs": [run.name for run in group.runs],
                **{name: group.runs[0].setting(name) for name in part.means_settings},
                **{measure: group.mean("poisoned", measure) for measure, _ in part.measures},
                "effect": _average(group.effects()),
            }
            for part in parts
            for group in part.means
        ],
    }


def _average(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
