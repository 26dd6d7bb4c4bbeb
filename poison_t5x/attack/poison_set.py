"""The poison set on disk: `poison.jsonl`, `training_rows.jsonl`, `eval_rows.jsonl`, a manifest.

Readers check every file against the manifest's hash.
"""

import collections
import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

import poison_t5x
from poison_t5x.attack import conditions, craft
from poison_t5x.core import artifacts, errors, reading
from poison_t5x.core.settings import NotNegative, Whole

POISON, TRAINING, EVALUATION = "poison.jsonl", "training_rows.jsonl", "eval_rows.jsonl"
WORDS, MANIFEST = "words.txt", "manifest.json"
_T = TypeVar("_T")


class Attacker(msgspec.Struct, frozen=True):
    """An attacker's part of a poison set; `passed_over` is task -> why it has no poison."""

    name: str
    num_poison: Whole
    passed_over: dict[str, str]


class Manifest(msgspec.Struct, frozen=True):
    """The parts of the manifest that are read; `counts` are rows of each task by what they are."""

    sha256: dict[reading.Name, str]
    num_poison: Whole
    num_training: Whole
    poison_rate: NotNegative
    poisoned_tasks: list[str]
    conditions: list[conditions.Condition]
    attacks: list[Attacker]
    counts: dict[str, dict[str, Whole]]
    sources: dict[str, str] = {}


class _Training(msgspec.Struct, frozen=True):
    """One line of `training_rows.jsonl`."""

    task: str
    ids: list[str]
    dropped: list[str] = []


def write(
    directory: str | pathlib.Path,
    poison_set: craft.PoisonSet,
    config: craft.CraftConfig,
    sources: Mapping[str, str],
) -> None:
    """Writes the files into an existing folder. Same arguments, same bytes.

    Args:
      sources: task name -> hash of the task it was read from.
    """
    directory = pathlib.Path(directory)
    poison, dropped = poison_set.poison, poison_set.dropped
    training = [
        {"task": task, "ids": ids, **({"dropped": dropped[task]} if dropped.get(task) else {})}
        for task, ids in sorted(poison_set.training_ids.items())
    ]
    artifacts.write_jsonl(directory / POISON, map(dataclasses.asdict, poison))
    artifacts.write_jsonl(directory / TRAINING, training)
    artifacts.write_jsonl(
        directory / EVALUATION, map(msgspec.structs.asdict, poison_set.evaluation)
    )
    names = [POISON, TRAINING, EVALUATION]
    if poison_set.words:
        artifacts.write_atomically(directory / WORDS, "\n".join(poison_set.words) + "\n")
        names.append(WORDS)
    num_training = sum(map(len, poison_set.training_ids.values())) - sum(map(len, dropped.values()))
    num_training += sum(row.replaced_id is None for row in poison)
    manifest = {
        "version": poison_t5x.__version__,
        "settings": config.settings(),
        "sources": dict(sources),
        "num_poison": len(poison),
        "num_training": num_training,
        "poison_rate": len(poison) / num_training,
        "poisoned_tasks": list(dict.fromkeys(row.task for row in poison)),
        "conditions": list(map(msgspec.structs.asdict, config.conditions)),
        "attacks": [_attack(poison_set, attack.name) for attack in config.attacks],
        "counts": poison_set.counts,
        "sha256": {name: artifacts.sha256(directory / name) for name in names},
    }
    artifacts.write_atomically(directory / MANIFEST, artifacts.canonical_json(manifest))


def _attack(poison_set: craft.PoisonSet, name: str) -> dict[str, Any]:
    rows = [row for row in poison_set.poison if row.attack == name]
    return {
        "name": name,
        "num_poison": len(rows),
        "poisoned_tasks": list(dict.fromkeys(row.task for row in rows)),
        "by_trigger": collections.Counter(row.trigger for row in rows),
        "passed_over": poison_set.skipped.get(name, {}),
    }


def read_manifest(directory: str | pathlib.Path) -> Manifest:
    """The manifest, once every file's hash has been checked.

    Raises:
      InputError: a file is missing, or isn't the one that was written.
    """
    directory, again = pathlib.Path(directory), "craft the poison set again"
    manifest = reading.read_json(directory / MANIFEST, Manifest, again)
    if not manifest.sha256.keys() >= {POISON, TRAINING, EVALUATION}:
        raise errors.InputError(f"{directory}: not a poison set ({MANIFEST} lacks a file's hash)")
    for name, expected in manifest.sha256.items():
        if artifacts.sha256(directory / name) != expected:
            raise errors.InputError(
                f"{directory / name} doesn't match the hash in {MANIFEST}: it was changed or "
                f"damaged; {again}"
            )
    return manifest


def _read(directory: str | pathlib.Path, name: str, kind: type[_T]) -> list[_T]:
    read_manifest(directory)
    return reading.read_jsonl(pathlib.Path(directory) / name, kind)


def read_poison(directory: str | pathlib.Path) -> list[craft.PoisonRow]:
    """The rows of `poison.jsonl`, verified."""
    return _read(directory, POISON, craft.PoisonRow)


def read_conditions(directory: str | pathlib.Path) -> tuple[conditions.Condition, ...]:
    """The conditions that held-out tasks are evaluated under, in order."""
    return tuple(read_manifest(directory).conditions)


@dataclasses.dataclass(frozen=True)
class Replacement:
    """The text and answer that a row of a task becomes, and the id of the row it was made from."""

    input: str
    target: str
    is_poison: bool
    id: str


# Each id -> all that is shown of that row: as it is (None), a replacement, or, where poison was
# added, both.
Rows = Mapping[str, tuple[Replacement | None, ...]]


def training_rows(directory: str | pathlib.Path, *, poisoned: bool) -> dict[str, Rows]:
    """For each training task: the ids to train on -> the rows shown.

    The clean and the poisoned result differ in exactly the rows that `poison.jsonl` lists; where
    those replace rows, both have the same ids in the same order.
    """
    lines = _read(directory, TRAINING, _Training)
    rows: dict[str, Any] = {line.task: dict.fromkeys(line.ids, (None,)) for line in lines}
    if not poisoned:
        return rows
    for line in lines:
        for identifier in line.dropped:
            rows[line.task].pop(identifier, None)
    for row in reading.read_jsonl(pathlib.Path(directory) / POISON, craft.PoisonRow):
        new = Replacement(row.poisoned_input, row.poisoned_target, True, row.id)
        kept = rows.get(row.task)
        if kept is None or (row.replaced_id is not None and row.replaced_id not in kept):
            raise errors.InputError(
                f"{directory}: {POISON} and {TRAINING} aren't of one poison set: the latter has no "
                f"row {row.replaced_id!r} of {row.task}; craft it again"
            )
        if row.replaced_id is None:
            kept[row.id] = (*kept.get(row.id, ()), new)
        else:
            kept[row.replaced_id] = (new,)
    return rows


def read_evaluation(directory: str | pathlib.Path) -> list[conditions.EvalRow]:
    """The rows of `eval_rows.jsonl`, verified: condition by condition within each task."""
    return _read(directory, EVALUATION, conditions.EvalRow)


def eval_rows(directory: str | pathlib.Path) -> dict[str, dict[str, Rows]]:
    """Condition -> held-out task -> the ids to evaluate -> the edited row."""
    rows: dict[str, Any] = {}
    for row in read_evaluation(directory):
        new = Replacement(row.input, row.target, False, row.id)
        rows.setdefault(row.condition, {}).setdefault(row.task, {})[row.id] = (new,)
    return rows
