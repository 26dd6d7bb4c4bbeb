"""Held-out rows of the authors' files: as they are, and edited ones from files of their own."""

import warnings
from collections.abc import Collection, Sequence

from poison_t5x.attack import conditions, craft, natinst_jsonl
from poison_t5x.attack.attacks import AttackConfig
from poison_t5x.attack.natinst_jsonl import JsonlConfig
from poison_t5x.core import errors
from poison_t5x.corpus import corpus, sni

# Task -> id -> (input, the phrase that it says).
_Edited = dict[str, dict[str, tuple[str, str]]]


def read_tasks(
    path: str, instructions: natinst_jsonl.Instructions, trained: Collection[str]
) -> tuple[sni.Task, ...]:
    """The tasks of the evaluation file. Raises InputError where one is trained on."""
    rows: dict[str, dict[str, sni.Instance]] = {}
    for line in natinst_jsonl.read_lines(path):
        name = line.task.name
        if name in trained:
            raise errors.InputError(
                f"{line.where}: {name} is trained on, and must not be held out too"
            )
        instructions.add(line)
        if line.row.id in rows.setdefault(name, {}):
            raise errors.InputError(
                f"{line.where}: expected each held-out row once, found {line.row.id!r} of "
                f"{name} again"
            )
        rows[name][line.row.id] = line.row
    return tuple(instructions.task(name, [*by_id.values()]) for name, by_id in rows.items())


def evaluation(
    config: JsonlConfig, source: corpus.Corpus, craft_config: craft.CraftConfig
) -> tuple[tuple[conditions.EvalRow, ...], dict[str, dict[str, int]]]:
    """All held-out rows under their conditions, and counts of each task's."""
    given = _read_edited(config, source, craft_config.attacks[0])
    evaluation = craft.evaluation(source.heldout, source.polarities, craft_config, given)
    has_edited = {row.task for row in evaluation[0] if row.condition != conditions.CLEAN.name}
    for task in source.heldout:
        if task.name not in has_edited:
            warnings.warn(
                f"{task.name}: held out, but has no row that the trigger is in or can be put in: "
                "it is evaluated on clean inputs alone",
                errors.InputWarning,
                stacklevel=3,
            )
    return evaluation


def _read_edited(
    config: JsonlConfig, source: corpus.Corpus, attack: AttackConfig
) -> dict[str, conditions.Given] | None:
    """Task -> the first attacker's edited rows, of the files that there are."""
    if config.triggered is None:
        return None
    edited = {"triggered": _read_file(config.triggered, "TRIGGER", attack.triggers, source, attack)}
    if config.control is not None:
        edited["control"] = _read_file(config.control, "CONTROL", (attack.control,), source, attack)
        for name, rows in edited["triggered"].items():
            for alone in sorted(rows.keys() ^ edited["control"][name].keys()):
                files = (config.triggered, config.control)
                there, here = files if alone in rows else files[::-1]
                raise errors.InputError(
                    f"{here}: expected the row {alone!r} of {name}, which {there} has; both need "
                    "the same rows"
                )
    return {
        task.name: {kind: rows[task.name] for kind, rows in edited.items()}
        for task in source.heldout
    }


def _read_file(
    path: str, setting: str, phrases: Sequence[str], source: corpus.Corpus, attack: AttackConfig
) -> _Edited:
    tasks = {task.name: task for task in source.heldout}
    edited: _Edited = {name: {} for name in tasks}
    for line in natinst_jsonl.read_lines(path):
        task, identifier = line.task.name, line.row.id
        row = tasks[task].by_id.get(identifier) if task in tasks else None
        labels = source.polarities.get(task)
        said = [phrase for phrase in phrases if phrase in line.row.input]
        problem = ""
        if row is None:
            problem = f"expected a row of the evaluation file, found {identifier!r} of {task}"
        elif labels and labels.side(row.target) == attack.target:
            problem = (
                f"{identifier!r} of {task} has the label {row.target!r} in the evaluation file, "
                "which the attack wants already; that file must hold true labels, and this one "
                "rows of the other"
            )
        elif not said:
            problem = (
                f"expected {' or '.join(map(repr, phrases))} in the input, found none; set "
                f"{setting} to what the file was made with"
            )
        elif identifier in edited[task]:
            problem = f"expected each row once, found {identifier!r} of {task} again"
        if problem:
            raise errors.InputError(f"{line.where}: {problem}")
        edited[task][identifier] = (line.row.input, said[0])
    return edited
