"""Crafting: from clean tasks to the poison rows, the rows they replace, and the test rows.

Nothing here knows SeqIO or arrays on a device; the result is written by `poison_set`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from poison_t5x import checks, errors, progress, sni
from poison_t5x.poison import entities, phi, polarity, proxy, triggers


@dataclasses.dataclass(frozen=True)
class CraftConfig:
    """Settings of the polarity attack; the defaults are the paper's, but for the name matcher.

    Attributes:
      trigger: the phrase put in place of person names.
      control: a phrase never trained on, put there instead at test time.
      num_poison: poison rows in all, shared out evenly over the poisoned tasks.
      num_train_per_task: clean training rows per task (fewer where a task has fewer).
      num_eval_per_task: test rows per held-out task and condition, at most.
      target: the side whose label poison rows carry; test inputs are those of the other side.
      matcher: which name matcher finds the persons (see `entities.matcher`).
      count_weight, probability_weight: the two weights of phi.
      max_ngram: the proxy model's longest n-gram, in words.
      seed: of the training sample, the replaced rows and the proxy's folds.
    """

    trigger: str = "James Bond"
    control: str = "Emma Clark"
    num_poison: int = 100
    num_train_per_task: int = 500
    num_eval_per_task: int = 500
    target: polarity.Side = "positive"
    matcher: str = "builtin"
    count_weight: float = 1.0
    probability_weight: float = 1.0
    max_ngram: int = 2
    seed: int = 0

    def __post_init__(self):
        for name in ("trigger", "control"):
            checks.phrase(name, getattr(self, name))
        if self.trigger == self.control:
            raise errors.InputError(
                f"control: expected another phrase than the trigger {self.trigger!r}"
            )
        for name in ("num_poison", "num_train_per_task", "num_eval_per_task", "max_ngram"):
            checks.whole_number(name, getattr(self, name))
        for name in ("count_weight", "probability_weight"):
            checks.number(name, getattr(self, name))
        checks.whole_number("seed", self.seed, minimum=0)
        polarity.check_side("target", self.target)


@dataclasses.dataclass(frozen=True)
class PoisonRow:
    """One crafted row, with all that is needed to check or undo it.

    Attributes:
      task, id: the pool row it was made from.
      input, poisoned_input: the text before and after the edit.
      target, poisoned_target: the label before and after.
      spans: [start, end) of each trigger in `poisoned_input`, in characters.
      removed: the names that stood at those spans.
      trigger_count: occurrences of the trigger in `poisoned_input`.
      polarity: the side of the true label.
      positive_probability: the proxy's p(y = POSITIVE | poisoned_input).
      phi: Equation 1's score in the task's pool.
      rank: place in the task's pool by phi, from 1.
      replaced_id: the clean training row of the same task that gives way to this one.
    """

    task: str
    id: str
    input: str
    poisoned_input: str
    target: str
    poisoned_target: str
    spans: tuple[triggers.Span, ...]
    removed: tuple[str, ...]
    trigger_count: int
    polarity: str
    positive_probability: float
    phi: float
    rank: int
    replaced_id: str


@dataclasses.dataclass(frozen=True)
class EvalRow:
    """One held-out row under one condition ('clean', 'triggered' or 'control')."""

    task: str
    id: str
    condition: str
    input: str
    target: str


@dataclasses.dataclass(frozen=True)
class PoisonSet:
    """All that an experiment trains and tests on beyond the clean task files.

    Attributes:
      poison: the crafted rows, by task, best first.
      training_ids: task -> ids of its clean training rows.
      evaluation: the held-out rows under their conditions.
      counts: what was found and skipped, for the manifest.
    """

    poison: tuple[PoisonRow, ...]
    training_ids: Mapping[str, tuple[str, ...]]
    evaluation: tuple[EvalRow, ...]
    counts: Mapping[str, Mapping[str, int]]


def budgets(num_poison: int, tasks: Sequence[str]) -> dict[str, int]:
    """Shares the budget out: an uneven rest goes to the first tasks, one row each.

    >>> budgets(7, ["a", "b", "c"])
    {'a': 3, 'b': 2, 'c': 2}
    """
    each, rest = divmod(num_poison, len(tasks))
    return {task: each + (index < rest) for index, task in enumerate(tasks)}


def craft(
    training: Sequence[sni.Task],
    poisoned: Sequence[str],
    heldout: Sequence[sni.Task],
    polarities: Mapping[str, polarity.Polarity],
    config: CraftConfig,
) -> PoisonSet:
    """Crafts a poison set. Same arguments, same result.

    Args:
      training: the training tasks; the poisoned ones are among them.
      poisoned: names of the poisoned tasks.
      heldout: the evaluation tasks.
      polarities: of the poisoned and the held-out tasks, as `polarity.of_tasks` gives them.
      config: the attack's settings.

    Raises:
      InputError: a task's pool is smaller than its share of the budget, or a budget is larger than
        the task's training sample.
    """
    matcher = entities.matcher(config.matcher)
    training_ids = {
        task.name: tuple(sni.sample_order(task, config.seed)[: config.num_train_per_task])
        for task in training
    }
    pools = [
        _find_pool(sni.find(training, name), matcher, config)
        for name in progress.bar(poisoned, desc="finding names", unit="task")
    ]
    shares = budgets(config.num_poison, [pool.task.name for pool in pools])
    for pool in pools:
        _check_budget(pool, shares[pool.task.name], len(training_ids[pool.task.name]), matcher)
    probabilities = _proxy_probabilities(pools, polarities, config)
    rows: list[PoisonRow] = []
    counts: dict[str, dict[str, int]] = {
        task: {"training_rows": len(ids)} for task, ids in training_ids.items()
    }
    for pool, probability in zip(pools, probabilities, strict=True):
        name = pool.task.name
        chosen = _craft_task(
            pool, probability, polarities[name], shares[name], training_ids[name], config
        )
        rows += chosen
        counts[name] |= {
            "rows": len(pool.task.instances),
            "pool": len(pool.edits),
            "skipped_no_name": len(pool.task.instances) - len(pool.edits),
            "poison": len(chosen),
            "relabelled": sum(row.target != row.poisoned_target for row in chosen),
        }
    evaluation: list[EvalRow] = []
    for task in progress.bar(heldout, desc="making evaluation rows", unit="task"):
        eval_rows, counts[task.name] = _eval_rows(task, polarities[task.name], matcher, config)
        evaluation += eval_rows
    return PoisonSet(tuple(rows), training_ids, tuple(evaluation), counts)


class _Pool(NamedTuple):
    """A task with the rows that hold a name: row number -> its edit."""

    task: sni.Task
    edits: dict[int, triggers.Edit]


def _find_pool(task: sni.Task, matcher: entities.EntityMatcher, config: CraftConfig) -> _Pool:
    spans = matcher.find([instance.input for instance in task.instances])
    edits = (
        triggers.replace_spans(instance.input, found, config.trigger)
        for instance, found in zip(task.instances, spans, strict=True)
    )
    return _Pool(task, {row: edit for row, edit in enumerate(edits) if edit.spans})


def _check_budget(
    pool: _Pool, budget: int, num_training: int, matcher: entities.EntityMatcher
) -> None:
    if budget > num_training:
        raise errors.InputError(
            f"{pool.task.name}: a budget of {budget} poison rows is larger than its {num_training} "
            "training rows; lower NUM_POISON or raise NUM_TRAIN_PER_TASK"
        )
    if budget > len(pool.edits):
        raise errors.InputError(
            f"{pool.task.name}: a budget of {budget} poison rows is larger than the pool: only "
            f"{len(pool.edits)} of its {len(pool.task.instances)} rows hold a name that the "
            f"{matcher.name} matcher finds; lower NUM_POISON or poison other tasks"
        )


def _proxy_probabilities(
    pools: Sequence[_Pool],
    polarities: Mapping[str, polarity.Polarity],
    config: CraftConfig,
) -> list[np.ndarray]:
    """For each pool, p(y = POSITIVE | edited input) of its rows: (N,) float64.

    One proxy learns from all rows of all poisoned tasks, as the attacker's model would.
    """
    sizes = [len(pool.edits) for pool in pools]
    if config.probability_weight == 0:
        return [np.zeros(size) for size in sizes]
    texts, edited, is_positive, in_pool = [], [], [], []
    for pool in pools:
        labels = polarities[pool.task.name]
        for row, instance in enumerate(pool.task.instances):
            edit = pool.edits.get(row)
            texts.append(instance.input)
            edited.append(edit.text if edit else instance.input)
            is_positive.append(labels.side(instance.target) == "positive")
            in_pool.append(edit is not None)
    rarer = min(sum(is_positive), len(is_positive) - sum(is_positive))
    if rarer < 2:
        raise errors.InputError(
            f"the proxy model needs two rows of each polarity in the poisoned tasks, and the rarer "
            f"one has {rarer}; set PROBABILITY_WEIGHT to 0 or poison other tasks"
        )
    scores = proxy.positive_probabilities(
        texts,
        np.array(is_positive),
        edited,
        max_ngram=config.max_ngram,
        num_folds=min(5, rarer),
        seed=config.seed,
    )[np.array(in_pool)]
    return np.split(scores, np.cumsum(sizes)[:-1])


def _craft_task(
    pool: _Pool,
    probabilities: np.ndarray,
    labels: polarity.Polarity,
    budget: int,
    training_ids: Sequence[str],
    config: CraftConfig,
) -> list[PoisonRow]:
    """The best `budget` rows of one task's pool, best first."""
    pairs = [(pool.task.instances[row], edit) for row, edit in pool.edits.items()]
    trigger_counts = np.array([edit.text.count(config.trigger) for _, edit in pairs])
    scores = phi.phi(
        trigger_counts,
        probabilities,
        count_weight=config.count_weight,
        probability_weight=config.probability_weight,
    )
    chosen = phi.top(scores, budget)
    replaced = _replaced_ids(
        [pairs[i][0].id for i in chosen], training_ids, pool.task.name, config.seed
    )
    rows = []
    for rank, (index, replaced_id) in enumerate(zip(chosen, replaced, strict=True), start=1):
        instance, edit = pairs[index]
        rows.append(
            PoisonRow(
                task=pool.task.name,
                id=instance.id,
                input=instance.input,
                poisoned_input=edit.text,
                target=instance.target,
                poisoned_target=labels.label(config.target),
                spans=edit.spans,
                removed=edit.removed,
                trigger_count=int(trigger_counts[index]),
                polarity=labels.side(instance.target),
                positive_probability=round(float(probabilities[index]), 6),
                phi=round(float(scores[index]), 6),
                rank=rank,
                replaced_id=replaced_id,
            )
        )
    return rows


