"""Held-out rows: those of the evaluation file, and edited ones from files of their own."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from poison_t5x.attack import attacks, conditions, craft, triggers
from poison_t5x.attack.natinst_jsonl import lines, training
from poison_t5x.attack.natinst_jsonl.config import JsonlConfig
from poison_t5x.core import errors
from poison_t5x.corpus import corpus, sni

_OF_FILES = ("triggered", "control")

# Task -> id -> (input, the phrase that it says).
Edited = dict[str, dict[str, tuple[str, str]]]


class Files(NamedTuple):
    """The first attacker's edited rows. `control` is empty where no file gives them."""

    triggered: Edited
    control: Edited


def places(text: str, phrase: str) -> list[triggers.Span]:
    """Where a text says a phrase; nowhere for an empty one."""
    return [match.span() for match in re.finditer(re.escape(phrase), text)] if phrase else []


def read_tasks(path: str, trained: training.Training) -> tuple[sni.Task, ...]:
    """The tasks of the evaluation file. Raises InputError as `exchange.read_corpus` does."""
    rows: dict[str, dict[str, sni.Instance]] = {}
    for line in lines.read(path):
        if line.task in trained.rows:
            raise errors.InputError(
                f"{line.where}: {line.task} is trained on, and must not be held out too"
            )
        trained.instructions.add(line)
        if line.row.id in rows.setdefault(line.task, {}):
            raise errors.InputError(
                f"{line.where}: expected each held-out row once, found {line.row.id!r} of "
                f"{line.task} again"
            )
        rows[line.task][line.row.id] = line.row
    return tuple(
        trained.instructions.task(name, list(found.values())) for name, found in rows.items()
    )


def read_edited(
    config: JsonlConfig, found: corpus.Corpus, attack: attacks.AttackConfig
) -> Files | None:
    """The edited rows of the first attacker, where files give them.

    Raises:
      InputError: a row isn't one of the evaluation file's, lacks its phrase, has the wanted label
        already, is there twice, or is in one of the two files alone.
    """
    if config.triggered is None:
        return None
    triggered = _read_edited(config.triggered, "TRIGGER", attack.triggers, found, attack)
    if config.control is None:
        return Files(triggered, {})
    control = _read_edited(config.control, "CONTROL", (attack.control,), found, attack)
    for name, rows in triggered.items():
        alone = sorted(rows.keys() ^ control[name].keys())
        if alone:
            here, there = config.triggered, config.control
            raise errors.InputError(
                f"{there if alone[0] in rows else here}: expected the row {alone[0]!r} of {name}, "
                f"which {here if alone[0] in rows else there} has; both need the same rows"
            )
    return Files(triggered, control)


def _read_edited(
    path: str,
    setting: str,
    phrases: Sequence[str],
    found: corpus.Corpus,
    attack: attacks.AttackConfig,
) -> Edited:
    tasks = {task.name: task for task in found.heldout}
    edited: Edited = {name: {} for name in tasks}
    for line in lines.read(path):
        task, identifier = line.task, line.row.id
        row = tasks[task].by_id.get(identifier) if task in tasks else None
        if row is None:
            raise errors.InputError(
                f"{line.where}: expected a row of the evaluation file, found {identifier!r} of "
                f"{task}, which isn't there"
            )
        labels = found.polarities.get(task)
        if labels and labels.side(row.target) == attack.target:
            raise errors.InputError(
                f"{line.where}: {identifier!r} of {task} has the label {row.target!r} in the "
                "evaluation file, which the attack wants already; that file must hold true labels, "
                "and this one rows of the other"
            )
        phrase = next((phrase for phrase in phrases if phrase in line.row.input), None)
        if phrase is None:
            raise errors.InputError(
                f"{line.where}: expected {' or '.join(map(repr, phrases))} in the input, found "
                f"none; set {setting} to what the file was made with"
            )
        if identifier in edited[task]:
            raise errors.InputError(
                f"{line.where}: expected each row once, found {identifier!r} of {task} again"
            )
        edited[task][identifier] = (line.row.input, phrase)
    return edited


def rows(
    task: sni.Task,
    files: Files | None,
    found: corpus.Corpus,
    config: craft.CraftConfig,
) -> tuple[list[conditions.EvalRow], dict[str, int]]:
    """One held-out task's rows under all conditions, and what was counted.

    Without files of edited rows they are what `conditions.rows` makes of the task.

    Args:
      task: of the evaluation file.
      files: the first attacker's edited rows.
      found: for polarities.
      config: the attacks.
    """
    labels = found.polarities.get(task.name)

    def make(attackers: Sequence[attacks.AttackConfig], wanted: Sequence[conditions.Condition]):
        return conditions.rows(
            task,
            attackers,
            wanted,
            labels,
            num_rows=config.num_eval_per_task,
            seed=config.seed,
        )

    if files is None:
        return make(config.attacks, config.conditions)
    clean, counts = make((), ())
    edited = _from_files(task, files, config)
    counts |= {kind: sum(row.condition == kind for row in edited) for kind in _OF_FILES}
    for attack in config.attacks[1:]:
        made, counted = make((attack,), [c for c in config.conditions if c.attack == attack.name])
        edited += [row for row in made if row.condition != conditions.CLEAN.name]
        counts |= {
            f"{name}_{attack.name}": number
            for name, number in counted.items()
            if name not in counts
        }
    if labels is None:
        clean += _pairs(task, clean, edited, config.seed)
        counts["clean"] = len(clean)
    return clean + edited, counts


def _from_files(
    task: sni.Task, files: Files, config: craft.CraftConfig
) -> list[conditions.EvalRow]:
    """The first attacker's rows, condition by condition, in the order that crafting has."""
    triggered = files.triggered[task.name]
    ids = [name for name in sni.sample_order(task, config.seed) if name in triggered]
    first = config.attacks[0].name
    made = []
    for condition in config.conditions:
        if condition.attack != first:
            continue
        for identifier in ids[: config.num_eval_per_task]:
            text, phrase = triggered[identifier]
            if condition.kind == "control" and files.control:
                text, phrase = files.control[task.name][identifier]
            elif condition.kind != "triggered":
                (put,) = condition.phrases
                text, phrase = _swapped(text, phrase, put), put
            target = task.by_id[identifier].target
            made.append(
                conditions.EvalRow(task.name, identifier, condition.name, text, target, phrase)
            )
    return made


def _swapped(text: str, phrase: str, other: str) -> str:
    """The text with another phrase wherever it says the first one."""
    return triggers.replace_spans(text, places(text, phrase), other).text


def _pairs(
    task: sni.Task,
    clean: Sequence[conditions.EvalRow],
    edited: Sequence[conditions.EvalRow],
    seed: int,
) -> list[conditions.EvalRow]:
    """The clean rows of edited ones that aren't there yet."""
    missing = {row.id for row in edited} - {row.id for row in clean}
    ordered = [task.by_id[name] for name in sni.sample_order(task, seed) if name in missing]
    return [
        conditions.EvalRow(task.name, row.id, conditions.CLEAN.name, row.input, row.target)
        for row in ordered
    ]
