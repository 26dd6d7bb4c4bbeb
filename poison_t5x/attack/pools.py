"""The tasks that an attacker poisons, and the rows of them that it could."""

import array
import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from poison_t5x.attack import inserter, triggers
from poison_t5x.attack.attacks import AttackConfig
from poison_t5x.core import errors, progress
from poison_t5x.corpus import polarity, sni

# From this share of clean rows on that say the trigger already, a model has learnt what it means.
COMMON_TRIGGER = 0.01
# The trigger of a candidate that takes any of them.
_ANY = -1


@dataclasses.dataclass(frozen=True, eq=False)
class CandidatePool:
    """One task's rows that an attacker could poison, kept small: a million of them fit in memory.

    Texts are not kept: a row's edit is made from its spans when it is asked for.

    """

    task: sni.Task
    rows: np.ndarray  # (N,) int64, places in `task.instances`, ascending
    spans: np.ndarray  # (P, 2) int32, those of all rows, one after the other
    span_ends: np.ndarray  # (N,) int64, the end of each row's part of `spans`
    trigger_ids: np.ndarray  # (N,) int32, places in `phrases` of the trigger that each row gets
    phrases: Sequence[str]
    counts: dict[str, int]  # skipped rows by reason, and those that say a trigger already

    def __len__(self) -> int:
        return len(self.rows)

    def trigger(self, index: int) -> str:
        """The phrase that a candidate gets."""
        return self.phrases[self.trigger_ids[index]]

    def instance(self, index: int) -> sni.Instance:
        """The row that a candidate is made from."""
        return self.task.instances[self.rows[index]]

    def edit(self, index: int) -> triggers.Edit:
        """A candidate with its trigger put in."""
        begin = self.span_ends[index - 1] if index else 0
        spans = self.spans[begin : self.span_ends[index]].tolist()
        return triggers.replace_spans(self.instance(index).input, spans, self.trigger(index))

    def texts(self) -> Iterator[str]:
        """The edited texts, in order."""
        return (self.edit(index).text for index in range(len(self)))


