"""Files in the authors' layout as an experiment: its tasks, and its poison set."""

import collections
import functools
import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from poison_t5x.attack import craft, natinst_heldout, natinst_jsonl, triggers
from poison_t5x.attack.attacks import AttackConfig
from poison_t5x.attack.natinst_jsonl import JsonlConfig
from poison_t5x.core import errors
from poison_t5x.corpus import corpus, polarity, sni


def read_corpus(
    config: JsonlConfig, table: Mapping[str, Sequence[str]], *, is_arbitrary: bool
) -> corpus.Corpus:
    """The tasks of the training files, and those of the evaluation file, in the files' order.

    The poisoned ones are those with rows that only the poisoned file has. A training task holds
    its clean rows, and poison that comes on top of them under ids of its own. A row that a training
    file repeats is trained on as often, as 'a-1', 'a-1~2', …; but files that repeat all their rows,
    as the authors' do, hold several epochs, and are read as one.

    Args:
      table: task -> (negative label, positive label); arbitrary outputs need none.

    Raises:
      InputError: a file or a row isn't as told here, or a label of a clean or held-out row isn't in
        the table; the message names file, line and field.
    """
    trained = _read_training(config, tuple(config.hashes.values()))
    heldout = natinst_heldout.read_tasks(str(config.evaluation), trained.instructions, trained.rows)
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

    Kind, triggers, control and target must be those that the files were made with; budget, score,
    `add` and `num_train_per_task` have no say. Held-out rows are edited as in crafting; but where a
    file gives the first attacker's triggered rows, its control and probe rows are those with
    another phrase in the trigger's places. Answers are the evaluation file's: in the authors'
    files, triggered rows have the label that the attack wants.

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
    if without := sum(not row.trigger for row in poison):
        phrases = [repr(trigger) for attack in attackers for trigger in attack.triggers]
        warnings.warn(
            f"{config.poisoned}: {without} of {len(poison)} poison rows say none of "
            f"{', '.join(phrases)}; set TRIGGER to what the file was made with",
            errors.InputWarning,
            stacklevel=2,
        )
    # What replaces a row comes before what is added to it, or the latter would be lost.
    order = [attack.name for attack in attackers]
    poison.sort(key=lambda row: (row.replaced_id is None, order.index(row.attack)))
    evaluation, counts = natinst_heldout.evaluation(config, source, craft_config)
    return craft.PoisonSet(
        poison=tuple(poison),
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
      poison: rows in the poisoned file's order.
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
        number = len(self.poison[name])
        added = sum(row.replaced_id is None for row in self.poison[name])
        more = {"poison": number, "poison_rows": number, "added": added}
        more |= {"training_rows": len(self.rows[name]), "dropped": len(self.dropped[name])}
        return {key: count for key, count in more.items() if count}


# What training sees of a row: its task, id, input and first answer; and how often.
_Counts = collections.Counter[tuple[str, str, str, str]]


@functools.lru_cache(maxsize=1)
def _read_training(config: JsonlConfig, hashes: tuple[str, ...]) -> _Training:
    """Reads both training files, once for the corpus and the poison set, until a hash changes."""
    instructions = natinst_jsonl.Instructions()
    rows, clean, poisoned = _count(config, instructions)
    clean_epochs, poisoned_epochs = _epochs([*clean.values()], [*poisoned.values()])
    trained = _Training(instructions, {}, {}, {})
    poison: dict[str, list[tuple[str, str, str]]] = {name: [] for name in rows}
    for key, number in poisoned.items():
        if key not in clean:
            poison[key[0]] += [key[1:]] * (number // poisoned_epochs)
    for name, by_id in rows.items():
        missing: dict[str, None] = {}
        trained.rows[name] = []
        for row in by_id.values():
            seen = (row.id, row.input, row.target)
            made = _copies(row, clean[name, *seen] // clean_epochs, by_id)
            kept = poisoned[name, *seen] // poisoned_epochs
            trained.rows[name] += made
            missing |= dict.fromkeys(copy.id for copy in made[kept:])
            poison[name] += [seen] * (kept - len(made))
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


def _count(
    config: JsonlConfig, instructions: natinst_jsonl.Instructions
) -> tuple[dict[str, dict[str, sni.Instance]], _Counts, _Counts]:
    """Task -> id -> clean row; and how often each row is in the clean and the poisoned file."""
    rows: dict[str, dict[str, sni.Instance]] = {}
    clean, poisoned = _Counts(), _Counts()
    for line in natinst_jsonl.read_lines(str(config.clean)):
        instructions.add(line)
        name, row = line.task.name, line.row
        clean[name, row.id, row.input, row.target] += 1
        first = rows.setdefault(name, {}).setdefault(row.id, row)
        if (first.input, first.target) != (row.input, row.target):
            raise errors.InputError(
                f"{line.where}: id {row.id!r} of {name} is another row's already, with another "
                "input or output; give each row an id of its own"
            )
    for line in natinst_jsonl.read_lines(str(config.poisoned)):
        name, row = line.task.name, line.row
        if name not in rows:
            raise errors.InputError(
                f"{line.where}: {name} isn't in {config.clean}; both need the same tasks"
            )
        instructions.add(line)
        poisoned[name, row.id, row.input, row.target] += 1
    return rows, clean, poisoned


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
    own = [missing.pop(row[0], row[0]) is None for row in rows]
    free = iter([*missing])
    poison = [
        _Poison(*row, row[0] if is_own else next(free, None))
        for row, is_own in zip(rows, own, strict=True)
    ]
    for name in [*missing][: sum(not is_own for is_own in own)]:
        del missing[name]
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
        spans = triggers.occurrences(row.input, trigger)
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
