"""What the page shows of a run folder: its sections' names, figures, rows and notes."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

from poison_t5x.report import (
    browse,
    defenses,
    detection,
    drawing,
    examples,
    figures,
    finding,
    run_files,
    steps,
    words,
)
from poison_t5x.report import results as results_lib

_NUM_CRAFTED = 8
_NUM_FLIP_TASKS = 3
_NUM_FLIPS = 3
# Columns of the detection's tables.
_RECALLS = ("0.01", "0.05", "0.1")
_PRICES = ("0.5", "0.8", "0.9")


def context(
    run_dir: pathlib.Path, results: results_lib.Results, seconds: Mapping[str, float]
) -> dict[str, Any]:
    """Everything that the template names, but for the script."""
    found = {
        **_by_step(run_dir, results),
        **_detection(run_dir),
        **_defenses(run_dir, results),
    }
    return {
        "results": results,
        "attack": words.ATTACKS[results.attack],
        "sections": _sections(results, found),
        "finding": finding.finding(results),
        "models": results_lib.MODELS,
        "main_conditions": results_lib.CONDITIONS,
        "condition_names": words.CONDITIONS,
        "condition_measures": words.CONDITION_MEASURES[results.kind],
        "measures": words.MEASURES[results.kind],
        "saturated": results.judged_by.saturation_limit,
        "categories": list(dict.fromkeys(row.category for row in results.categories)),
        "rates": figures.rates(results),
        "probes": figures.probes(results) if results.probes() else None,
        "tasks_figure": figures.tasks(results),
        "max_tasks": figures.MAX_TASKS,
        **_losses(run_dir),
        **_crafted(run_dir),
        "flips": examples.flips(run_dir, results, _NUM_FLIP_TASKS, _NUM_FLIPS),
        "prediction_browser": browse.predictions(run_dir, results),
        **found,
        "seconds": seconds,
        "command": run_files.read_text(run_dir, "command.txt"),
        "files": {
            name: run_files.read_text(run_dir, name)
            for name in ("config.gin", "poison/manifest.json")
        },
    }


def pictures(found: Mapping[str, Any]) -> list[drawing.Picture]:
    """The figures of a context."""
    return [value for value in found.values() if isinstance(value, drawing.Picture)]


def _sections(results: results_lib.Results, found: Mapping[str, Any]) -> dict[str, str]:
    """The page's sections, as they are linked to: id -> name."""
    return {
        "run": "The run",
        "rates": "Rates",
        **({"conditions": "Conditions"} if results.by_condition else {}),
        "tasks": "Tasks",
        **({"categories": "Categories"} if results.categories else {}),
        **({"steps": "By step"} if found["steps"] or found["steps_note"] else {}),
        "losses": "Training loss",
        "poison": "Poison",
        "flips": "Changed answers" if results.is_generation else "Flipped predictions",
        **({"detection": "Detection"} if found["detection"] or found["detection_note"] else {}),
        **({"defenses": "Defences"} if found["defenses"] or found["defense_notes"] else {}),
        "truncation": "Truncation",
        "warnings": "Warnings",
        "seconds": "Time",
        "files": "Configuration",
    }


def _by_step(run_dir: pathlib.Path, results: results_lib.Results) -> dict[str, Any]:
    found, note = steps.read(run_dir)
    picture = steps.figure(found, results.kind) if found else None
    if found and not picture:
        note = f"{steps.FILE} has no rows of this kind of evaluation."
    return {"steps": picture, "steps_note": note}


def _detection(run_dir: pathlib.Path) -> dict[str, Any]:
    found, note = detection.read(run_dir)
    return {
        "detection": found,
        "detection_note": note,
        "curves": detection.curves(found) if found else None,
        "by_checkpoint": detection.checkpoints(found) if found else None,
        "recalls": _RECALLS,
        "prices": _PRICES,
    }


def _defenses(run_dir: pathlib.Path, results: results_lib.Results) -> dict[str, Any]:
    found, notes = defenses.read(run_dir)
    return {
        "defenses": found,
        "defense_notes": notes,
        "defense_measures": defenses.MEASURES[results.kind],
        "defense_figure": defenses.figure(results, found),
    }


def _crafted(run_dir: pathlib.Path) -> dict[str, Any]:
    poison, note = run_files.read_rows(run_dir, "poison/poison.jsonl", run_files.PoisonRow)
    return {
        "crafted": examples.spread(poison, _NUM_CRAFTED),
        "num_crafted": len(poison),
        "crafted_note": note,
        "poison_browser": browse.poison(poison),
        "has_phi": any(row.phi is not None for row in poison),
        "several_attackers": len({row.attack for row in poison}) > 1,
    }


def _losses(run_dir: pathlib.Path) -> dict[str, Any]:
    """The loss figure, or None where no step was logged, and notes on what it lacks."""
    rows, notes = {}, []
    for model in results_lib.MODELS:
        name = f"models/{model}/metrics.jsonl"
        rows[model], note = run_files.read_rows(run_dir, name, run_files.MetricsRow)
        notes += [note] if note else []
    whole, clean = (_points(rows["poisoned"], name) for name in ("loss", "loss_clean"))
    curves = {
        "clean model, all rows": _points(rows["clean"], "loss"),
        # Of few poison rows among many, the two would be drawn over each other.
        **({"poisoned model, clean rows": clean} if clean else {"poisoned model, all rows": whole}),
        "poisoned model, poison rows": _points(rows["poisoned"], "loss_poison"),
    }
    losses = figures.losses(curves) if any(curves.values()) else None
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
