"""Files in the authors' layout as an experiment: its tasks, and its poison set."""

import collections
import functools
import math
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from poison_t5x.attack import conditions, craft, triggers
from poison_t5x.attack.attacks import AttackConfig
from poison_t5x.attack.natinst_jsonl import JsonlConfig, Line, read_lines
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

    Raises:
      InputError: a file or a row isn't as told here, or a label of a clean or held-out row isn't in
        the table, as `polarity.of_tasks` takes it; the message names file, line and field.
    """
    trained = _read_training(config, tuple(config.hashes.values()))
    first: dict[str, Line] = {}
    heldout: list[sni.Task] = []
    for name, rows in _read_file(config.evaluation, first).items():
        if name in trained:
            raise errors.InputError(
                f"{first[name].where}: {name} is trained on, and must not be held out too"
            )
        again = [line for line, number in rows.values() if number > 1] or _namesakes(rows)
        for line in again:
            raise errors.InputError(
                f"{line.where}: expected each held-out row once, found {line.row.id!r} of {name} "
                "again"
            )
        heldout.append(_with_rows(first[name].task, [line.row for line, _ in rows.values()]))
    poisoned = [name for name, task in trained.items() if task.poison]
    # What poison teaches is no label of the task.
    judged = () if is_arbitrary else (*(trained[name].clean for name in poisoned), *heldout)
    return corpus.Corpus(
        training=tuple(task.whole() for task in trained.values()),
        poisoned=tuple(poisoned),
        heldout=tuple(heldout),
        polarities=polarity.of_tasks(judged, table),
        missing=(),
    )


def read_poison_set(
    config: JsonlConfig, source: corpus.Corpus, craft_config: craft.CraftConfig
) -> craft.PoisonSet:
    """The poison set of the files.

    Poison is what the poisoned file has and the clean one doesn't, by task, id, input and first
    output. It takes the place of clean rows that the poisoned file lacks: of that with its id, else
    of the first of its task that is left, for the file doesn't tell. The rest of it is added, and
    the rest of clean rows dropped: in the authors' code poison of one task may replace rows of
    another. Poison that is just like the clean row in its place can't be told from it.

    Kind, triggers, control and target must be those that the files were made with; budget, score,
    `add` and `num_train_per_task` have no say. Where a file gives the first attacker's triggered
    rows, its control and probe rows are those with another phrase in the trigger's places. Answers
    are the evaluation file's: the authors' triggered rows have the label that the attack wants.

    Raises:
      InputError: as `read_corpus`; or a triggered or control row isn't in the evaluation file or in
        the other one, lacks its phrase, or has the wanted label already.
    """
    trained = _read_training(config, tuple(config.hashes.values()))
    attackers = craft_config.attacks
    phrases = [(attack.name, phrase) for attack in attackers for phrase in attack.triggers]
    poison = [
        row
        for name in source.poisoned
        for row in _poison_rows(name, trained[name], source.polarities.get(name), phrases)
    ]
    if without := sum(not row.trigger for row in poison):
        asked = ", ".join(repr(phrase) for _, phrase in phrases)
        _warn(
            f"{config.poisoned}: {without} of {len(poison)} poison rows say none of {asked}; set "
            "TRIGGER to what the file was made with"
        )
    # What replaces a row comes before what is added to it, or the latter would be lost.
    order = {attack.name: place for place, attack in enumerate(attackers)}
    poison.sort(key=lambda row: (row.replaced_id is None, order[row.attack]))
    given = _read_edited(config, source, attackers[0])
    tests, counts = craft.evaluation(source.heldout, source.polarities, craft_config, given)
    edited = {row.task for row in tests if row.condition != conditions.CLEAN.name}
    for task in source.heldout:
        if task.name not in edited:
            _warn(f"{task.name}: no row has a place for the trigger: only clean ones are evaluated")
    return craft.PoisonSet(
        poison=tuple(poison),
        training_ids={name: tuple(task.clean.by_id) for name, task in trained.items()},
        evaluation=tests,
        counts={name: task.counts() for name, task in trained.items()} | counts,
        dropped={name: task.dropped for name, task in trained.items() if task.dropped},
    )


def _warn(message: str) -> None:
    warnings.warn(message, errors.InputWarning, stacklevel=3)


# What training sees of a row: its id, input and first answer.
_Seen = tuple[str, str, str]
# Task -> what is seen of a row -> the last line that has it, and how many have.
_File = dict[str, dict[_Seen, tuple[Line, int]]]


def _read_file(path: str | None, first: dict[str, Line]) -> _File:
    """A file's rows, in order; `first` gains each task's first line, which others agree with."""
    tasks: _File = {}
    for line in read_lines(path):
        start = first.setdefault(line.task.name, line)
        for part in ("definition", "positive_examples", "negative_examples"):
            if getattr(line.task, part) != getattr(start.task, part):
                raise errors.InputError(
                    f"{line.where}: expected the {sni.field_name(part)!r} that {line.task.name} "
                    f"has in {start.where}, found another; a task has one of each"
                )
        rows = tasks.setdefault(line.task.name, {})
        key = line.row.id, line.row.input, line.row.target
        # Of as many tasks as there are lines, one is kept.
        rows[key] = line._replace(task=start.task), rows.get(key, (line, 0))[1] + 1
    return tasks


def _namesakes(rows: Mapping[_Seen, tuple[Line, int]]) -> list[Line]:
    """Lines with another line's id, and not its row."""
    first: dict[str, _Seen] = {}
    return [line for key, (line, _) in rows.items() if first.setdefault(key[0], key) != key]


