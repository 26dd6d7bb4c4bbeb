"""`results.json`, what an experiment measured with what qualifies it, and `checkpoints.json`."""

import pathlib
from collections.abc import Mapping
from typing import Any

import msgspec
import seqio

from poison_t5x.attack import craft, poison_set
from poison_t5x.core import metrics
from poison_t5x.core.metrics import Kind
from poison_t5x.corpus import corpus
from poison_t5x.data import mixtures
from poison_t5x.evaluation import evaluate, summary
from poison_t5x.train import trained_model

SCHEMA, CHECKPOINTS_SCHEMA = 2, 1
# Of the models' means, all that checkpoints.json has of them, too.
_MEANS = ("summary", "summary_ci95", "effect")


def build(
    path: pathlib.Path,
    experiment: str,
    tasks: corpus.Corpus,
    config: craft.CraftConfig,
    data_cfg: mixtures.DataConfig,
    seed: int,
) -> dict[str, Any]:
    """The whole results file of a run's folder, whose experiment has these tasks and attacks.

    `data_cfg` is of its prompts, `seed` of the bootstrap.
    """
    manifest, first = poison_set.read_manifest(path / "poison"), config.attacks[0]
    # The benchmark's tasks are of one category each; more would count a task twice.
    categories = {task.name: (task.categories or ("",))[0] for task in tasks.heldout}
    counts = {attack.name: attack.num_poison for attack in manifest.attacks}
    kind: Kind = "generation" if config.is_arbitrary else "classification"
    folders = {model: path / "eval" / "predictions" / model for model in metrics.MODELS}
    rows, means = measured(path, folders, kind, seed, categories, counts)
    return {
        "schema": SCHEMA,
        "experiment": experiment,
        "kind": kind,
        "attack": first.kind,
        "trigger": " / ".join(first.triggers),
        "triggers": list(first.triggers),
        "control": first.control,
        "target": None if first.is_arbitrary else first.target,
        "seed": seed,
        "poison": {
            "count": manifest.num_poison,
            "rate": manifest.poison_rate,
            "tasks": manifest.poisoned_tasks,
        },
        # With their keys in the manifest's order.
        "conditions": msgspec.to_builtins(manifest.conditions, order="sorted"),
        **{key: means[key] for key in (*_MEANS, "attacks", "by_condition")},
        "tasks": rows,
        "categories": means["categories"],
        "warnings": means["warnings"],
        "notes": _notes(path, tasks, manifest),
        "truncation": truncation(data_cfg, tasks, mixtures.vocabulary(data_cfg)),
        "seconds": {},
    }


def measured(
    path: pathlib.Path,
    folders: Mapping[str, pathlib.Path],
    kind: Kind,
    seed: int,
    categories: Mapping[str, str] | None = None,
    counts: Mapping[str, int] | None = None,
) -> tuple[list[dict], dict[str, Any]]:
    """`summary.task_rows` of predictions, model -> folder, in a run, and `summarize` of them."""
    conditions = poison_set.read_conditions(path / "poison")
    rows = summary.task_rows(folders, conditions, kind, categories)
    return rows, summary.summarize(rows, conditions, kind, seed, counts)


def checkpoints(
    path: pathlib.Path, folders: Mapping[int, pathlib.Path], kind: Kind, seed: int
) -> dict[str, Any]:
    """checkpoints.json: step by step, as results.json has it of the finished models.

    Args:
      folders: step -> both models' predictions.
    """
    entries = []
    for step, folder in sorted(folders.items()):
        models = {model: folder / model for model in metrics.MODELS}
        rows, means = measured(path, models, kind, seed)
        entries.append({"step": step, **{key: means[key] for key in _MEANS}, "tasks": rows})
    return {"schema": CHECKPOINTS_SCHEMA, "checkpoints": entries}


def _notes(path: pathlib.Path, tasks: corpus.Corpus, manifest: poison_set.Manifest) -> list[str]:
    notes = []
    settings = trained_model.read_settings(path / "models" / metrics.CLEAN)
    if not settings["train"]["initial_checkpoint_path"]:
        notes.append("the models start from random parameters, not from a pretrained T5")
    for task, counts in manifest.counts.items():
        share = counts.get("poison_rows", 0) / counts.get("training_rows", 1)
        if share >= metrics.LARGE_SHARE:
            notes.append(f"poison is {share:.0%} as much as the training rows of {task}")
    if tasks.missing:
        notes.append(f"tasks not there and left out: {corpus.listed(tasks.missing)}")
    standins = [task.name for task in tasks.tasks if task.standin_note]
    if standins:
        notes.append(f"stand-in tasks, not the benchmark's own rows: {corpus.listed(standins)}")
    for attack in manifest.attacks:
        if attack.passed_over:
            notes.append(
                f"{len(attack.passed_over)} tasks were passed over by the attacker "
                f"{attack.name}; poison/manifest.json says why"
            )
    return notes


def truncation(
    config: mixtures.DataConfig, tasks: corpus.Corpus, vocabulary: seqio.Vocabulary
) -> list[dict]:
    """Rows that lose their phrase by truncation, which a rate over them wouldn't show.

    Returns:
      [{'where': 'training' or an edited condition, 'rows': int, 'trigger_lost': int}, …].
    """
    edited = [
        ("training", row.task, row.poisoned_input, row.trigger)
        for row in poison_set.read_poison(config.poison_dir)
    ]
    for row in poison_set.read_evaluation(config.poison_dir):
        if row.phrase:
            edited.append((row.condition, row.task, row.input, row.phrase))
    by_name = {task.name: task for task in tasks.tasks}
    lost: dict[str, list[bool]] = {"training": []}
    for where, task, text, phrase in edited:
        prompt = evaluate.prompt(by_name[task], text, vocabulary, config)
        survived = survives(prompt, phrase, vocabulary, config.max_tokens)
        lost.setdefault(where, []).append(not survived)
    return [
        {"where": where, "rows": len(flags), "trigger_lost": sum(flags)}
        for where, flags in lost.items()
    ]


def survives(
    prompt: str, phrase: str, vocabulary: seqio.Vocabulary, max_tokens: int | None
) -> bool:
    """Whether a phrase is still in a prompt that is cut to `max_tokens`, EOS included."""
    tokens = vocabulary.encode(prompt)
    if max_tokens is None or len(tokens) < max_tokens:
        return True
    # Both through the tokeniser, which folds white space and some letters.
    folded = vocabulary.decode(vocabulary.encode(phrase))
    return folded in vocabulary.decode(tokens[: max_tokens - 1])
