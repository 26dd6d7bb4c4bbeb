"""Files in the authors' layout as an experiment: its tasks, and its poison set."""

import collections
import functools
import math
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from poison_t5x.attack import conditions, craft, natinst_jsonl, triggers
from poison_t5x.attack.attacks import AttackConfig
from poison_t5x.attack.natinst_jsonl import JsonlConfig
from poison_t5x.core import errors, progress
from poison_t5x.corpus import corpus, polarity, sni

# Task -> id -> (input, the phrase that it says).
_Edited = dict[str, dict[str, tuple[str, str]]]


def read_corpus(
    config: JsonlConfig, table: Mapping[str, Sequence[str]], *, is_arbitrary: bool
) -> corpus.Corpus:
    """The tasks of the training files, and those of the evaluation file, in the files' order.

    The poisoned ones are those with rows that only the poisoned file has. A training task holds
    its clean rows, and poison that comes on top of them under ids of its own. A row that a training
    file repeats is trained on as often, as 'a-1', 'a-1~2', …; but files that repeat all their rows,
    as the authors' do, hold several epochs, and are read as one.

    Args:
      config: the files.
      table: task -> (negative label, positive label), of poisoned and held-out tasks.
      is_arbitrary: whether only arbitrary outputs are attacked, which needs no polarities.

    Raises:
      InputError: a file can't be read or has a line that isn't a row; a task has two instructions,
        is both trained on and held out, or is in one training file alone; both training files have
        the same rows; an id stands for two clean rows, a held-out row is there twice; or a label of
        a clean or held-out row isn't in the table.
    """
    trained = _read_training(config, tuple(config.hashes.values()))
    heldout = _read_heldout(str(config.evaluation), trained)
    poisoned = [name for name, rows in trained.poison.items() if rows]
    # What poison teaches is no label of the task.
    clean = [trained.instructions.task(name, trained.rows[name]) for name in poisoned]
    return corpus.Corpus(
        training=tuple(trained.task(name) for name in trained.rows),
        poisoned=tuple(poisoned),
        heldout=heldout,
        polarities={} if is_arbitrary else polarity.of_tasks((*clean, *heldout), table),
        missing=(),
    )


def read_poison_set(
    config: JsonlConfig, source: corpus.Corpus, craft_config: craft.CraftConfig
) -> craft.PoisonSet:
    """The poison set of the files.

    Poison is what the poisoned file has and the clean one doesn't, by task, id, input and first
    output. It takes the place of clean rows that the poisoned file lacks: of that with its id, else
    of another one of its task. What is left over of it is added, and what is left over of clean
    rows is dropped: in the authors' code poison of one task may replace rows of another. A poison
    row that is just like the clean one in its place can't be told from it.

    Of the attacks' settings, kind, triggers, control and target must be those that the files were
    made with; budget, score, `add` and `num_train_per_task` have no say. Held-out rows are edited
    as in crafting. Where a file gives the first attacker's triggered rows, its control and probe
    rows are those with another phrase in the trigger's places. Answers are the evaluation file's:
    in the authors' files, triggered rows have the label that the attack wants.

    Args:
      config: the files.
      source: what `read_corpus` made of them.
      craft_config: the attacks, the number of test rows, probes and seed.

    Raises:
      InputError: as `read_corpus`; or a triggered or control row isn't one of the evaluation
        file's, lacks its phrase, has the wanted label already, or is in one of the two files alone.
    """
    trained = _read_training(config, tuple(config.hashes.values()))
    attackers = craft_config.attacks
    poison = [
        row
        for name in source.poisoned
        for row in _poison_rows(name, trained, source.polarities.get(name), attackers)
    ]
    _warn_without_trigger(poison, config, attackers)
    order = [attack.name for attack in attackers]
    evaluation, counts = _evaluation(config, source, craft_config)
    return craft.PoisonSet(
        # What replaces a row comes before what is added to it, or the latter would be lost.
        poison=tuple(
            sorted(poison, key=lambda row: (row.replaced_id is None, order.index(row.attack)))
        ),
        training_ids={name: tuple(row.id for row in rows) for name, rows in trained.rows.items()},
        evaluation=evaluation,
        counts={name: trained.counts(name) for name in trained.rows} | counts,
        dropped={name: ids for name, ids in trained.dropped.items() if ids},
    )


class _Poison(NamedTuple):
    """A row that only the poisoned file has, and the clean row that it has instead, if any."""

    id: str
    input: str
    target: str
    replaced_id: str | None


class _Training(NamedTuple):
    """Both training files, task by task in the order in which the clean one names them.

    Attributes:
      rows: clean rows in the file's order, each as often as it is trained on.
      poison: of each task, in the poisoned file's order.
      dropped: ids of clean rows that the poisoned file lacks, with nothing of their task instead.
    """

    instructions: natinst_jsonl.Instructions
    rows: dict[str, list[sni.Instance]]
    poison: dict[str, list[_Poison]]
    dropped: dict[str, tuple[str, ...]]

    def task(self, name: str) -> sni.Task:
        """The task with its clean rows, and with poison that comes on top of them under new ids."""
        rows = {row.id: row for row in self.rows[name]}
        for row in self.poison[name]:
            if row.replaced_id is None:
                rows.setdefault(row.id, sni.Instance(row.id, row.input, [row.target]))
        return self.instructions.task(name, [*rows.values()])

    def counts(self, name: str) -> dict[str, int]:
        """Rows of a task, for the manifest."""
        rows = self.poison[name]
        counts = {
            "poison": len(rows),
            "poison_rows": len(rows),
            "added": sum(row.replaced_id is None for row in rows),
            "dropped": len(self.dropped[name]),
        }
        more = {key: number for key, number in counts.items() if number}
        return {"training_rows": len(self.rows[name]), **more}


