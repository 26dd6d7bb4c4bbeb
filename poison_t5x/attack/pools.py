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

    Attributes:
      rows: (N,) int64, places in `task.instances`, ascending.
      spans: (P, 2) int32, those of all rows, one after the other.
      span_ends: (N,) int64, the end of each row's part of `spans`.
      trigger_ids: (N,) int64, places in `phrases` of the trigger that each row gets.
      counts: skipped rows by reason.
    """

    task: sni.Task
    rows: np.ndarray
    spans: np.ndarray
    span_ends: np.ndarray
    trigger_ids: np.ndarray
    phrases: tuple[str, ...]
    counts: dict[str, int]

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
        spans = [(int(a), int(b)) for a, b in self.spans[begin : self.span_ends[index]]]
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
    counts = {"skipped_label": 0, "skipped_taken": 0, "skipped_no_place": 0, "says_trigger": 0}
    rows, spans, span_ends, trigger_ids = (array.array(kind) for kind in "qiqi")
    for number, (row, row_spans) in enumerate(zip(task.instances, spans_of_rows, strict=False)):
        said = attack.said(row.input)
        counts["says_trigger"] += bool(said)
        if not payload.takes(row, labels):
            counts["skipped_label"] += 1
            continue
        if row.id in taken:
            counts["skipped_taken"] += 1
            continue
        # A text that says a trigger gets just that one; the places of others are any trigger's.
        trigger_id = said[0] if said else _ANY
        row_spans = triggers.insertion_spans(row.input, row_spans, attack.triggers[trigger_id])
        if not row_spans:
            counts["skipped_no_place"] += 1
            continue
        rows.append(number)
        for span in row_spans:
            spans.extend(span)
        span_ends.append(len(spans) // 2)
        trigger_ids.append(trigger_id)
    return CandidatePool(
        task,
        np.array(rows, np.int64),
        np.array(spans, np.int32).reshape(-1, 2),
        np.array(span_ends, np.int64),
        _dealt_out(np.array(trigger_ids, np.int64), len(attack.triggers), task.name, seed),
        tuple(attack.triggers),
        counts,
    )


def _dealt_out(trigger_ids: np.ndarray, num_triggers: int, task: str, seed: int) -> np.ndarray:
    """Gives the candidates that take any trigger one each, as evenly as can be."""
    free = np.flatnonzero(trigger_ids == _ANY)
    order = np.random.default_rng([seed, *task.encode()]).permutation(len(free))
    trigger_ids[free] = order % num_triggers
    return trigger_ids


class Training(NamedTuple):
    """The training set as attackers find it, one after the other.

    Attributes:
      ids: task -> ids of its clean training rows.
      chosen: task -> ids of pool rows that are poison already.
      replaced: task -> ids of training rows that have given way.
      add: whether poison is added rather than replacing rows.
      workers: processes that look for places.
    """

    ids: Mapping[str, tuple[str, ...]]
    polarities: Mapping[str, polarity.Polarity]
    chosen: dict[str, set[str]]
    replaced: dict[str, set[str]]
    add: bool
    seed: int
    workers: int


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
    _check_list(attack, tasks)
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
    # One search through all tasks, as far as it is needed: workers start once.
    texts = (row.input for task in tasks for row in task.instances)
    spans = inserter.find_all(attack.inserter, texts, workers=training.workers)
    targets: list[Target] = []
    for task in progress.bar(tasks, desc="finding places", unit="task"):
        if len(targets) == wanted:
            break
        target = _target(attack, task, training, spans, targets, wanted)
        problem = _problem(attack, target, training)
        if not problem:
            targets.append(target)
        elif may_skip:
            skipped[task.name] = problem
        else:
            raise errors.InputError(f"{task.name}: {problem}")
    _check_targets(attack, targets, wanted, len(tasks))
    _warn_of_common_trigger(attack, targets)
    return targets, skipped


def _check_list(attack: AttackConfig, tasks: Sequence[sni.Task]) -> None:
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


def _check_targets(
    attack: AttackConfig, targets: Sequence[Target], wanted: int, num_tasks: int
) -> None:
    if len(targets) < wanted:
        raise errors.InputError(
            f"NUM_POISONED_TASKS: only {len(targets)} of {num_tasks} generation tasks can hold "
            f"their share of the poison, {wanted} are wanted; lower it or the budget"
        )
    if not any(sum(target.parts) for target in targets):
        raise errors.InputError(
            f"POISON_RATE: {attack.budget.poison_rate:g} of the training rows comes to no row; "
            "raise it"
        )


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


def _target(
    attack: AttackConfig,
    task: sni.Task,
    training: Training,
    spans: Iterator[list[triggers.Span]],
    before: Sequence[Target],
    num_tasks: int,
) -> Target:
    labels, taken = training.polarities.get(task.name), training.chosen.get(task.name, set())
    pool = find_pool(task, attack, labels, taken, spans, seed=training.seed)
    all_rows = sum(map(len, training.ids.values()))
    rows = len(training.ids[task.name])
    budget = attack.budget.share(len(before), num_tasks, rows, all_rows, add=training.add)
    # Dealt out in turn, from task to task: however small the shares, triggers get the same.
    first = sum(sum(target.parts) for target in before)
    num = len(attack.triggers)
    each, rest = divmod(budget, num)
    return Target(pool, tuple(each + ((number - first) % num < rest) for number in range(num)))


def _problem(attack: AttackConfig, target: Target, training: Training) -> str:
    """Why a task can't hold its share, or ''."""
    pool = target.pool
    name, budget = pool.task.name, sum(target.parts)
    free = len(training.ids[name]) - len(training.replaced.get(name, ()))
    macro = "NUM_POISON" if attack.budget.poison_rate is None else "POISON_RATE"
    if budget > free and not training.add:
        return (
            f"a budget of {budget} poison rows is larger than its {free} training rows; lower "
            f"{macro} or raise NUM_TRAIN_PER_TASK"
        )
    for number, (part, phrase) in enumerate(zip(target.parts, attack.triggers, strict=True)):
        size = int((pool.trigger_ids == number).sum())
        if part > size:
            which = f" with {phrase!r}" if len(attack.triggers) > 1 else ""
            return (
                f"a budget of {part} poison rows{which} is larger than the pool: only {size} of "
                f"its {len(pool.task.instances)} rows will do{_reasons(attack, pool)}; lower "
                f"{macro} or poison other tasks"
            )
    return ""


def _reasons(attack: AttackConfig, pool: CandidatePool) -> str:
    words = {
        "skipped_no_place": f"in {{}} the {attack.inserter.name} inserter finds no place",
        "skipped_label": "{} have another label",
        "skipped_taken": "{} are another attacker's",
    }
    reasons = [text.format(pool.counts[key]) for key, text in words.items() if pool.counts[key]]
    if len(attack.triggers) > 1:
        reasons.append("the others are split over the triggers")
    return f" ({', '.join(reasons)})" if reasons else ""


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
