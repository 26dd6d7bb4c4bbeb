"""The poison set on disk: `poison.jsonl`, `training_rows.jsonl`, `eval_rows.jsonl`, a manifest.

Readers check every file against the manifest's hash.
"""

import collections
import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import msgspec

import poison_t5x
from poison_t5x import artifacts, errors
from poison_t5x.poison import craft

POISON, TRAINING, EVALUATION, MANIFEST = (
    "poison.jsonl",
    "training_rows.jsonl",
    "eval_rows.jsonl",
    "manifest.json",
)


class _Manifest(msgspec.Struct):
    """Of the manifest, what is checked when it is read."""

    sha256: dict[str, str]
    num_poison: int
    num_training: int
    poison_rate: float
    poisoned_tasks: list[str]
    counts: dict[str, dict[str, int]]


def write(
    directory: str | pathlib.Path,
    poison_set: craft.PoisonSet,
    config: craft.CraftConfig,
    sources: Mapping[str, str],
) -> None:
    """Writes the folder. Same arguments, same bytes.

    Args:
      directory: an existing folder.
      poison_set: what `craft.craft` made with `config`.
      config: the settings that made it.
      sources: task name -> hash of the task it was read from.
    """
    directory = pathlib.Path(directory)
    files = {
        POISON: [dataclasses.asdict(row) for row in poison_set.poison],
        TRAINING: [
            {"task": task, "ids": ids} for task, ids in sorted(poison_set.training_ids.items())
        ],
        EVALUATION: [dataclasses.asdict(row) for row in poison_set.evaluation],
    }
    for name, rows in files.items():
        artifacts.write_jsonl(directory / name, rows)
    num_training = sum(len(ids) for ids in poison_set.training_ids.values())
    manifest = {
        "version": poison_t5x.__version__,
        "settings": dataclasses.asdict(config),
        "sources": dict(sources),
        "num_poison": len(poison_set.poison),
        "num_training": num_training,
        "poison_rate": len(poison_set.poison) / num_training,
        "poisoned_tasks": list(dict.fromkeys(row.task for row in poison_set.poison)),
        "counts": poison_set.counts,
        "sha256": {name: artifacts.sha256(directory / name) for name in files},
    }
    artifacts.write_atomically(directory / MANIFEST, artifacts.canonical_json(manifest))


def read_manifest(directory: str | pathlib.Path) -> dict:
    """The manifest, once every file's hash has been checked.

    Raises:
      InputError: a file is missing, or isn't the one that was written.
    """
    directory = pathlib.Path(directory)
    try:
        manifest = artifacts.read_json(directory / MANIFEST)
        hashes = msgspec.convert(manifest, _Manifest).sha256
    except ValueError as error:
        raise errors.InputError(f"{directory}: not a poison set ({error})") from None
    if not hashes.keys() >= {POISON, TRAINING, EVALUATION}:
        raise errors.InputError(f"{directory}: not a poison set ({MANIFEST} lacks a file's hash)")
    for name, expected in hashes.items():
        path = directory / name
        if not path.is_file():
            raise errors.InputError(f"{path} is missing; craft the poison set again")
        if artifacts.sha256(path) != expected:
            raise errors.InputError(
                f"{path} doesn't match the hash in {MANIFEST}: it was changed or damaged; "
                "craft the poison set again"
            )
    return manifest


def read_poison(directory: str | pathlib.Path) -> list[dict]:
    """The rows of `poison.jsonl`, verified."""
    read_manifest(directory)
    return artifacts.read_jsonl(pathlib.Path(directory) / POISON)


@dataclasses.dataclass(frozen=True)
class Replacement:
    """What a row of a task gives way to."""

    input: str
    target: str
    is_poison: bool


Rows = Mapping[str, Replacement | None]


def training_rows(directory: str | pathlib.Path, *, poisoned: bool) -> dict[str, Rows]:
    """For each training task: the ids to train on -> what replaces that row (None: nothing).

    The clean and the poisoned result have the same ids in the same order, and differ in exactly the
    rows that `poison.jsonl` lists.
    """
    directory = pathlib.Path(directory)
    read_manifest(directory)
    rows: dict[str, Any] = {
        line["task"]: dict.fromkeys(line["ids"])
        for line in artifacts.read_jsonl(directory / TRAINING)
    }
    if poisoned:
        for row in artifacts.read_jsonl(directory / POISON):
            rows[row["task"]][row["replaced_id"]] = Replacement(
                row["poisoned_input"], row["poisoned_target"], is_poison=True
            )
    return rows


def eval_rows(directory: str | pathlib.Path, condition: str) -> dict[str, Rows]:
    """For each held-out task: the ids to evaluate under a condition -> the edited row."""
    directory = pathlib.Path(directory)
    read_manifest(directory)
    rows: collections.defaultdict[str, Any] = collections.defaultdict(dict)
    for row in artifacts.read_jsonl(directory / EVALUATION):
        if row["condition"] == condition:
            rows[row["task"]][row["id"]] = Replacement(row["input"], row["target"], False)
    return dict(rows)