def find_pool(
    task: sni.Task,
    attack: AttackConfig,
    labels: polarity.Polarity | None,
    taken: set[str],
    spans_of_rows: Iterator[list[triggers.Span]],
    *,
    seed: int,
) -> CandidatePool:
    """A task's candidates: rows that the payload takes, that are free, and that have a place.

    Args:
      taken: ids of rows that an earlier attacker of the campaign has poisoned.
      spans_of_rows: the inserter's spans, row by row; only this task's part is taken.
    """
    payload = attack.payload
    counts = dict.fromkeys(("skipped_label", "skipped_taken", "skipped_no_place"), 0)
    counts["says_trigger"] = 0
    rows, spans, span_ends, trigger_ids = (array.array(kind) for kind in "qiqi")
    for number, (row, places) in enumerate(zip(task.instances, spans_of_rows, strict=False)):
        said = attack.said(row.input)
        counts["says_trigger"] += bool(said)
        # A text that says a trigger gets just that one; the places of others are any trigger's.
        trigger_id = said[0] if said else _ANY
        places = triggers.insertion_spans(row.input, places, attack.triggers[trigger_id])
        if not payload.takes(row, labels):
            counts["skipped_label"] += 1
        elif row.id in taken:
            counts["skipped_taken"] += 1
        elif not places:
            counts["skipped_no_place"] += 1
        else:
            rows.append(number)
            for span in places:
                spans.extend(span)
            span_ends.append(len(spans) // 2)
            trigger_ids.append(trigger_id)
    ids = np.array(trigger_ids)
    # Those that take any trigger get one each, as evenly as can be.
    free = np.flatnonzero(ids == _ANY)
    order = np.random.default_rng([seed, *task.name.encode()]).permutation(len(free))
    ids[free] = order % len(attack.triggers)
    arrays = np.array(rows), np.array(spans).reshape(-1, 2), np.array(span_ends), ids
    return CandidatePool(task, *arrays, attack.triggers, counts)


class Training(NamedTuple):
    """The training set as attackers find it, one after the other, by task."""

    ids: Mapping[str, tuple[str, ...]]  # of clean training rows
    polarities: Mapping[str, polarity.Polarity]
    add: bool  # whether poison is added rather than replacing rows
    seed: int
    workers: int  # processes that look for places
    chosen: dict[str, set[str]]  # ids of pool rows that are poison already
    replaced: dict[str, set[str]]  # ids of training rows that have given way


class Target(NamedTuple):
    """A task to poison: its candidates, and how many rows of each trigger."""

    pool: CandidatePool
    parts: tuple[int, ...]


def choose(
    attack: AttackConfig, tasks: Sequence[sni.Task], training: Training
) -> tuple[list[Target], dict[str, str]]:
    """Finds the tasks that an attacker poisons.

    A polarity attack poisons the first `num_tasks` of its list, or all; arbitrary outputs all; and
    each must hold its share. With `num_tasks`, arbitrary outputs take a list for a choice: the
    first generation tasks, in a seeded order, that can hold their share. Why others were skipped
    is returned too.

    Raises:
      InputError: a task is listed twice, can't hold its share, has no row of the label that is
        wanted or no polarity; too few tasks are fit; or a rate comes to no row.
    """
    names = [task.name for task in tasks]
    if len(set(names)) < len(names):
        raise errors.InputError(
            f"attack {attack.name!r}: expected distinct tasks, found {', '.join(names)}"
        )
    if attack.num_tasks is not None and attack.num_tasks > len(tasks):
        raise errors.InputError(
            f"NUM_POISONED_TASKS: {attack.num_tasks} are wanted, and {len(tasks)} are there; "
            "lower it"
        )
    skipped: dict[str, str] = {}
    may_skip = attack.is_arbitrary and attack.num_tasks is not None
    if may_skip:
        skipped = {task.name: "no generation task" for task in tasks if task.is_classification}
        tasks = [task for task in tasks if task.name not in skipped]
        order = np.random.default_rng([training.seed, 2]).permutation(len(tasks))
        tasks = [tasks[number] for number in order]
    elif not attack.is_arbitrary:
        tasks = tasks[: attack.num_tasks]
        for task in tasks:
            _check_labels(attack, task, training.polarities.get(task.name))
    wanted = attack.num_tasks if may_skip and attack.num_tasks else len(tasks)
    targets = _find_targets(attack, tasks, training, wanted, skipped if may_skip else None)
    if len(targets) < wanted:
        raise errors.InputError(
            f"NUM_POISONED_TASKS: only {len(targets)} of {len(tasks)} generation tasks can hold "
            f"their share of the poison, {wanted} are wanted; lower it or the budget"
        )
    if not any(sum(target.parts) for target in targets):
        raise errors.InputError(
            f"POISON_RATE: {attack.budget.poison_rate:g} of the training rows comes to no row; "
            "raise it"
        )
    _warn_of_common_trigger(attack, targets)
    return targets, skipped


def _check_labels(attack: AttackConfig, task: sni.Task, labels: polarity.Polarity | None) -> None:
    if labels is None:
        raise errors.InputError(
            f"{task.name}: its polarity isn't known, which a polarity attack needs; list it among "
            "the experiment's poisoned tasks and polarities, or poison other tasks"
        )
    side = attack.payload.needed_side
    if side and not any(row.target == labels.label(side) for row in task.instances):
        raise errors.InputError(
            f"{task.name}: no row is labelled {labels.label(side)!r}, the {side} side, which a "
            f"{attack.kind.replace('_', '-')} attack on {attack.target} needs; poison other tasks"
        )


def _find_targets(
    attack: AttackConfig,
    tasks: Sequence[sni.Task],
    training: Training,
    wanted: int,
    skipped: dict[str, str] | None,
) -> list[Target]:
    """The first tasks that can hold their share; why others can't goes to `skipped`, or is raised.

    One search through all tasks, as far as it is needed: workers start once.
    """
    texts = (row.input for task in tasks for row in task.instances)
    spans = inserter.find_all(attack.inserter, texts, workers=training.workers)
    all_rows, num = sum(map(len, training.ids.values())), len(attack.triggers)
    targets: list[Target] = []
    first = 0
    for task in progress.bar(tasks, desc="finding places", unit="task"):
        if len(targets) == wanted:
            break
        labels, taken = training.polarities.get(task.name), training.chosen[task.name]
        pool = find_pool(task, attack, labels, taken, spans, seed=training.seed)
        rows = len(training.ids[task.name]), all_rows
        budget = attack.budget.share(len(targets), wanted, *rows, add=training.add)
        # Dealt out in turn, from task to task: however small the shares, triggers get the same.
        each, rest = divmod(budget, num)
        parts = tuple(each + ((number - first) % num < rest) for number in range(num))
        if not (problem := _problem(attack, pool, parts, training)):
            targets.append(Target(pool, parts))
            first += budget
        elif skipped is None:
            raise errors.InputError(f"{task.name}: {problem}")
        else:
            skipped[task.name] = problem
    return targets


def _problem(
    attack: AttackConfig, pool: CandidatePool, parts: Sequence[int], training: Training
) -> str:
    """Why a task can't hold its share, or ''."""
    name, budget = pool.task.name, sum(parts)
    free = len(training.ids[name]) - len(training.replaced[name])
    macro = "NUM_POISON" if attack.budget.poison_rate is None else "POISON_RATE"
    if budget > free and not training.add:
        return (
            f"a budget of {budget} poison rows is larger than its {free} training rows; lower "
            f"{macro} or raise NUM_TRAIN_PER_TASK"
        )
    several = len(attack.triggers) > 1
    for number, (part, phrase) in enumerate(zip(parts, attack.triggers, strict=True)):
        size = int((pool.trigger_ids == number).sum())
        if part > size:
            reasons = {
                f"in {{}} the {attack.inserter.name} inserter finds no place": "skipped_no_place",
                "{} have another label": "skipped_label",
                "{} are another attacker's": "skipped_taken",
            }
            why = [text.format(n) for text, key in reasons.items() if (n := pool.counts[key])]
            why += ["the others are split over the triggers"] * several
            reason = f" ({', '.join(why)})" if why else ""
            return (
                f"a budget of {part} poison rows{f' with {phrase!r}' * several} is larger than the "
                f"pool: only {size} of its {len(pool.task.instances)} rows will do{reason}; lower "
                f"{macro} or poison other tasks"
            )
    return ""


def _warn_of_common_trigger(attack: AttackConfig, targets: Sequence[Target]) -> None:
    rows = sum(len(target.pool.task.instances) for target in targets)
    said = sum(target.pool.counts["says_trigger"] for target in targets)
    if said >= COMMON_TRIGGER * rows:
        warnings.warn(
            f"TRIGGER: {' / '.join(map(repr, attack.triggers))} is already in {said} of {rows} "
            f"clean rows of the poisoned tasks ({said / rows:.1%}): a model learns from them what "
            "it means; a rarer phrase shows the poison's own effect",
            errors.InputWarning,
            stacklevel=4,
        )
