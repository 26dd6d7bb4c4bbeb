"""What a defence achieved: the file defense.json, and the tables that the commands print."""

import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from poison_t5x.checkpoint_io import architecture
from poison_t5x.core import artifacts
from poison_t5x.core.metrics import CLEAN, DEFENDED, MODELS, POISONED
from poison_t5x.defenses import detection
from poison_t5x.evaluation import results_file
from poison_t5x.report import tables
from poison_t5x.run import experiment
from poison_t5x.train import trained_model

SCHEMA = 1
# Parts of a model's settings, beside its data, in which a defended one may differ.
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
    folder: epath.Path,
    results: Mapping[str, Any],
    filtered: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """defense.json, schema 1: the clean, the poisoned and the defended model side by side.

    Args:
      run: that is defended.
      name: of the defended model.
      folder: with its model and predictions.
      results: the run's own.
      filtered: facts of what was removed; None for nothing.
    """
    _, means = results_file.measured(
        run.path,
        run.path / "eval" / "predictions",
        run.kind,
        run.seed,
        poisoned=folder / "predictions",
    )
    record = artifacts.read_record(folder / "model")
    assert record is not None
    return {
        "schema": SCHEMA,
        "name": name,
        "filter": filtered,
        "capacity": capacity(
            trained_model.read_settings(run.path / "models" / POISONED),
            trained_model.read_settings(folder / "model"),
        ),
        "seconds": record["seconds"],
        "attack_worked": detection.attack(results)["worked"],
        **{
            key: {**results[key], DEFENDED: means[key][POISONED]}
            for key in ("summary", "summary_ci95")
        },
        "effect": means["effect"],
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
    lines = [
        f"{whole['num_poison']} poison rows of {whole['num_rows']} "
        f"({whole['poison_rate']:.2%}); the attack's effect on {attack['measure']}: "
        f"{tables.POINTS.say(attack['effect'])}"
    ]
    if not attack["worked"]:
        lines.append(
            "the attack failed, or can't be judged: finding its rows says nothing about a defence"
        )
    cells = [
        ("score", "AUROC", "AP", "found in 1%", "5%", "10%", "F1", "seconds", "first phrase named")
    ]
    for line in sorted(whole["scores"], key=lambda line: -line["average_precision"]):
        cells.append(
            (
                line["name"],
                *(tables.DECIMAL.say(line[name]) for name in ("auroc", "average_precision")),
                *(f"{line['recall'][budget]:.0%}" for budget in ("0.01", "0.05", "0.1")),
                f"{line['threshold']['f1']:.2f}",
                f"{line['seconds']:.1f}",
                line["triggers"][0]["phrase"] if line["triggers"] else "",
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
    summary = whole["summary"]
    cells = [("", *summary[CLEAN])]
    for model in (*MODELS, DEFENDED):
        values = (summary[model].get(name) for name in summary[CLEAN])
        cells.append((model, *map(tables.SCORE.say, values)))
    return "\n".join([*lines, *tables.align(cells)])