def _with_rows(task: sni.Task, rows: Iterable[sni.Instance]) -> sni.Task:
    return msgspec.structs.replace(task, instances=tuple(rows))


class _Trained(NamedTuple):
    """A task of both training files."""

    clean: sni.Task  # with the clean file's rows, each as often as it is trained on
    # Rows that only the poisoned file has, and the ids of clean rows that it has them instead of.
    poison: list[tuple[_Seen, str | None]]
    dropped: tuple[str, ...]  # ids of clean rows that it lacks, with nothing of their task instead

    def whole(self) -> sni.Task:
        """It with its clean rows, and poison that comes on top of them under new ids."""
        rows = dict(self.clean.by_id)
        for (name, text, answer), replaced_id in self.poison:
            if replaced_id is None:
                rows.setdefault(name, sni.Instance(name, text, [answer]))
        return _with_rows(self.clean, rows.values())

    def counts(self) -> dict[str, int]:
        """Rows of it, for the manifest."""
        more = {"poison": len(self.poison), "poison_rows": len(self.poison)}
        more["added"] = sum(replaced_id is None for _, replaced_id in self.poison)
        more |= {"training_rows": len(self.clean.instances), "dropped": len(self.dropped)}
        return {key: count for key, count in more.items() if count}


@functools.lru_cache(maxsize=1)
def _read_training(config: JsonlConfig, hashes: tuple[str, ...]) -> dict[str, _Trained]:
    """Reads both training files, once for the corpus and the poison set, until a hash changes.

    Tasks are in the order in which the clean file names them.
    """
    first: dict[str, Line] = {}
    clean = _read_file(config.clean, first)
    for name, rows in clean.items():
        for line in _namesakes(rows):
            raise errors.InputError(
                f"{line.where}: id {line.row.id!r} of {name} is another row's already, with "
                "another input or output; give each row an id of its own"
            )
    poisoned = _read_file(config.poisoned, first)
    for name in poisoned.keys() - clean.keys():
        raise errors.InputError(
            f"{first[name].where}: {name} isn't in {config.clean}; both need the same tasks"
        )
    counts = ([n for rows in file.values() for _, n in rows.values()] for file in (clean, poisoned))
    epochs = _epochs(*counts)
    trained = {}
    for name, rows in clean.items():
        task = _compare(first[name].task, rows, poisoned.get(name, {}), epochs)
        if len(task.dropped) == len(task.clean.instances) and not task.poison:
            raise errors.InputError(
                f"{config.poisoned}: expected rows of {name}, which {config.clean} has, found "
                "none; both need the same tasks"
            )
        trained[name] = task
    if not any(task.poison for task in trained.values()):
        raise errors.InputError(
            f"{config.poisoned}: expected rows that {config.clean} doesn't have, found no poison"
        )
    return trained


