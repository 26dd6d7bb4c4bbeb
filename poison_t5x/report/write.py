"""The report: one self-contained page and the results file, from the files of a run folder."""

import importlib.resources
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jinja2
import markupsafe

from poison_t5x.report import examples, figures, run_files, table, words
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
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        percent=words.percent,
        points=words.points,
        interval=words.interval,
        duration=words.duration,
    )
    template = importlib.resources.files("poison_t5x.report") / "template.html.j2"
    return environment.from_string(template.read_text(encoding="utf-8")).render(context)


def _context(
    run_dir: pathlib.Path, results: results_lib.Results, seconds: Mapping[str, float]
) -> dict[str, Any]:
    poison, poison_note = run_files.read_rows(run_dir, "poison/poison.jsonl", run_files.PoisonRow)
    return {
        "results": results,
        "finding": words.finding(results),
        "measures": table.MEASURES,
        "rates": _safe(figures.rates(results)),
        **_losses(run_dir),
        "crafted": examples.spread(poison, _NUM_CRAFTED),
        "num_crafted": len(poison),
        "crafted_note": poison_note,
        "flips": examples.flips(run_dir, results, _NUM_FLIP_TASKS, _NUM_FLIPS),
        "models": results_lib.MODELS,
        "conditions": results_lib.CONDITIONS,
        "saturated_rate": results_lib.SATURATED,
        "seconds": seconds,
        "command": run_files.read_text(run_dir, "command.txt"),
        "files": {
            name: run_files.read_text(run_dir, name)
            for name in ("config.gin", "poison/manifest.json")
        },
    }


def _safe(picture: figures.Picture) -> figures.Picture:
    # All text of a figure is our own: no trigger, task or file name is drawn.
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
