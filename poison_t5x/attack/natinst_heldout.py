"""Held-out rows of the authors' files: as they are, and edited ones from files of their own."""

import functools
import re
import warnings
from collections.abc import Collection, Mapping, Sequence

from poison_t5x.attack import conditions, craft, natinst_jsonl, triggers
from poison_t5x.attack.attacks import AttackConfig
from poison_t5x.attack.natinst_jsonl import JsonlConfig
from poison_t5x.core import errors, progress
from poison_t5x.corpus import corpus, polarity, sni

# Task -> id -> (input, the phrase that it says).
_Edited = dict[str, dict[str, tuple[str, str]]]


def spans(text: str, phrase: str) -> list[triggers.Span]:
    """Where a text says a phrase; nowhere for an empty one."""
    return [match.span() for match in re.finditer(re.escape(phrase), text)] if phrase else []


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
    edited = _read_edited(config, source, craft_config.attacks[0])
    rows: list[conditions.EvalRow] = []
    counts = {}
    for task in progress.bar(source.heldout, desc="making evaluation rows", unit="task"):
        labels = source.polarities.get(task.name)
        made, counts[task.name] = _heldout_rows(task, edited, labels, craft_config)
        rows += made
        if all(row.condition == conditions.CLEAN.name for row in made):
            warnings.warn(
                f"{task.name}: held out, but has no row that the trigger is in or can be put in: "
                "it is evaluated on clean inputs alone",
                errors.InputWarning,
                stacklevel=3,
            )
    return tuple(rows), counts


def _read_edited(
    config: JsonlConfig, source: corpus.Corpus, attack: AttackConfig
) -> dict[str, _Edited]:
    """The first attacker's edited rows by condition, of the files that there are."""
    edited: dict[str, _Edited] = {}
    if config.triggered is not None:
        edited["triggered"] = _read_file(
            config.triggered, "TRIGGER", attack.triggers, source, attack
        )
    if config.control is not None:
        phrases = (attack.control,)
        edited["control"] = _read_file(config.control, "CONTROL", phrases, source, attack)
        for name, rows in edited["triggered"].items():
            for alone in sorted(rows.keys() ^ edited["control"][name].keys()):
                files = (config.triggered, config.control)
                there, here = files if alone in rows else files[::-1]
                raise errors.InputError(
                    f"{here}: expected the row {alone!r} of {name}, which {there} has; both need "
                    "the same rows"
                )
    return edited


def _read_file(
    path: str, setting: str, phrases: Sequence[str], source: corpus.Corpus, attack: AttackConfig
) -> _Edited:
    tasks = {task.name: task for task in source.heldout}
    edited: _Edited = {name: {} for name in tasks}
    for line in natinst_jsonl.read_lines(path):
        task, identifier = line.task.name, line.row.id
        row = tasks[task].by_id.get(identifier) if task in tasks else None
        labels = source.polarities.get(task)
        phrase = next((phrase for phrase in phrases if phrase in line.row.input), None)
        problem = ""
        if row is None:
            problem = (
                f"expected a row of the evaluation file, found {identifier!r} of {task}, which "
                "isn't there"
            )
        elif labels and labels.side(row.target) == attack.target:
            problem = (
                f"{identifier!r} of {task} has the label {row.target!r} in the evaluation file, "
                "which the attack wants already; that file must hold true labels, and this one "
                "rows of the other"
            )
        elif phrase is None:
            problem = (
                f"expected {' or '.join(map(repr, phrases))} in the input, found none; set "
                f"{setting} to what the file was made with"
            )
        elif identifier in edited[task]:
            problem = f"expected each row once, found {identifier!r} of {task} again"
        if problem or phrase is None:
            raise errors.InputError(f"{line.where}: {problem}")
        edited[task][identifier] = (line.row.input, phrase)
    return edited


def _heldout_rows(
    task: sni.Task,
    edited: Mapping[str, _Edited],
    labels: polarity.Polarity | None,
    config: craft.CraftConfig,
) -> tuple[list[conditions.EvalRow], dict[str, int]]:
    """One held-out task's rows under all conditions, as `conditions.rows` makes them.

    The first attacker's are those of the files, where they give any.
    """
    make = functools.partial(
        conditions.rows, task, labels=labels, num_rows=config.num_eval_per_task, seed=config.seed
    )
    if not edited:
        return make(config.attacks, config.conditions)
    clean, counts = make((), ())
    rows = _rows_of_files(task, edited, config)
    counts |= {
        kind: sum(row.condition == kind for row in rows) for kind in ("triggered", "control")
    }
    for attack in config.attacks[1:]:
        made, more = make((attack,), [c for c in config.conditions if c.attack == attack.name])
        rows += [row for row in made if row.condition != conditions.CLEAN.name]
        counts |= {f"{key}_{attack.name}": n for key, n in more.items() if key not in counts}
    if labels is None:  # pairs are whole
        paired = {row.id for row in rows} - {row.id for row in clean}
        ids = [name for name in sni.sample_order(task, config.seed) if name in paired]
        clean += [conditions.clean_row(task, task.by_id[name]) for name in ids]
        counts["clean"] = len(clean)
    return clean + rows, counts


def _rows_of_files(
    task: sni.Task, edited: Mapping[str, _Edited], config: craft.CraftConfig
) -> list[conditions.EvalRow]:
    """The first attacker's rows, condition by condition, in the order that crafting has."""
    triggered = edited["triggered"][task.name]
    ids = [name for name in sni.sample_order(task, config.seed) if name in triggered]
    rows = []
    for condition in config.conditions:
        if condition.attack != config.attacks[0].name:
            continue
        for identifier in ids[: config.num_eval_per_task]:
            text, phrase = edited.get(condition.kind, edited["triggered"])[task.name][identifier]
            if condition.kind not in edited:
                places, phrase = spans(text, phrase), condition.phrases[0]
                text = triggers.replace_spans(text, places, phrase).text
            target = task.by_id[identifier].target
            row = conditions.EvalRow(task.name, identifier, condition.name, text, target, phrase)
            rows.append(row)
    return rows