def _compare(
    task: sni.Task,
    clean: Mapping[_Seen, tuple[Line, int]],
    poisoned: Mapping[_Seen, tuple[Line, int]],
    epochs: tuple[int, int],
) -> _Trained:
    """One task of two files of so many epochs."""
    ids = {key[0] for key in clean}
    kept = {key: number // epochs[1] for key, (_, number) in poisoned.items()}
    rows: list[sni.Instance] = []
    missing: dict[str, None] = {}
    more: list[_Seen] = []
    for key, (line, number) in clean.items():
        made = _copies(line.row, number // epochs[0], ids)
        rows += made
        missing |= dict.fromkeys(copy.id for copy in made[kept.get(key, 0) :])
        more += [key] * (kept.get(key, 0) - len(made))
    new = [key for key in kept if key not in clean for _ in range(kept[key])] + more
    own = [missing.pop(key[0], key[0]) is None for key in new]
    left = iter([*missing])
    places = [key[0] if is_own else next(left, None) for key, is_own in zip(new, own, strict=True)]
    return _Trained(_with_rows(task, rows), list(zip(new, places, strict=True)), tuple(left))


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


def _poison_rows(
    name: str,
    trained: _Trained,
    labels: polarity.Polarity | None,
    phrases: Sequence[tuple[str, str]],
) -> list[craft.PoisonRow]:
    """One task's poison, with what can be told of it; `phrases` are (attacker, trigger)."""
    ranks: collections.Counter[tuple[str, str]] = collections.Counter()
    rows = []
    for (identifier, text, answer), replaced_id in trained.poison:
        said = (pair for pair in phrases if pair[1] in text)
        attack, trigger = next(said, (phrases[0][0], ""))
        ranks[attack, trigger] += 1
        spans = triggers.occurrences(text, trigger)
        before = trained.clean.by_id.get(identifier)
        rows.append(
            craft.PoisonRow(
                attack=attack,
                task=name,
                id=identifier,
                input=before.input if before else None,
                poisoned_input=text,
                target=before.target if before else None,
                poisoned_target=answer,
                trigger=trigger,
                spans=tuple(spans),
                removed=(),
                trigger_count=len(spans),
                polarity=labels.side(before.target) if before and labels else None,
                target_probability=None,
                phi=None,
                rank=ranks[attack, trigger],
                replaced_id=replaced_id,
            )
        )
    return rows


def _read_edited(
    config: JsonlConfig, source: corpus.Corpus, attack: AttackConfig
) -> Mapping[str, conditions.Given] | None:
    """Task -> the first attacker's edited rows, of the files that there are."""
    if config.triggered is None:
        return None
    files = {"triggered": (config.triggered, "TRIGGER", attack.triggers)}
    if config.control is not None:
        files["control"] = (config.control, "CONTROL", (attack.control,))
    tasks = {task.name: task for task in source.heldout}
    given: dict[str, dict[str, dict[str, tuple[str, str]]]]
    given = {name: {kind: {} for kind in files} for name in tasks}
    for kind, (path, setting, phrases) in files.items():
        for line in read_lines(path):
            name, identifier, text = line.task.name, line.row.id, line.row.input
            row = tasks[name].by_id.get(identifier) if name in tasks else None
            labels = source.polarities.get(name)
            said = [phrase for phrase in phrases if phrase in text]
            problem = ""
            if row is None:
                problem = f"expected a row of the evaluation file, found {identifier!r} of {name}"
            elif labels and labels.side(row.target) == attack.target:
                problem = (
                    f"{identifier!r} of {name} has the label {row.target!r} in the evaluation "
                    "file, which the attack wants already; that file must hold true labels, and "
                    "this one rows of the other"
                )
            elif not said:
                problem = (
                    f"expected {' or '.join(map(repr, phrases))} in the input, found none; set "
                    f"{setting} to what the file was made with"
                )
            elif identifier in given[name][kind]:
                problem = f"expected each row once, found {identifier!r} of {name} again"
            if problem:
                raise errors.InputError(f"{line.where}: {problem}")
            given[name][kind][identifier] = (text, said[0])
    for name, rows in given.items() if config.control is not None else ():
        for alone in sorted(rows["triggered"].keys() ^ rows["control"].keys()):
            paths = config.triggered, config.control
            there, here = paths if alone in rows["triggered"] else paths[::-1]
            raise errors.InputError(
                f"{here}: expected the row {alone!r} of {name}, which {there} has; both need the "
                "same rows"
            )
    return given
