"""The report: one self-contained page and the results file, from the files of a run folder."""

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jinja2
import markupsafe

from poison_t5x.report import examples, figures, finding, run_files, words
from poison_t5x.report import results as results_lib

_NUM_CRAFTED = 8
_NUM_FLIP_TASKS = 3
_NUM_FLIPS = 3


def write_report(
    run_dir: str | pathlib.Path,
    seconds: Mapping[str, float],
    output_dir: str | pathlib.Path | None = None,
) -> pathlib.Path:
    """Writes `index.html` and `results.json` and returns the page's path.

    The same files and arguments give the same bytes. Files of the run that are missing leave out
    their section of the page, with a note in its place.

    Args:
      run_dir: a run folder with `eval/results.json`; the other files are optional.
      seconds: wall-clock seconds of each stage, by its name, in the order to show.
      output_dir: where to write, created if need be; by default `run_dir/report`.

    Raises:
      InputError: `eval/results.json` is missing or doesn't fit the schema.
    """
    run_dir = pathlib.Path(run_dir)
    output_dir = run_dir / "report" if output_dir is None else pathlib.Path(output_dir)
    raw = results_lib.with_seconds(results_lib.read(run_dir), seconds)
    page = _render(_context(run_dir, results_lib.parse(raw), seconds))
    output_dir.mkdir(parents=True, exist_ok=True)
    _write(output_dir / "results.json", json.dumps(raw, indent=1) + "\n")
    _write(output_dir / "index.html", page)
    return output_dir / "index.html"


def _write(path: pathlib.Path, text: str) -> None:
    # A lone surrogate, which JSON allows and UTF-8 doesn't, becomes a question mark.
    path.write_bytes(text.encode("utf-8", errors="replace"))


def _render(context: Mapping[str, Any]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("poison_t5x.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        condition_name=words.condition,
        difference=words.difference,
        duration=words.duration,
        heading=words.heading,
        interval=words.interval,
        percent=words.percent,
        points=words.points,
        value=lambda number, measure: words.value(measure, number),
    )
    return environment.get_template("template.html.j2").render(context)


def _context(
    run_dir: pathlib.Path, results: results_lib.Results, seconds: Mapping[str, float]
) -> dict[str, Any]:
    return {
        "results": results,
        "attack": words.ATTACKS[results.attack],
        "sections": _sections(results),
        "finding": finding.finding(results),
        "models": results_lib.MODELS,
        "main_conditions": results_lib.CONDITIONS,
        "condition_names": words.CONDITIONS,
        "condition_measures": words.CONDITION_MEASURES[results.kind],
        "measures": words.MEASURES[results.kind],
        "saturated": results_lib.SATURATED[results.kind],
        "categories": list(dict.fromkeys(row.category for row in results.categories)),
        "rates": _safe(figures.rates(results)),
        "probes": _safe(figures.probes(results)) if results.probes() else None,
        **_losses(run_dir),
        **_crafted(run_dir),
        "flips": examples.flips(run_dir, results, _NUM_FLIP_TASKS, _NUM_FLIPS),
        "seconds": seconds,
        "command": run_files.read_text(run_dir, "command.txt"),
        "files": {
            name: run_files.read_text(run_dir, name)
            for name in ("config.gin", "poison/manifest.json")
        },
    }


def _sections(results: results_lib.Results) -> dict[str, str]:
    """The page's sections, as they are linked to: id -> name."""
    return {
        "run": "The run",
        "rates": "Rates",
        **({"conditions": "Conditions"} if results.by_condition else {}),
        "tasks": "Tasks",
        **({"categories": "Categories"} if results.categories else {}),
        "losses": "Training loss",
        "poison": "Poison",
        "flips": "Changed answers" if results.is_generation else "Flipped predictions",
        "truncation": "Truncation",
        "warnings": "Warnings",
        "seconds": "Time",
        "files": "Configuration",
    }


def _crafted(run_dir: pathlib.Path) -> dict[str, Any]:
    poison, note = run_files.read_rows(run_dir, "poison/poison.jsonl", run_files.PoisonRow)
    return {
        "crafted": examples.spread(poison, _NUM_CRAFTED),
        "num_crafted": len(poison),
        "crafted_note": note,
        "has_phi": any(row.phi is not None for row in poison),
        "several_attackers": len({row.attack for row in poison}) > 1,
    }


def _safe(picture: figures.Picture) -> figures.Picture:
    # What a figure draws of a run, its phrases, is escaped as it is drawn.
    return picture._replace(svg=markupsafe.Markup(picture.svg))


def _losses(run_dir: pathlib.Path) -> dict[str, Any]:
    """The loss figure, or None where no step was logged, and notes on what it lacks."""
    rows, notes = {}, []
    for model in results_lib.MODELS:
        name = f"models/{model}/metrics.jsonl"
        rows[model], note = run_files.read_rows(run_dir, name, run_files.MetricsRow)
        notes += [note] if note else []
    curves = {
        "clean model, all rows": _points(rows["clean"], "loss"),
        "poisoned model, all rows": _points(rows["poisoned"], "loss"),
        "poisoned model, poison rows": _points(rows["poisoned"], "loss_poison"),
    }
    losses = _safe(figures.losses(curves)) if any(curves.values()) else None
    return {"losses": losses, "losses_note": " ".join([*notes, *_broken(rows)])}


def _points(rows: list[run_files.MetricsRow], field: str) -> list[figures.Point]:
    """The finite values of a field by step; a step logged again after a restart counts once."""
    values = {row.step: getattr(row, field) for row in rows}
    return [
        (step, value)
        for step, value in sorted(values.items())
        if value is not None and math.isfinite(value)
    ]


def _broken(rows: Mapping[str, list[run_files.MetricsRow]]) -> list[str]:
    """A note for each model whose loss was not finite at some step."""
    losses = {model: [row.loss for row in rows[model] if row.loss is not None] for model in rows}
    counts = {model: sum(not math.isfinite(loss) for loss in losses[model]) for model in losses}
    return [
        f"The {model} model’s loss was not finite at {count} logged steps, which are not drawn."
        for model, count in counts.items()
        if count
    ]