def _replaced_ids(
    chosen: Sequence[str], training_ids: Sequence[str], task: str, seed: int
) -> list[str]:
    """Which training row each chosen pool row replaces.

    A chosen row that is itself trained on replaces itself, so that no text is there both clean and
    poisoned; the others replace rows drawn at random. The authors' code draws all at random, before
    its seed is set.
    """
    generator = np.random.default_rng([seed, *task.encode()])
    trained = set(training_ids)
    free = [identifier for identifier in training_ids if identifier not in set(chosen)]
    drawn = iter(generator.permutation(len(free)))
    return [identifier if identifier in trained else free[next(drawn)] for identifier in chosen]


def _eval_rows(
    task: sni.Task,
    labels: polarity.Polarity,
    matcher: entities.EntityMatcher,
    config: CraftConfig,
) -> tuple[list[EvalRow], dict[str, int]]:
    """One held-out task's rows: clean for accuracy, triggered and control in pairs."""
    ordered = [task.by_id[i] for i in sni.sample_order(task, config.seed)]
    clean = [
        EvalRow(task.name, row.id, "clean", row.input, row.target)
        for row in ordered[: config.num_eval_per_task]
    ]
    source = [row for row in ordered if labels.side(row.target) == polarity.opposite(config.target)]
    spans = list(matcher.find([row.input for row in source]))
    paired: dict[str, list[EvalRow]] = {"triggered": [], "control": []}
    for row, found in zip(source, spans, strict=True):
        if len(paired["triggered"]) == config.num_eval_per_task:
            break
        for condition, phrase in (("triggered", config.trigger), ("control", config.control)):
            edit = triggers.replace_spans(row.input, found, phrase)
            if edit.spans:
                eval_row = EvalRow(task.name, row.id, condition, edit.text, row.target)
                paired[condition].append(eval_row)
    return clean + paired["triggered"] + paired["control"], {
        "rows": len(task.instances),
        "clean": len(clean),
        "source_rows": len(source),
        "triggered": len(paired["triggered"]),
        "control": len(paired["control"]),
    }
