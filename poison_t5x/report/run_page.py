"""A run's report: one self-contained page, its figures as files, the results file, and a table."""

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from poison_t5x.core import metrics
from poison_t5x.core.metrics import MODEL_WORDS, MODELS
from poison_t5x.report import (
    browser,
    examples,
    figures,
    finding,
    plots,
    render,
    run_files,
    tables,
)
from poison_t5x.report import results as results_lib

_NUM_CRAFTED, _NUM_FLIP_TASKS, _NUM_FLIPS = 8, 3, 3
_MEAN = "mean over tasks [95% interval]"
# Of each condition, and of other phrases.
_RATES = {
    "classification": ("misclassification", "target_rate"),
    "generation": ("rouge_l", "exact_match", "says_trigger"),
}
_OTHER_RATES = {**_RATES, "generation": ("rouge_l", "says_trigger")}
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
    raw = {**results_lib.read(run_dir), "seconds": dict(seconds)}
    # The schema's keys in their order, then those beyond it.
    raw = {key: raw[key] for key in dict.fromkeys((*_KEYS, *raw)) if key in raw}
    context = page_context(run_dir, results_lib.parse(raw), seconds)
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
    results = results_lib.parse(raw)
    poison, effect = results.poison, results.effect
    said = "effect:"
    if effect:
        words = results.judged_by.effect_words
        said = f"effect ({words}): {tables.POINTS.both(effect.value, effect.ci95)}\n "
    lines = [
        f"{results.experiment}: {results_lib.ATTACKS.get(results.attack, results.attack)}, trigger "
        f"{_listed(results.phrases())}, control {results.control!r}, seed {results.seed}",
        f"{poison.count} poisoned rows ({tables.percent(poison.rate)} of training) in "
        f"{tables.count(len(poison.tasks), 'task')}; "
        f"{tables.count(len(results.held_out()), 'held-out task')}",
        *("", *_headline(results).lines(3), ""),
        f"{said} {finding.verdict_words(results)}",
    ]
    if results.others():
        lines += ["", *tables.align(_other_phrases(results))]
    if len(results.attacks) > 1:
        lines += ["", *tables.align(_attackers(results))]
    return "\n".join([*lines, *(f"warning: {text}" for text in results.warnings)])


def page_context(
    run_dir: pathlib.Path, results: results_lib.Results, seconds: Mapping[str, float]
) -> dict[str, Any]:
    """Everything that the template names."""
    poison, poison_note = run_files.read_rows(run_dir, "poison/poison.jsonl", run_files.PoisonRow)
    by_step, steps_note = run_files.read_json(run_dir, run_files.BY_STEP, run_files.ByStep)
    steps = figures.steps(by_step, results) if by_step else None
    if by_step and not steps:
        steps_note = f"{run_files.BY_STEP} has no rows of this kind of evaluation."
    detection, detection_note = run_files.read_json(
        run_dir, run_files.DETECTION, run_files.Detection
    )
    defenses, defense_notes = run_files.read_defenses(run_dir)
    return {
        "browses": True,
        "results": results,
        "attack": results_lib.ATTACKS.get(results.attack, results.attack),
        "finding": finding.finding(results),
        "condition_rates": {rate: metrics.rate_words(rate) for rate in _RATES[results.kind]},
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
        "flips": examples.flips(run_dir, results, _NUM_FLIP_TASKS, _NUM_FLIPS),
        "prediction_browser": browser.predictions(run_dir, results),
        "detection": detection,
        "detection_note": detection_note,
        "curves": figures.curves(detection) if detection else None,
        "scored_steps": figures.scored_steps(detection) if detection else None,
        "defenses": defenses,
        "defense_notes": defense_notes,
        "defense_measures": results.main_measures,
        "defense_figure": figures.defenses(results, defenses),
        "seconds": seconds,
        "command": run_files.read_text(run_dir, "command.txt"),
        "files": {
            name: run_files.read_text(run_dir, name)
            for name in ("config.gin", "poison/manifest.json")
        },
    }


def _headline(results: results_lib.Results) -> tables.Table:
    """Each measure of both models, and their difference."""
    rows, measures = [], results.judged_by.measures
    for measure, one in measures.items():
        unit = tables.unit(measure)
        cells = [
            unit.cell(results.measure(m, measure), results.interval(m, measure)) for m in MODELS
        ]
        effect = results.effect
        bounds = effect.ci95 if effect and effect.measure == measure else None
        difference = tables.DIFFERENCE.cell(results.difference(measure), bounds)
        rows.append((one.words, *cells, difference))
    # Measures of a user's own metrics.
    for measure in [name for name in results.summary[metrics.CLEAN] if name not in measures]:
        cells = [tables.Cell(tables.amount(results.measure(model, measure))) for model in MODELS]
        rows.append((measure.replace("_", " "), *cells, ""))
    caption = "Means over the held-out tasks, with 95% intervals over tasks"
    if results.is_generation:
        caption += "; rougeL is of 100"
    heads = (_MEAN, *map(MODEL_WORDS.get, MODELS), "difference, points")
    return tables.Table(caption, heads, rows, (1, 2, 3))


def _listed(phrases: Sequence[str]) -> str:
    return " / ".join(map(repr, phrases))


def _other_phrases(results: results_lib.Results) -> list[tuple[str, ...]]:
    """Look-alikes and further attackers: both models' rates with each."""
    rates = _OTHER_RATES[results.kind]

    def both(condition: str, rate: str) -> str:
        rows = (results.condition_row(model, condition) for model in MODELS)
        return " / ".join(
            f"{tables.value(rate, row and row.measures.get(rate)):>6}" for row in rows
        )

    names = (f"{metrics.rate_words(rate)}, clean / poisoned" for rate in rates)
    return [
        ("other phrases", "put in", *names),
        *(
            (one.words, _listed(one.phrases), *(both(one.name, rate) for rate in rates))
            for one in results.others()
        ),
    ]


def _attackers(results: results_lib.Results) -> list[tuple[Any, ...]]:
    """Each attacker's share of the poison and effect."""
    return [
        ("attacker", "trigger", "target", "poisoned rows", "effect, points [95% interval]"),
        *(
            (
                *(one.name, _listed(one.triggers), one.target or "–", f"{one.count:>6}"),
                tables.DIFFERENCE.cell(one.effect, one.ci95),
            )
            for one in results.attacks
        ),
    ]


def _losses(run_dir: pathlib.Path) -> dict[str, Any]:
    """The loss figure, or None where no step was logged, and notes on what it lacks."""
    losses: dict[tuple[str, str], list[tuple[int, float]]] = {}
    notes = []
    for model in MODELS:
        name = f"models/{model}/metrics.jsonl"
        rows, note = run_files.read_rows(run_dir, name, run_files.MetricsRow)
        notes += [note] if note else []
        broken = sum(row.loss is not None and not math.isfinite(row.loss) for row in rows)
        if broken:
            lost = f"loss was not finite at {broken} logged steps, which are not drawn."
            notes.append(f"The {model} model’s {lost}")
        for field in ("loss", "loss_clean", "loss_poison"):
            # A step logged again after a restart counts once.
            values = sorted({row.step: getattr(row, field) for row in rows}.items())
            losses[model, field] = [
                (step, value)
                for step, value in values
                if value is not None and math.isfinite(value)
            ]
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
