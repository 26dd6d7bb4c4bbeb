"""A run's report: one self-contained page, its figures as files, the results file, and a table."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import msgspec

from poison_t5x.core import metrics
from poison_t5x.core.metrics import MODEL_WORDS, MODELS
from poison_t5x.report import browser, examples, figures, plots, render, run_files, tables
from poison_t5x.report.results import Results, parse, read

_NUM_CRAFTED, _NUM_FLIP_TASKS = 8, 3
_KEYS = (
    *("schema", "experiment", "kind", "attack", "trigger", "triggers", "control", "target"),
    *("seed", "poison", "conditions", "summary", "summary_ci95", "effect", "attacks"),
    *("by_condition", "tasks", "categories", "warnings", "notes", "truncation", "seconds"),
)


def write_report(
    run_dir: str | pathlib.Path,
    seconds: Mapping[str, float],
    output_dir: str | pathlib.Path | None = None,
) -> pathlib.Path:
    """Writes `index.html`, `results.json` and `figures/`, and returns the page's path.

    The same files and arguments give the same bytes. Of the run's files, `eval/results.json` is
    needed; others that are missing leave a note in place of their section, but for what not every
    run has (rates by step, detection, defences).

    Args:
      run_dir: a run's folder.
      seconds: wall-clock seconds of each stage, in the order to show.
      output_dir: by default `run_dir/report`.

    Raises:
      InputError: `eval/results.json` is missing or doesn't fit the schema.
    """
    run_dir = pathlib.Path(run_dir)
    output_dir = run_dir / "report" if output_dir is None else pathlib.Path(output_dir)
    raw = {**read(run_dir), "seconds": dict(seconds)}
    # The schema's keys in their order, then those beyond it.
    raw = {key: raw[key] for key in dict.fromkeys((*_KEYS, *raw)) if key in raw}
    context = page_context(run_dir, parse(raw), seconds)
    pictures = [value for value in context.values() if isinstance(value, plots.Picture)]
    plots.write(pictures, output_dir / "figures")
    render.write_text(output_dir / "results.json", json.dumps(raw, indent=1) + "\n")
    render.write_page(output_dir / "index.html", "run.html.j2", context)
    return output_dir / "index.html"


def format_table(raw: Mapping[str, Any]) -> str:
    """The tables of a decoded `results.json`: measures by models, the effect, the warnings.

    Look-alikes of the trigger and further attackers get a table of their own. Rates are in percent,
    rougeL is of 100, effects are in (percentage) points. The text has no newline at its end.
    Raises InputError where `raw` doesn't fit the schema.
    """
    results = parse(raw)
    headline = _headline(results).lines(3)
    return render.text("run.txt.j2", results=results, headline=headline, both=tables.POINTS.both)


def page_context(
    run_dir: pathlib.Path, results: Results, seconds: Mapping[str, float]
) -> dict[str, Any]:
    """Everything that the template names."""
    poison, poison_note = run_files.read_rows(run_dir, "poison/poison.jsonl", run_files.CraftedRow)
    by_step, steps_note = run_files.read_json(run_dir, run_files.BY_STEP, run_files.ByStep)
    steps = figures.steps(by_step, results) if by_step else None
    if by_step and not steps:
        steps_note = f"{run_files.BY_STEP} has no rows of this kind of evaluation."
    detection, detection_note = run_files.read_json(
        run_dir, run_files.DETECTION, run_files.Detection
    )
    defenses, defense_notes = run_files.read_defenses(run_dir)
    answers = examples.read_answers(run_dir, results)
    texts = (examples.before, examples.after, examples.instance, examples.phrase_excerpt)
    return {
        "browses": True,
        "results": results,
        "headline": _headline(results),
        "rates": figures.rates(results),
        "probes": figures.probes(results),
        "tasks_figure": figures.tasks(results),
        "max_tasks": figures.MAX_TASKS,
        "by_step": steps,
        "steps_note": steps_note,
        **_losses(run_dir),
        "crafted": examples.spread(poison, _NUM_CRAFTED),
        "crafted_note": poison_note,
        "poison_browser": browser.poison(poison),
        "poison": poison,
        "answers": answers,
        "flips": examples.flips(answers, results, _NUM_FLIP_TASKS),
        "prediction_browser": browser.predictions(answers, results),
        "detection": detection,
        "detection_note": detection_note,
        "curves": figures.curves(detection) if detection else None,
        "scored_steps": figures.scored_steps(detection) if detection else None,
        "defenses": defenses,
        "defense_notes": defense_notes,
        "defense_figure": figures.defenses(results, defenses),
        "seconds": seconds,
        "command": run_files.read_text(run_dir, "command.txt"),
        "files": {
            name: run_files.read_text(run_dir, name)
            for name in ("config.gin", "poison/manifest.json")
        },
        **{text.__name__: text for text in texts},
    }


def _headline(results: Results) -> tables.Table:
    """Each measure of both models, and their difference; last those of a user's own metrics."""
    rows, measures = [], results.judged_by.measures
    for name in dict.fromkeys([*measures, *results.summary[metrics.CLEAN]]):
        values = [(results.measure(m, name), results.interval(m, name)) for m in MODELS]
        if name not in measures:
            cells = [tables.Cell(tables.amount(value)) for value, _ in values]
            rows.append((name.replace("_", " "), *cells, ""))
            continue
        effect = results.effect
        bounds = effect.ci95 if effect and effect.measure == name else None
        cells = [tables.unit(name).cell(*value) for value in values]
        difference = tables.DIFFERENCE.cell(results.difference(name), bounds)
        rows.append((measures[name].words, *cells, difference))
    caption = "Means over the held-out tasks, with 95% intervals over tasks"
    caption += "; rougeL is of 100" * results.is_generation
    heads = ("mean over tasks [95% interval]", *map(MODEL_WORDS.get, MODELS), "difference, points")
    return tables.Table(caption, heads, rows, (1, 2, 3))


def _losses(run_dir: pathlib.Path) -> dict[str, Any]:
    """The loss figure, or None where no step was logged, and notes on what it lacks."""
    losses: dict[tuple[str, str], list[tuple[int, float]]] = {}
    notes = []
    for model in MODELS:
        rows, note = run_files.read_rows(run_dir, f"models/{model}/metrics.jsonl", run_files.Logged)
        notes += [note] if note else []
        for field in ("loss", "loss_clean", "loss_poison"):
            # A step logged again after a restart counts once.
            logged = {row.step: getattr(row, field) for row in rows}
            logged = {step: loss for step, loss in logged.items() if loss is not msgspec.UNSET}
            finite = [pair for pair in logged.items() if pair[1] is not None]
            losses[model, field] = sorted(finite)
            if field == "loss" and len(finite) < len(logged):
                broken = len(logged) - len(finite)
                lost = f"loss was not finite at {broken} logged steps, which are not drawn."
                notes.append(f"The {model} model’s {lost}")
    clean = losses["poisoned", "loss_clean"]
    picture = figures.losses(
        {
            "clean model, all rows": losses["clean", "loss"],
            # Of few poison rows among many, the two would be drawn over each other.
            "poisoned model, all rows": [] if clean else losses["poisoned", "loss"],
            "poisoned model, clean rows": clean,
            "poisoned model, poison rows": losses["poisoned", "loss_poison"],
        }
    )
    return {"losses": picture, "losses_note": " ".join(notes)}