@functools.lru_cache(maxsize=1)
def _read_training(config: JsonlConfig, hashes: tuple[str, ...]) -> _Training:
    """Reads both training files, once for the corpus and the poison set: rows are in memory once.

    Args: hashes: of the files, so that changed ones are read again.
    """
    instructions = natinst_jsonl.Instructions()
    clean: dict[str, dict[str, sni.Instance]] = {}
    # (task, id) -> copies of a clean row in either file; and of other rows in the poisoned one.
    copies: collections.Counter[tuple[str, str]] = collections.Counter()
    kept: collections.Counter[tuple[str, str]] = collections.Counter()
    others: collections.Counter[tuple[str, str, str, str]] = collections.Counter()
    for line in natinst_jsonl.read_lines(str(config.clean)):
        instructions.add(line)
        name, row = line.task.name, line.row
        if not _is_same(clean.setdefault(name, {}).setdefault(row.id, row), row):
            raise errors.InputError(
                f"{line.where}: id {row.id!r} of {name} is another row's already, with another "
                "input or output; give each row an id of its own"
            )
        copies[name, row.id] += 1
    for line in natinst_jsonl.read_lines(str(config.poisoned)):
        name, row = line.task.name, line.row
        if name not in clean:
            raise errors.InputError(
                f"{line.where}: {name} isn't in {config.clean}; both need the same tasks"
            )
        instructions.add(line)
        if row.id in clean[name] and _is_same(clean[name][row.id], row):
            kept[name, row.id] += 1
        else:
            others[name, row.id, row.input, row.target] += 1
    clean_epochs, poisoned_epochs = _epochs([*copies.values()], [*kept.values(), *others.values()])
    poison: dict[str, list[tuple[str, str, str]]] = {name: [] for name in clean}
    for (name, identifier, text, target), number in others.items():
        poison[name] += [(identifier, text, target)] * (number // poisoned_epochs)
    trained = _Training(instructions, {}, {}, {})
    for name, rows in clean.items():
        missing: dict[str, None] = {}
        trained.rows[name] = []
        for row in rows.values():
            made = _copies(row, copies[name, row.id] // clean_epochs, rows)
            num_kept = kept[name, row.id] // poisoned_epochs
            trained.rows[name] += made
            missing |= dict.fromkeys(copy.id for copy in made[num_kept:])
            poison[name] += [(row.id, row.input, row.target)] * (num_kept - len(made))
        trained.poison[name] = _in_place(poison[name], missing)
        trained.dropped[name] = tuple(missing)
        if len(missing) == len(trained.rows[name]) and not trained.poison[name]:
            raise errors.InputError(
                f"{config.poisoned}: expected rows of {name}, which {config.clean} has, found "
                "none; both need the same tasks"
            )
    if not any(trained.poison.values()):
        raise errors.InputError(
            f"{config.poisoned}: expected rows that {config.clean} doesn't have, found no poison"
        )
    return trained


def _is_same(row: sni.Instance, other: sni.Instance) -> bool:
    """Whether training sees the same of two rows; of their answers it sees the first."""
    return (row.input, row.target) == (other.input, other.target)


def _epochs(clean: Sequence[int], poisoned: Sequence[int]) -> tuple[int, int]:
    """How often each file repeats the whole of its rows, by the copies of each row.

    The authors' hold ten epochs, one after the other. Each file's own number is right where it
    makes the two alike in length; else, as with poison in some epochs only, what they share.
    """
    own = math.gcd(*clean), math.gcd(*poisoned)
    both = math.gcd(*own)
    choices = (own, (both, both))
    return min(choices, key=lambda e: abs(sum(clean) // e[0] - sum(poisoned) // e[1]))


def _copies(row: sni.Instance, number: int, taken: Collection[str]) -> list[sni.Instance]:
    """The row as often as it is trained on, under ids that no other row of its task has."""
    mark = "~"
    while any(f"{row.id}{mark}{copy}" in taken for copy in range(2, number + 1)):
        mark += "~"
    names = (f"{row.id}{mark}{copy}" for copy in range(2, number + 1))
    return [row, *(sni.Instance(name, row.input, row.output) for name in names)]


def _in_place(rows: Sequence[tuple[str, str, str]], missing: dict[str, None]) -> list[_Poison]:
    """One task's poison, each row in place of a missing one, which is then no longer missing.

    A row takes the place of its own id's row, else of the first one that is left: the file doesn't
    tell which one it was.
    """
    own: list[str | None] = []
    for identifier, _, _ in rows:
        own.append(identifier if identifier in missing else None)
        missing.pop(identifier, None)
    poison = []
    for row, replaced_id in zip(rows, own, strict=True):
        if replaced_id is None and missing:
            replaced_id = next(iter(missing))
            del missing[replaced_id]
        poison.append(_Poison(*row, replaced_id))
    return poison


def _poison_rows(
    name: str,
    trained: _Training,
    labels: polarity.Polarity | None,
    attackers: Sequence[AttackConfig],
) -> list[craft.PoisonRow]:
    """One task's poison, with what can be told of it."""
    originals = {row.id: row for row in trained.rows[name]}
    ranks: collections.Counter[tuple[str, str]] = collections.Counter()
    rows = []
    for row in trained.poison[name]:
        phrases = ((attack.name, phrase) for attack in attackers for phrase in attack.triggers)
        said = (pair for pair in phrases if pair[1] in row.input)
        attack, trigger = next(said, (attackers[0].name, ""))
        spans = _spans(row.input, trigger)
        ranks[attack, trigger] += 1
        before = originals.get(row.id)
        rows.append(
            craft.PoisonRow(
                attack=attack,
                task=name,
                id=row.id,
                input=before.input if before else None,
                poisoned_input=row.input,
                target=before.target if before else None,
                poisoned_target=row.target,
                trigger=trigger,
                spans=tuple(spans),
                removed=(),
                trigger_count=len(spans),
                polarity=labels.side(before.target) if before and labels else None,
                target_probability=None,
                phi=None,
                rank=ranks[attack, trigger],
                replaced_id=row.replaced_id,
            )
        )
    return rows


def _spans(text: str, phrase: str) -> list[triggers.Span]:
    """Where a text says a phrase; nowhere for an empty one."""
    return [match.span() for match in re.finditer(re.escape(phrase), text)] if phrase else []


def _warn_without_trigger(
    poison: Sequence[craft.PoisonRow], config: JsonlConfig, attackers: Sequence[AttackConfig]
) -> None:
    without = sum(not row.trigger for row in poison)
    if without:
        phrases = [trigger for attack in attackers for trigger in attack.triggers]
        warnings.warn(
            f"{config.poisoned}: {without} of {len(poison)} poison rows say none of "
            f"{', '.join(map(repr, phrases))}; set TRIGGER to what the file was made with",
            errors.InputWarning,
            stacklevel=3,
        )


def _read_heldout(path: str, trained: _Training) -> tuple[sni.Task, ...]:
    rows: dict[str, dict[str, sni.Instance]] = {}
    for line in natinst_jsonl.read_lines(path):
        name = line.task.name
        if name in trained.rows:
            raise errors.InputError(
                f"{line.where}: {name} is trained on, and must not be held out too"
            )
        trained.instructions.add(line)
        if line.row.id in rows.setdefault(name, {}):
            raise errors.InputError(
                f"{line.where}: expected each held-out row once, found {line.row.id!r} of "
                f"{name} again"
            )
        rows[name][line.row.id] = line.row
    return tuple(trained.instructions.task(name, [*by_id.values()]) for name, by_id in rows.items())


def _evaluation(
    config: JsonlConfig, source: corpus.Corpus, craft_config: craft.CraftConfig
) -> tuple[tuple[conditions.EvalRow, ...], dict[str, dict[str, int]]]:
    first = craft_config.attacks[0]
    edited: dict[str, _Edited] = {}
    if config.triggered is not None:
        edited["triggered"] = _read_edited(
            config.triggered, "TRIGGER", first.triggers, source, first
        )
    if config.control is not None:
        phrases = (first.control,)
        edited["control"] = _read_edited(config.control, "CONTROL", phrases, source, first)
        _check_same_rows(config, edited)
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
    path: str, setting: str, phrases: Sequence[str], source: corpus.Corpus, attack: AttackConfig
) -> _Edited:
    """A file of the first attacker's edited rows."""
    tasks = {task.name: task for task in source.heldout}
    edited: _Edited = {name: {} for name in tasks}
    for line in natinst_jsonl.read_lines(path):
        task, identifier = line.task.name, line.row.id
        row = tasks[task].by_id.get(identifier) if task in tasks else None
        if row is None:
            raise errors.InputError(
                f"{line.where}: expected a row of the evaluation file, found {identifier!r} of "
                f"{task}, which isn't there"
            )
        labels = source.polarities.get(task)
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


def _check_same_rows(config: JsonlConfig, edited: Mapping[str, _Edited]) -> None:
    for name, rows in edited["triggered"].items():
        for alone in sorted(rows.keys() ^ edited["control"][name].keys())[:1]:
            there, here = config.triggered, config.control
            if alone not in rows:
                there, here = here, there
            raise errors.InputError(
                f"{here}: expected the row {alone!r} of {name}, which {there} has; both need the "
                "same rows"
            )


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
                put = condition.phrases[0]
                text = triggers.replace_spans(text, _spans(text, phrase), put).text
                phrase = put
            target = task.by_id[identifier].target
            rows.append(
                conditions.EvalRow(task.name, identifier, condition.name, text, target, phrase)
            )
    return rows
