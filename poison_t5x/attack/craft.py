"""Crafting: from clean tasks to the poison rows, the rows they replace, and the test rows.

Nothing here knows SeqIO or arrays on a device; the result is written by `poison_set`.
"""

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from poison_t5x.attack import conditions, payload, pools, scoring, triggers
from poison_t5x.attack.attacks import AttackConfig
from poison_t5x.core import errors, progress
from poison_t5x.core.settings import NOT_EMPTY, Count, Phrase, Settings, Whole
from poison_t5x.corpus import polarity, sni


@dataclasses.dataclass(frozen=True)
class CraftConfig(Settings):
    """Settings of a poison set; the defaults are the paper's, but for the name matcher.

    Attributes:
      attacks: the attackers, one after the other; either all polarity attacks or all arbitrary.
      num_eval_per_task: test rows per held-out task and condition, at most.
      probes: look-alikes of the first trigger to test with (see `conditions.probe_phrases`).
      seed: that of the training sample, the replaced rows, the proxy's folds and random outputs.
    """

    attacks: Annotated[Sequence[AttackConfig], NOT_EMPTY] = (AttackConfig(),)
    num_train_per_task: Count = 500
    num_eval_per_task: Count = 500
    add: bool = False
    probes: Sequence[Phrase] = ()
    seed: Whole = 0

    def __post_init__(self):
        super().__post_init__()
        self._check_controls()
        names = [attack.name.lower() for attack in self.attacks]
        if len(set(names)) < len(names):
            raise errors.InputError(f"ATTACKS: expected distinct names, found {names}")
        if len({attack.is_arbitrary for attack in self.attacks}) > 1:
            raise errors.InputError(
                "ATTACKS: expected polarity attacks or arbitrary ones, found both; their held-out "
                "tasks are answered in two ways: give each a run of its own"
            )

    def _check_controls(self) -> None:
        """A control is never trained on, whoever's trigger it is."""
        controls = [attack.control for attack in self.attacks]
        for attack in self.attacks:
            if said := list(filter(attack.said, controls)):
                raise errors.InputError(
                    f"CONTROL: expected another phrase than any attacker's trigger, found "
                    f"{said[0]!r}, with a trigger of attack {attack.name!r}"
                )

    @property
    def is_arbitrary(self) -> bool:
        """Whether outputs of generation tasks are attacked, so that answers must be generated."""
        return self.attacks[0].is_arbitrary

    def settings(self) -> dict[str, Any]:
        """All of them, attackers by name, so that a change can be named."""
        fields = dataclasses.asdict(self)
        return {**fields, "attacks": {attack["name"]: attack for attack in fields["attacks"]}}

    @property
    def conditions(self) -> tuple[conditions.Condition, ...]:
        """Those that held-out tasks are evaluated under."""
        return conditions.of_attacks(self.attacks, self.probes)


@dataclasses.dataclass(frozen=True)
class PoisonRow:
    """One crafted row, with all that is needed to check or undo it.

    Spans and removed texts are those of `triggers.Edit`; input and target are None where a file
    doesn't tell.
    """

    attack: str
    task: str
    id: str  # of the pool row it was made from
    input: str | None
    poisoned_input: str
    target: str | None
    poisoned_target: str
    trigger: str
    spans: tuple[triggers.Span, ...]
    removed: tuple[str, ...]
    trigger_count: int  # occurrences in `poisoned_input`
    polarity: str | None  # the side of the true label; None for generation tasks
    target_probability: float | None  # the proxy's p(y = target | poisoned_input), if it had a say
    phi: float | None  # Equation 1's score in the task's pool; None for a random pick
    rank: int  # place in the pool of its task and trigger, from 1
    replaced_id: str | None  # the clean row of the task that gives way; None where poison is added


