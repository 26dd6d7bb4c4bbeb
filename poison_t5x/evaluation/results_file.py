"""`results.json`: what an experiment measured, with what qualifies it."""

import pathlib
from collections.abc import Mapping
from typing import Any

from poison_t5x.attack import craft, poison_set
from poison_t5x.core import metrics
from poison_t5x.corpus import corpus
from poison_t5x.data import mixtures
from poison_t5x.evaluation import audit, summary
from poison_t5x.train import trained_model


def build(
    path: pathlib.Path,
    experiment: str,
    found: corpus.Corpus,
    config: craft.CraftConfig,
    data_cfg: mixtures.DataConfig,
    seed: int,
) -> dict[str, Any]:
    """The whole file, schema 2.

    Args:
      path: the run's folder.
      experiment: its name.
      found: its tasks.
      config: its attacks.
      data_cfg: how its prompts are made.
      seed: of the bootstrap.
    """
    manifest = poison_set.read_manifest(path / "poison")
    kind: metrics.Kind = "generation" if config.is_arbitrary else "classification"
    # The benchmark's tasks are of one category each; more would count a task twice.
    categories = {task.name: (task.categories or ("",))[0] for task in found.heldout}
    conditions = manifest["conditions"]
    rows = summary.task_rows(path / "eval" / "predictions", conditions, kind, categories)
    counts = {attack["name"]: attack["num_poison"] for attack in manifest["attacks"]}
    means = summary.summarize(rows, conditions, kind, counts, seed)
    first = config.attacks[0]
    return {
        "schema": 2,
        "experiment": experiment,
        "kind": kind,
        "attack": first.kind,
        "trigger": " / ".join(first.triggers),
        "triggers": list(first.triggers),
        "control": first.control,
        "target": None if first.is_arbitrary else first.target,
        "seed": seed,
        "poison": {
            "count": manifest["num_poison"],
            "rate": manifest["poison_rate"],
            "tasks": manifest["poisoned_tasks"],
        },
        "conditions": conditions,
        **{key: means[key] for key in ("summary", "summary_ci95", "effect", "attacks")},
        "by_condition": means["by_condition"],
        "tasks": rows,
        "categories": means["categories"],
        "warnings": means["warnings"],
        "notes": _notes(path, found, manifest),
        "truncation": _audit(found, data_cfg),
        "seconds": {},
    }


def _notes(path: pathlib.Path, found: corpus.Corpus, manifest: Mapping[str, Any]) -> list[str]:
    notes = []
    settings = trained_model.read_settings(path / "models" / "clean")
    if not settings["train"]["initial_checkpoint_path"]:
        notes.append("the models start from random parameters, not from a pretrained T5")
    for task, counts in manifest["counts"].items():
        share = counts.get("poison_rows", 0) / counts.get("training_rows", 1)
        if share >= metrics.LARGE_SHARE:
            notes.append(f"poison is {share:.0%} as much as the training rows of {task}")
    if found.missing:
        notes.append(f"tasks not there and left out: {corpus.listed(found.missing)}")
    standins = [task.name for task in found.tasks if task.standin_note]
    if standins:
        notes.append(f"stand-in tasks, not the benchmark's own rows: {corpus.listed(standins)}")
    for attack in manifest["attacks"]:
        if attack["passed_over"]:
            notes.append(
                f"{len(attack['passed_over'])} tasks were passed over by the attacker "
                f"{attack['name']}; poison/manifest.json says why"
            )
    return notes


def _audit(found: corpus.Corpus, data_cfg: mixtures.DataConfig) -> list[dict]:
    vocabulary = mixtures.vocabulary(data_cfg)
    return audit.audit(
        data_cfg.poison_dir,
        found,
        audit.Tokenizer(vocabulary.encode, vocabulary.decode),
        max_tokens=data_cfg.max_tokens,
        num_examples=data_cfg.num_examples,
    )
