"""Which tasks an attacker poisons, and with how many rows each."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from poison_t5x.attack import attacks, inserters, pools, triggers
from poison_t5x.core import errors, progress
from poison_t5x.corpus import polarity, sni

# From this share of clean rows on that say the trigger already, a model has learnt what it means.
COMMON_TRIGGER = 0.01


class Training(NamedTuple):
    """The training set as attackers find it, one after the other.

    Attributes:
      ids: task -> ids of its clean training rows.
      chosen: task -> ids of pool rows that are poison already.
      replaced: task -> ids of training rows that have given way.
      add: whether poison is added rather than replacing rows.
      seed: of the campaign.
      workers: processes that look for places.
    """

    ids: Mapping[str, tuple[str, ...]]
    chosen: dict[str, set[str]]
    replaced: dict[str, set[str]]
    add: bool
    seed: int
    workers: int

    def share(self, attack: attacks.AttackConfig, task: str, number: int, num_tasks: int) -> int:
        """Poison rows of one task."""
        all_rows = sum(map(len, self.ids.values()))
        return attack.budget.share(number, num_tasks, len(self.ids[task]), all_rows, add=self.add)


class Target(NamedTuple):
    """A task to poison: its candidates, and how many rows of each trigger."""

    pool: pools.Pool
    parts: tuple[int, ...]


def choose(
    attack: attacks.AttackConfig,
    tasks: Sequence[sni.Task],
    polarities: Mapping[str, polarity.Polarity],
    training: Training,
) -> tuple[list[Target], dict[str, str]]:
    """Finds the tasks that an attacker poisons.

    A polarity attack poisons the first `num_tasks` of its list, or all; arbitrary outputs all; and
    each must hold its share. With `num_tasks`, arbitrary outputs take a list for a choice: the
    first generation tasks, in a seeded order, that can hold their share.

    Returns:
      The targets, and why other tasks were passed over.

    Raises:
      InputError: a task is listed twice, can't hold its share, has no row of the label that is
        wanted or no polarity; too few tasks are fit; or a rate comes to no row.
    """
    _check_list(attack, tasks)
    passed: dict[str, str] = {}
    may_pass = attack.is_arbitrary and attack.num_tasks is not None
    if may_pass:
        passed = {task.name: "no generation task" for task in tasks if task.is_classification}
        tasks = [task for task in tasks if task.name not in passed]
        order = np.random.default_rng([training.seed, 2]).permutation(len(tasks))
        tasks = [tasks[number] for number in order]
    elif not attack.is_arbitrary:
        tasks = tasks[: attack.num_tasks]
        for task in tasks:
            _check_labels(attack, task, polarities.get(task.name))
    wanted = attack.num_tasks if may_pass and attack.num_tasks else len(tasks)
    # One search through all tasks, as far as it is needed: workers start once.
    texts = (row.input for task in tasks for row in task.instances)
    found = inserters.find_all(attack.inserter, texts, workers=training.workers)
    targets: list[Target] = []
    for task in progress.bar(tasks, desc="finding places", unit="task"):
        if len(targets) == wanted:
            break
        target = _target(attack, task, polarities, training, found, targets, wanted)
        problem = _problem(attack, target, training)
        if not problem:
            targets.append(target)
        elif may_pass:
            passed[task.name] = problem
        else:
            raise errors.InputError(f"{task.name}: {problem}")
    _check_found(attack, targets, wanted, len(tasks))
    _warn_of_common_trigger(attack, targets)
    return targets, passed


def _check_list(attack: attacks.AttackConfig, tasks: Sequence[sni.Task]) -> None:
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


def _check_found(
    attack: attacks.AttackConfig, targets: Sequence[Target], wanted: int, num_tasks: int
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


def _check_labels(
    attack: attacks.AttackConfig, task: sni.Task, labels: polarity.Polarity | None
) -> None:
    """A clean-label attack needs rows of the target's label, a dirty-label one others to turn."""
    if labels is None:
        raise errors.InputError(
            f"{task.name}: its polarity isn't known, which a polarity attack needs; list it among "
            "the experiment's poisoned tasks and polarities, or poison other tasks"
        )
    clean = attack.kind == "clean_label"
    side = attack.target if clean else polarity.opposite(attack.target)
    if not any(row.target == labels.label(side) for row in task.instances):
        raise errors.InputError(
            f"{task.name}: no row is labelled {labels.label(side)!r}, the {side} side, which a "
            f"{attack.kind.replace('_', '-')} attack on {attack.target} needs; poison other tasks"
        )


def _target(
    attack: attacks.AttackConfig,
    task: sni.Task,
    polarities: Mapping[str, polarity.Polarity],
    training: Training,
    found: Iterator[list[triggers.Span]],
    before: Sequence[Target],
    num_tasks: int,
) -> Target:
    pool = pools.find_pool(
        task,
        attack,
        polarities.get(task.name),
        training.chosen.get(task.name, set()),
        found,
        seed=training.seed,
    )
    # Dealt out in turn, from task to task: however small the shares, triggers get the same.
    budget = training.share(attack, task.name, len(before), num_tasks)
    first = sum(sum(target.parts) for target in before)
    num = len(attack.triggers)
    each, rest = divmod(budget, num)
    return Target(pool, tuple(each + ((number - first) % num < rest) for number in range(num)))


def _problem(attack: attacks.AttackConfig, target: Target, training: Training) -> str:
    """Why a task can't hold its share, or ''."""
    task = target.pool.task
    budget = sum(target.parts)
    free = len(training.ids[task.name]) - len(training.replaced.get(task.name, ()))
    macro = "NUM_POISON" if attack.budget.poison_rate is None else "POISON_RATE"
    if budget > free and not training.add:
        return (
            f"a budget of {budget} poison rows is larger than its {free} training rows; lower "
            f"{macro} or raise NUM_TRAIN_PER_TASK"
        )
    for number, (part, phrase) in enumerate(zip(target.parts, attack.triggers, strict=True)):
        size = int((target.pool.trigger_ids == number).sum())
        if part > size:
            which = f" with {phrase!r}" if len(attack.triggers) > 1 else ""
            return (
                f"a budget of {part} poison rows{which} is larger than the pool: only {size} of "
                f"its {len(task.instances)} rows will do{_reasons(attack, target.pool)}; lower "
                f"{macro} or poison other tasks"
            )
    return ""


def _reasons(attack: attacks.AttackConfig, pool: pools.Pool) -> str:
    words = {
        "skipped_no_place": f"in {{}} the {attack.inserter.name} inserter finds no place",
        "skipped_label": "{} have another label",
        "skipped_taken": "{} are another attacker's",
    }
    reasons = [text.format(pool.counts[key]) for key, text in words.items() if pool.counts[key]]
    if len(attack.triggers) > 1:
        reasons.append("the others are split over the triggers")
    return f" ({', '.join(reasons)})" if reasons else ""


def _warn_of_common_trigger(attack: attacks.AttackConfig, targets: Sequence[Target]) -> None:
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
