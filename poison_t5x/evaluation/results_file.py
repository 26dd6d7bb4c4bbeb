"""`results.json`, what an experiment measured with what qualifies it, and `checkpoints.json`."""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import seqio

from poison_t5x.attack import craft, poison_set
from poison_t5x.core import metrics
from poison_t5x.core.metrics import Kind
from poison_t5x.corpus import corpus, prompts
from poison_t5x.data import mixtures
from poison_t5x.evaluation import summary
from poison_t5x.train import trained_model

SCHEMA, CHECKPOINTS_SCHEMA = 2, 1


def build(
    path: pathlib.Path,
    experiment: str,
    tasks: corpus.Corpus,
    config: craft.CraftConfig,
    data_cfg: mixtures.DataConfig,
    seed: int,
) -> dict[str, Any]:
    """The whole results file.

    Args:
      path: the run's folder.
      experiment: its name.
      tasks: of the experiment.
      config: its attacks.
      data_cfg: how its prompts are made.
      seed: of the bootstrap.
    """
    manifest = poison_set.read_manifest(path / "poison")
    # The benchmark's tasks are of one category each; more would count a task twice.
    categories = {task.name: (task.categories or ("",))[0] for task in tasks.heldout}
    counts = {attack["name"]: attack["num_poison"] for attack in manifest["attacks"]}
    kind: Kind = "generation" if config.is_arbitrary else "classification"
    folder = path / "eval" / "predictions"
    rows, means = measured(path, folder, kind, seed, categories=categories, counts=counts)
    first = config.attacks[0]
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
            "count": manifest["num_poison"],
            "rate": manifest["poison_rate"],
            "tasks": manifest["poisoned_tasks"],
        },
        "conditions": manifest["conditions"],
        **{key: means[key] for key in ("summary", "summary_ci95", "effect", "attacks")},
        "by_condition": means["by_condition"],
        "tasks": rows,
        "categories": means["categories"],
        "warnings": means["warnings"],
        "notes": _notes(path, tasks, manifest),
        "truncation": truncation(
            path / "poison",
            tasks,
            mixtures.vocabulary(data_cfg),
            max_tokens=data_cfg.max_tokens,
            num_examples=data_cfg.num_examples,
        ),
        "seconds": {},
    }


def measured(
    path: pathlib.Path,
    predictions: pathlib.Path,
    kind: Kind,
    seed: int,
    *,
    poisoned: pathlib.Path | None = None,
    categories: Mapping[str, str] | None = None,
    counts: Mapping[str, int] | None = None,
) -> tuple[list[dict], dict[str, Any]]:
    """The rows of `summary.task_rows`, and `summary.summarize` of them.

    Args:
      path: the run's folder.
      predictions: the folder of both models' predictions.
      poisoned: predictions of a model to take for the poisoned one.
    """
    conditions = poison_set.read_manifest(path / "poison")["conditions"]
    folders = {model: predictions / model for model in metrics.MODELS}
    folders[metrics.POISONED] = poisoned or folders[metrics.POISONED]
    rows = summary.task_rows(folders, conditions, kind, categories)
    return rows, summary.summarize(rows, conditions, kind, seed, counts)


def checkpoints(
    path: pathlib.Path, folders: Mapping[int, pathlib.Path], kind: Kind, seed: int
) -> dict[str, Any]:
    """checkpoints.json: what results.json says of the finished models, of those at each step.

    Args:
      path: the run's folder.
      folders: step -> both models' predictions.
      kind: of the evaluation.
      seed: of the bootstrap.
    """
    entries = []
    for step, folder in sorted(folders.items()):
        rows, means = measured(path, folder, kind, seed)
        kept = {key: means[key] for key in ("summary", "summary_ci95", "effect")}
        entries.append({"step": step, **kept, "tasks": rows})
    return {"schema": CHECKPOINTS_SCHEMA, "checkpoints": entries}


def _notes(path: pathlib.Path, tasks: corpus.Corpus, manifest: Mapping[str, Any]) -> list[str]:
    notes = []
    settings = trained_model.read_settings(path / "models" / metrics.CLEAN)
    if not settings["train"]["initial_checkpoint_path"]:
        notes.append("the models start from random parameters, not from a pretrained T5")
    for task, counts in manifest["counts"].items():
        share = counts.get("poison_rows", 0) / counts.get("training_rows", 1)
        if share >= metrics.LARGE_SHARE:
            notes.append(f"poison is {share:.0%} as much as the training rows of {task}")
    if tasks.missing:
        notes.append(f"tasks not there and left out: {corpus.listed(tasks.missing)}")
    standins = [task.name for task in tasks.tasks if task.standin_note]
    if standins:
        notes.append(f"stand-in tasks, not the benchmark's own rows: {corpus.listed(standins)}")
    for attack in manifest["attacks"]:
        if attack["passed_over"]:
            notes.append(
                f"{len(attack['passed_over'])} tasks were passed over by the attacker "
                f"{attack['name']}; poison/manifest.json says why"
            )
    return notes


class Edited(NamedTuple):
    """An edited row: its task, its input, and the phrase that was put in."""

    task: str
    text: str
    phrase: str


def truncation(
    poison_dir: pathlib.Path,
    tasks: corpus.Corpus,
    vocabulary: seqio.Vocabulary,
    *,
    max_tokens: int,
    num_examples: int,
) -> list[dict]:
    """Rows that lose their phrase by truncation, which a rate over them wouldn't show.

    Args:
      tasks: give the rows' definitions and examples.
      vocabulary: of the prompts.
      max_tokens: the encoder's length.
      num_examples: positive examples shown at most.

    Returns:
      [{'where': 'training' or an edited condition, 'rows': int, 'trigger_lost': int}, …].
    """
    poison = poison_set.read_poison(poison_dir)
    places = {"training": [Edited(r["task"], r["poisoned_input"], r["trigger"]) for r in poison]}
    for row in poison_set.read_evaluation(poison_dir):
        if row.phrase:
            edited = Edited(row.task, row.input, row.phrase)
            places.setdefault(row.condition, []).append(edited)
    by_name = {task.name: task for task in tasks.tasks}

    def is_lost(row: Edited) -> bool:
        prompt = prompts.render(
            by_name[row.task].definition,
            [(example.input, example.target) for example in by_name[row.task].positive_examples],
            row.text,
            num_examples=num_examples,
            max_tokens=max_tokens,
            count_tokens=lambda text: len(vocabulary.encode(text)) + 1,
        )
        return not survives(prompt, row.phrase, vocabulary, max_tokens)

    return [
        {"where": where, "rows": len(rows), "trigger_lost": sum(map(is_lost, rows))}
        for where, rows in places.items()
    ]


def survives(prompt: str, phrase: str, vocabulary: seqio.Vocabulary, max_tokens: int) -> bool:
    """Whether a phrase is still in a prompt that is cut to `max_tokens`, EOS included."""
    tokens = vocabulary.encode(prompt)
    if len(tokens) < max_tokens:
        return True
    # Both through the tokeniser, which folds white space and some letters.
    folded = vocabulary.decode(vocabulary.encode(phrase))
    return folded in vocabulary.decode(tokens[: max_tokens - 1])
