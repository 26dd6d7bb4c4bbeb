"""The rows of a task that an attacker could poison, kept small: a million of them fit in memory."""

import array
from collections.abc import Iterator, Sequence

import numpy as np

from poison_t5x.attack import attacks, triggers
from poison_t5x.corpus import polarity, sni

# The trigger of a candidate that takes any of them.
_ANY = -1


class Pool:
    """One task's rows that an attacker could poison.

    Texts are not kept: a row's edit is made from its places when it is asked for.

    Attributes:
      task: the task.
      rows: (N,) int64, places in `task.instances`, ascending.
      trigger_ids: (N,) int64, which of the attacker's triggers each row gets.
      counts: what was skipped and why, by name.
    """

    def __init__(
        self,
        task: sni.Task,
        rows: np.ndarray,
        spans: np.ndarray,
        num_spans: np.ndarray,
        trigger_ids: np.ndarray,
        phrases: Sequence[str],
        counts: dict[str, int],
    ):
        """Args: spans: (P, 2) int32, the places of all rows; num_spans: (N,), of each row."""
        self.task, self.rows, self.trigger_ids, self.counts = task, rows, trigger_ids, counts
        self._phrases = tuple(phrases)
        self._spans = spans
        self._ends = np.cumsum(num_spans, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def trigger(self, index: int) -> str:
        """The phrase that candidate `index` gets."""
        return self._phrases[self.trigger_ids[index]]

    def instance(self, index: int) -> sni.Instance:
        """The row that candidate `index` is made from."""
        return self.task.instances[self.rows[index]]

    def edit(self, index: int) -> triggers.Edit:
        """Candidate `index` with its trigger put in."""
        begin = self._ends[index - 1] if index else 0
        spans = [(int(a), int(b)) for a, b in self._spans[begin : self._ends[index]]]
        return triggers.replace_spans(self.instance(index).input, spans, self.trigger(index))

    def texts(self) -> Iterator[str]:
        """The edited texts, in order."""
        return (self.edit(index).text for index in range(len(self)))


def find_pool(
    task: sni.Task,
    attack: attacks.AttackConfig,
    labels: polarity.Polarity | None,
    taken: set[str],
    found: Iterator[list[triggers.Span]],
    *,
    seed: int,
) -> Pool:
    """Takes the places of every row, and leaves out the rows that can't be poisoned.

    Args:
      task: a poisoned task.
      attack: the attacker.
      labels: the task's polarity; None for arbitrary outputs.
      taken: ids of rows that an earlier attacker of the campaign has poisoned.
      found: what the inserter finds, row by row; only this task's part is taken.
      seed: of the split over several triggers.
    """
    wanted = labels.label(attack.target) if labels and attack.kind == "clean_label" else None
    counts = {"skipped_label": 0, "skipped_taken": 0, "skipped_no_place": 0, "says_trigger": 0}
    rows, spans, num_spans, trigger_ids = (array.array(kind) for kind in "qiii")
    for number, (instance, places) in enumerate(zip(task.instances, found, strict=False)):
        said = attack.said(instance.input)
        counts["says_trigger"] += bool(said)
        if wanted is not None and instance.target != wanted:
            counts["skipped_label"] += 1
            continue
        if instance.id in taken:
            counts["skipped_taken"] += 1
            continue
        # A text that says a trigger gets just that one; the places of others are any trigger's.
        trigger_id = said[0] if said else _ANY
        places = triggers.places(instance.input, places, attack.triggers[trigger_id])
        if not places:
            counts["skipped_no_place"] += 1
            continue
        rows.append(number)
        for place in places:
            spans.extend(place)
        num_spans.append(len(places))
        trigger_ids.append(trigger_id)
    return Pool(
        task,
        np.array(rows, np.int64),
        np.array(spans, np.int32).reshape(-1, 2),
        np.array(num_spans, np.int64),
        _dealt_out(np.array(trigger_ids, np.int64), len(attack.triggers), task.name, seed),
        attack.triggers,
        counts,
    )


def _dealt_out(trigger_ids: np.ndarray, num_triggers: int, task: str, seed: int) -> np.ndarray:
    """Gives the candidates that take any trigger one each, as evenly as can be."""
    free = np.flatnonzero(trigger_ids == _ANY)
    order = np.random.default_rng([seed, *task.encode()]).permutation(len(free))
    trigger_ids[free] = order % num_triggers
    return trigger_ids
