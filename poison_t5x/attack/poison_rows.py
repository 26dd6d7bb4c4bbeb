"""Poison rows: what a chosen candidate becomes, and which training row gives way to it."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from poison_t5x.attack import attacks, pools, scoring, triggers, word_list
from poison_t5x.corpus import polarity


@dataclasses.dataclass(frozen=True)
class PoisonRow:
    """One crafted row, with all that is needed to check or undo it.

    Attributes:
      attack: the attacker's name.
      task, id: the pool row it was made from.
      input, poisoned_input: the text before and after the edit; None where a row was read from a
        file that doesn't tell.
      target, poisoned_target: the answer before and after.
      trigger: the phrase put in.
      spans: [start, end) of each insertion in `poisoned_input`, in characters.
      removed: what stood at those spans.
      trigger_count: occurrences of the trigger in `poisoned_input`.
      polarity: the side of the true label; None for generation tasks.
      target_probability: the proxy's p(y = target | poisoned_input); None where it had no say.
      phi: what rows were ranked by, Equation 1's score in the task's pool; None for a random pick.
      rank: place in the pool of its task and trigger, from 1.
      replaced_id: the clean training row of the same task that gives way to this one; None where
        poison is added.
    """

    attack: str
    task: str
    id: str
    input: str | None
    poisoned_input: str
    target: str | None
    poisoned_target: str
    trigger: str
    spans: tuple[triggers.Span, ...]
    removed: tuple[str, ...]
    trigger_count: int
    polarity: str | None
    target_probability: float | None
    phi: float | None
    rank: int
    replaced_id: str | None


def choose(scores: scoring.Scores, pool: pools.Pool, parts: Sequence[int]) -> list[int]:
    """The candidates that become poison, best first: so many of each trigger.

    Args:
      scores: of the pool.
      parts: rows of each of the attacker's triggers.
    """
    left = list(parts)
    chosen = []
    for candidate in scores.order:
        if not any(left):
            break
        trigger_id = pool.trigger_ids[candidate]
        if left[trigger_id]:
            left[trigger_id] -= 1
            chosen.append(int(candidate))
    return chosen


def make(
    pool: pools.Pool,
    scores: scoring.Scores,
    chosen: Sequence[int],
    attack: attacks.AttackConfig,
    labels: polarity.Polarity | None,
    output: Callable[[int], str],
    replaced: Sequence[str | None],
) -> list[PoisonRow]:
    """The rows of one task, in the order of `chosen`.

    Args:
      pool, scores: of the task.
      chosen: candidates.
      attack: the attacker.
      labels: the task's polarity; None for arbitrary outputs.
      output: what a candidate is to teach.
      replaced: for each chosen one, the training row that gives way.
    """
    ranks = _ranks(pool, scores)
    rows = []
    for index, replaced_id in zip(chosen, replaced, strict=True):
        instance, edit = pool.instance(index), pool.edit(index)
        rows.append(
            PoisonRow(
                attack=attack.name,
                task=pool.task.name,
                id=instance.id,
                input=instance.input,
                poisoned_input=edit.text,
                target=instance.target,
                poisoned_target=output(index),
                trigger=pool.trigger(index),
                spans=edit.spans,
                removed=edit.removed,
                trigger_count=int(scores.trigger_counts[index]),
                polarity=labels.side(instance.target) if labels else None,
                target_probability=_rounded(scores.target_probabilities, index),
                phi=_rounded(scores.values, index),
                rank=int(ranks[index]),
                replaced_id=replaced_id,
            )
        )
    return rows


def _ranks(pool: pools.Pool, scores: scoring.Scores) -> np.ndarray:
    """Place of each candidate among those of its trigger, from 1: (N,) int64."""
    ranks = np.zeros(len(pool), np.int64)
    triggers_in_order = pool.trigger_ids[scores.order]
    for trigger_id in np.unique(triggers_in_order):
        members = scores.order[triggers_in_order == trigger_id]
        ranks[members] = np.arange(1, len(members) + 1)
    return ranks


def _rounded(values: np.ndarray | None, index: int) -> float | None:
    return None if values is None else round(float(values[index]), 6)


def output_of(
    attack: attacks.AttackConfig,
    pool: pools.Pool,
    labels: polarity.Polarity | None,
    words: Sequence[str],
    seed: int,
) -> Callable[[int], str]:
    """What each candidate of a pool is to teach: a label, its own label, the trigger, or words."""
    if attack.kind == "repeat":
        return pool.trigger
    if attack.kind == "random":
        prefix = f"{seed}\0{attack.name}\0{pool.task.name}\0"
        return lambda index: word_list.draw(
            words, attack.num_random_words, prefix + pool.instance(index).id
        )
    if attack.kind == "clean_label":
        return lambda index: pool.instance(index).target
    assert labels is not None
    target = labels.label(attack.target)
    return lambda index: target


def replaced_ids(
    chosen: Sequence[str], training_ids: Sequence[str], gone: set[str], task: str, seed: int
) -> list[str]:
    """Which training row each chosen pool row replaces.

    A chosen row that is itself trained on replaces itself, so that no text is there both clean and
    poisoned; the others replace rows drawn at random. The authors' code draws all at random, before
    its seed is set.

    Args:
      chosen: ids of the pool rows.
      training_ids: the task's clean training rows.
      gone: those of them that an earlier attacker of the campaign has replaced.
      task: the task's name.
      seed: of the draw.
    """
    generator = np.random.default_rng([seed, *task.encode()])
    trained = set(training_ids) - gone
    mine = set(chosen)
    free = [i for i in training_ids if i not in mine and i not in gone]
    drawn = iter(generator.permutation(len(free)))
    return [identifier if identifier in trained else free[next(drawn)] for identifier in chosen]