@dataclasses.dataclass(frozen=True)
class PoisonSet:
    """All that an experiment trains and tests on beyond the clean task files, by task."""

    poison: tuple[PoisonRow, ...]  # by attacker and task, best first
    training_ids: Mapping[str, tuple[str, ...]]  # of clean rows
    evaluation: tuple[conditions.EvalRow, ...]
    counts: Mapping[str, Mapping[str, int]]  # rows by what became of them, for the manifest
    # Attacker -> task -> why it wasn't poisoned though it might have been.
    skipped: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    words: tuple[str, ...] = ()  # that random outputs were drawn from
    # Ids of clean rows that give way to no poison: of sets not crafted here.
    dropped: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


def craft(
    training: Sequence[sni.Task],
    poisoned: Sequence[str],
    heldout: Sequence[sni.Task],
    polarities: Mapping[str, polarity.Polarity],
    config: CraftConfig,
    *,
    workers: int = 1,
    language_model: Callable[[], scoring.Proxy] | None = None,
) -> PoisonSet:
    """Crafts a poison set. Same arguments, same result, on any number of workers.

    Args:
      poisoned: names of the training tasks that may be poisoned, whole stems or numbers.
      polarities: those of the poisoned and the held-out tasks; empty for arbitrary attacks.
      workers: processes that look for places.
      language_model: a loader of the model of attackers whose proxy is 'lm'.

    Raises:
      InputError: a task can't hold its share of the budget, has no row of the label that an attack
        needs, or is a generation task in a polarity attack.
    """
    ids = {
        task.name: tuple(sni.sample_order(task, config.seed)[: config.num_train_per_task])
        for task in training
    }
    used: list[dict[str, set[str]]] = [{task: set() for task in ids} for _ in range(2)]
    state = pools.Training(ids, polarities, config.add, config.seed, workers, *used)
    counts = {task: {"training_rows": len(rows)} for task, rows in ids.items()}
    poison: list[PoisonRow] = []
    skipped: dict[str, dict[str, str]] = {}
    words: tuple[str, ...] = ()
    for attack in config.attacks:
        tasks = [sni.find(training, name) for name in attack.tasks or poisoned]
        targets, skipped[attack.name] = pools.choose(attack, tasks, state)
        chosen = [target.pool.task for target in targets]
        model = _proxy(attack, chosen, state, language_model)
        words = words or attack.payload.words(chosen)
        for target in targets:
            rows = list(_craft_task(attack, target, state, model, words))
            poison += rows
            suffix = conditions.suffix(attack, config.attacks)
            _count(counts[target.pool.task.name], target.pool, rows, suffix)
    tests, test_counts = evaluation(heldout, polarities, config)
    return PoisonSet(tuple(poison), ids, tests, counts | test_counts, skipped, words)


def _proxy(
    attack: AttackConfig,
    tasks: Sequence[sni.Task],
    state: pools.Training,
    language_model: Callable[[], scoring.Proxy] | None,
) -> scoring.Proxy | None:
    if not attack.score.needs_probabilities:
        return None
    if attack.score.proxy == "ngrams":
        max_ngram = attack.score.max_ngram
        return scoring.NgramProxy(tasks, state.polarities, max_ngram=max_ngram, seed=state.seed)
    if language_model is None:
        raise errors.InputError("PROXY: 'lm' needs PROXY_CHECKPOINT_PATH")
    return language_model()


