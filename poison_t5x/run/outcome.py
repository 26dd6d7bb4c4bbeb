"""What a defence achieved: the file defense.json, and the tables that the commands print."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from poison_t5x.attack import poison_set
from poison_t5x.checkpoint_io import architecture
from poison_t5x.core import artifacts, metrics
from poison_t5x.defenses import detection
from poison_t5x.evaluation import summary
from poison_t5x.report import tables
from poison_t5x.run import experiment
from poison_t5x.train import trained_model

SCHEMA = 1
# What a model follows from, beside its data; a defended one may differ in these.
_CAPACITY = ("model", "train", "optimizer", "schedule", "loss", "dataset")
# Of the data, whose mixture is the filter's to say.
_NOT_CAPACITY = ("mixture_or_task_name", "module", "split", "use_cached")
_SETTINGS = {
    **architecture.MACROS,
    "total_steps": "TRAIN_STEPS",
    "base_learning_rate": "LEARNING_RATE",
    "dropout_rate": "DROPOUT_RATE",
    "batch_size": "BATCH_SIZE",
}


def defended(
    run: experiment.Run,
    name: str,
    folder: pathlib.Path,
    results: Mapping[str, Any],
    filtered: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """defense.json, schema 1: the clean, the poisoned and the defended model side by side.

    Args:
      run: that is defended.
      name: of the defended model.
      folder: with its model and predictions.
      results: the run's own.
      filtered: what was removed; None for nothing.
    """
    manifest = poison_set.read_manifest(run.path / "poison")
    kind: metrics.Kind = "generation" if run.craft_cfg.is_arbitrary else "classification"
    rows = summary.task_rows(
        run.path / "eval" / "predictions",
        manifest["conditions"],
        kind,
        {},
        poisoned=folder / "predictions",
    )
    found = summary.summarize(rows, manifest["conditions"], kind, {}, run.seed)
    record = artifacts.read_record(folder / "model")
    assert record is not None
    return {
        "schema": SCHEMA,
        "name": name,
        "filter": filtered,
        "capacity": capacity(
            trained_model.read_settings(run.path / "models" / "poisoned"),
            trained_model.read_settings(folder / "model"),
        ),
        "seconds": record["seconds"],
        "attack_worked": detection.attack(results)["worked"],
        "summary": {
            **results["summary"],
            "defended": found["summary"]["poisoned"],
        },
        "summary_ci95": {
            **results["summary_ci95"],
            "defended": found["summary_ci95"]["poisoned"],
        },
        "effect": found["effect"],
    }


def capacity(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Settings in which two models differ, but for their data: macro -> [first, second]."""
    changed = {}
    for part in _CAPACITY:
        for key in before[part].keys() - set(_NOT_CAPACITY):
            old, new = before[part][key], after[part].get(key)
            if json.dumps(old) != json.dumps(new):
                changed[_SETTINGS.get(key, f"{part}.{key}")] = [old, new]
    return dict(sorted(changed.items()))


def detection_table(whole: Mapping[str, Any]) -> str:
    """The scores, best average precision first, as lines of text."""
    attack = whole["attack"]
    effect = "–" if attack["effect"] is None else f"{100 * attack['effect']:+.1f} points"
    lines = [
        f"{whole['num_poison']} poison rows of {whole['num_rows']} "
        f"({whole['poison_rate']:.2%}); the attack's effect on {attack['measure']}: {effect}"
    ]
    if not attack["worked"]:
        lines.append(
            "the attack failed, or can't be judged: finding its rows says nothing about a defence"
        )
    cells = [
        ("score", "AUROC", "AP", "found in 1%", "5%", "10%", "F1", "seconds", "first phrase named")
    ]
    for line in sorted(whole["scores"], key=lambda line: -line["average_precision"]):
        phrase = line["triggers"][0]["phrase"] if line["triggers"] else ""
        cells.append(
            (
                line["name"],
                f"{line['auroc']:.3f}",
                f"{line['average_precision']:.3f}",
                *(f"{line['recall'][budget]:.0%}" for budget in ("0.01", "0.05", "0.1")),
                f"{line['threshold']['f1']:.2f}",
                f"{line['seconds']:.1f}",
                phrase,
            )
        )
    return "\n".join([*lines, *tables.align(cells)])


def defense_table(whole: Mapping[str, Any]) -> str:
    """The three models, as lines of text."""
    lines = []
    if whole["filter"]:
        lines.append(
            "removed {removed} rows ({removed_fraction:.1%}) by {score}, with {poison_removed:.0%} "
            "of the poison".format(**whole["filter"])
        )
    if not whole["attack_worked"]:
        lines.append("the attack failed, or can't be judged: this shows nothing about the defence")
    measures = [name for name in whole["summary"]["clean"]]
    cells = [("", *measures)]
    for model in ("clean", "poisoned", "defended"):
        values = (whole["summary"][model].get(name) for name in measures)
        cells.append((model, *("–" if v is None else f"{100 * v:.1f}" for v in values)))
    return "\n".join([*lines, *tables.align(cells)])