def _craft_task(
    attack: AttackConfig,
    target: pools.Target,
    state: pools.Training,
    model: scoring.Proxy | None,
    words: Sequence[str],
) -> Iterator[PoisonRow]:
    """One attacker's rows in one task, best first, which are then nobody else's."""
    pool, name = target.pool, target.pool.task.name
    labels = state.polarities.get(name)
    scores = scoring.score(pool, attack.score, attack.target, model, state.seed)
    ranks = [0] * len(target.parts)
    chosen = []
    for index in map(int, scores.order if sum(target.parts) else ()):
        trigger = pool.trigger_ids[index]
        ranks[trigger] += 1
        if ranks[trigger] <= target.parts[trigger]:
            chosen.append((index, ranks[trigger]))
    ids = [pool.instance(index).id for index, _ in chosen]
    replaced = _replaced_ids(ids, name, state)
    state.chosen[name].update(ids)
    for (index, rank), replaced_id in zip(chosen, replaced, strict=True):
        row, edit, phrase = pool.instance(index), pool.edit(index), pool.trigger(index)
        key = f"{state.seed}\0{attack.name}\0{name}\0{row.id}"
        candidate = payload.Candidate(row, phrase, labels, words, key)
        yield PoisonRow(
            attack=attack.name,
            task=name,
            id=row.id,
            input=row.input,
            poisoned_input=edit.text,
            target=row.target,
            poisoned_target=attack.payload.output(candidate),
            trigger=phrase,
            spans=edit.spans,
            removed=edit.removed,
            trigger_count=int(scores.trigger_counts[index]),
            polarity=labels.side(row.target) if labels else None,
            target_probability=_rounded(scores.target_probabilities, index),
            phi=_rounded(scores.values, index),
            rank=rank,
            replaced_id=replaced_id,
        )


def _rounded(values: np.ndarray | None, index: int) -> float | None:
    return None if values is None else round(float(values[index]), 6)


def _replaced_ids(chosen: Sequence[str], task: str, state: pools.Training) -> Sequence[str | None]:
    """The training row that each chosen pool row replaces, which is then gone.

    A chosen row that is itself trained on replaces itself, so that no text is there both clean and
    poisoned; the others replace rows drawn at random. The authors' code draws all at random, before
    its seed is set.
    """
    if state.add:
        return [None] * len(chosen)
    left = dict.fromkeys(i for i in state.ids[task] if i not in state.replaced[task])
    mine = set(chosen)
    free = [row for row in left if row not in mine]
    drawn = iter(np.random.default_rng([state.seed, *task.encode()]).permutation(len(free)))
    replaced = [row if row in left else free[next(drawn)] for row in chosen]
    state.replaced[task].update(replaced)
    return replaced


def _count(
    counts: dict[str, int], pool: pools.CandidatePool, rows: Sequence[PoisonRow], suffix: str
) -> None:
    """Adds what became of one task's pool; further attackers' counts end in their name."""
    more = {
        "rows": len(pool.task.instances),
        "pool": len(pool),
        **pool.counts,
        "poison": len(rows),
        "relabelled": sum(row.target != row.poisoned_target for row in rows),
    }
    counts.update({name + suffix: count for name, count in more.items()})
    # Of all attackers together, too, for whoever asks how much of a task is poison.
    counts["poison_rows"] = counts.get("poison_rows", 0) + len(rows)


def evaluation(
    heldout: Sequence[sni.Task],
    polarities: Mapping[str, polarity.Polarity],
    config: CraftConfig,
    given: Mapping[str, conditions.Given] | None = None,
) -> tuple[tuple[conditions.EvalRow, ...], dict[str, dict[str, int]]]:
    """All held-out rows under their conditions, and counts of each task's.

    Args:
      given: task -> the first attacker's edited rows, where they aren't to be made.
    """
    rows: list[conditions.EvalRow] = []
    counts = {}
    for task in progress.bar(heldout, desc="making evaluation rows", unit="task"):
        made, counts[task.name] = conditions.rows(
            task,
            config.attacks,
            config.conditions,
            polarities.get(task.name),
            num_rows=config.num_eval_per_task,
            seed=config.seed,
            given=None if given is None else given[task.name],
        )
        rows += made
        for attack in config.attacks:
            source = "source_rows" + conditions.suffix(attack, config.attacks)
            if counts[task.name].get(source) == 0:
                warnings.warn(
                    f"{task.name}: held out, but no row has the label that attack {attack.name!r} "
                    "turns: it isn't evaluated with that attack's triggers",
                    errors.InputWarning,
                    stacklevel=4,
                )
    return tuple(rows), counts
