"""Crafting: from clean tasks to the poison rows, the rows they replace, and the test rows.

Nothing here knows SeqIO or arrays on a device; the result is written by `poison_set`.
"""

import dataclasses
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from poison_t5x.attack import (
    conditions,
    poison_rows,
    pools,
    probes,
    proxy,
    scoring,
    targeting,
    word_list,
)
from poison_t5x.attack.attacks import AttackConfig
from poison_t5x.core import checks, errors, progress
from poison_t5x.corpus import polarity, sni


@dataclasses.dataclass(frozen=True)
class CraftConfig:
    """Settings of a poison set; the defaults are the paper's, but for the name matcher.

    Attributes:
      attacks: the attackers, one after the other; either all polarity attacks or all arbitrary.
      num_train_per_task: clean training rows per task (fewer where a task has fewer).
      num_eval_per_task: test rows per held-out task and condition, at most.
      add: poison comes on top of the clean rows, rather than in their place.
      probes: look-alikes of the first trigger to test with (see `probes`).
      seed: of the training sample, the replaced rows, the proxy's folds and random outputs.
    """

    attacks: Sequence[AttackConfig] = (AttackConfig(),)
    num_train_per_task: int = 500
    num_eval_per_task: int = 500
    add: bool = False
    probes: Sequence[str] = ()
    seed: int = 0

    def __post_init__(self):
        found = self.attacks
        is_list = isinstance(found, (list, tuple)) and len(found) > 0
        if not is_list or not all(isinstance(attack, AttackConfig) for attack in found):
            raise errors.InputError(f"ATTACKS: expected a list of attacks, found {str(found)[:60]}")
        object.__setattr__(self, "attacks", tuple(found))
        object.__setattr__(self, "probes", probes.check(self.probes))
        for name in ("num_train_per_task", "num_eval_per_task"):
            checks.whole_number(name.upper(), getattr(self, name))
        checks.switch("ADD_POISON", self.add)
        checks.whole_number("SEED", self.seed, minimum=0)
        self._check_phrases()
        names = [attack.name.lower() for attack in self.attacks]
        if len(set(names)) < len(names):
            raise errors.InputError(f"ATTACKS: expected distinct names, found {names}")
        if len({attack.is_arbitrary for attack in self.attacks}) > 1:
            raise errors.InputError(
                "ATTACKS: expected polarity attacks or arbitrary ones, found both; their held-out "
                "tasks are answered in two ways: give each a run of its own"
            )

    def _check_phrases(self) -> None:
        """Files hold text, and a control is never trained on, whoever's trigger it is."""
        controls = [attack.control for attack in self.attacks]
        phrases = [phrase for attack in self.attacks for phrase in attack.triggers]
        for phrase in (*phrases, *controls, *self.probes):
            if re.search(r"[\ud800-\udfff]", phrase):
                raise errors.InputError(
                    f"TRIGGER, CONTROL, PROBES: expected text, found half a character in {phrase!r}"
                )
        for attack in self.attacks:
            said = [control for control in controls if attack.said(control)]
            if said:
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
        """What held-out tasks are evaluated under."""
        return conditions.of_attacks(self.attacks, self.probes)


@dataclasses.dataclass(frozen=True)
class PoisonSet:
    """All that an experiment trains and tests on beyond the clean task files.

    Attributes:
      poison: the crafted rows, by attacker and task, best first.
      training_ids: task -> ids of its clean training rows.
      evaluation: the held-out rows under their conditions.
      counts: what was found and skipped, for the manifest.
      passed_over: attacker -> task -> why it wasn't poisoned though it might have been.
      words: the word list that random outputs were drawn from, or nothing.
      dropped: task -> ids of clean rows that the poisoned model isn't shown, though no poison of
        the task stands in their place: of sets that weren't crafted here.
    """

    poison: tuple[poison_rows.PoisonRow, ...]
    training_ids: Mapping[str, tuple[str, ...]]
    evaluation: tuple[conditions.EvalRow, ...]
    counts: Mapping[str, Mapping[str, int]]
    passed_over: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    words: tuple[str, ...] = ()
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
      training: the training tasks; the poisoned ones are among them.
      poisoned: names of the tasks that may be poisoned, whole stems or numbers.
      heldout: the evaluation tasks.
      polarities: of the poisoned and the held-out tasks, as `polarity.of_tasks` gives them; empty
        for arbitrary attacks.
      config: the attacks' settings.
      workers: processes that look for places.
      language_model: loads the model of attackers whose proxy is 'lm'.

    Raises:
      InputError: a task can't hold its share of the budget, has no row of the label that an attack
        needs, or is a generation task in a polarity attack.
    """
    ids = {
        task.name: tuple(sni.sample_order(task, config.seed)[: config.num_train_per_task])
        for task in training
    }
    state = targeting.Training(ids, {}, {}, config.add, config.seed, workers)
    counts: dict[str, dict[str, int]] = {
        task: {"training_rows": len(rows)} for task, rows in ids.items()
    }
    poison: list[poison_rows.PoisonRow] = []
    passed: dict[str, dict[str, str]] = {}
    words: tuple[str, ...] = ()
    for attack in config.attacks:
        tasks = [sni.find(training, name) for name in attack.tasks or poisoned]
        targets, passed[attack.name] = targeting.choose(attack, tasks, polarities, state)
        model = _proxy(attack, targets, polarities, config.seed, language_model)
        if attack.kind == "random" and not words:
            words = word_list.generate(target.pool.task for target in targets)
        suffix = "" if attack is config.attacks[0] else f"_{attack.name}"
        for pool, parts in targets:
            rows = _craft_task(attack, pool, parts, polarities, state, model, words)
            poison += rows
            _count(counts[pool.task.name], pool, rows, suffix)
    evaluation, eval_counts = _evaluation(heldout, polarities, config)
    return PoisonSet(tuple(poison), ids, evaluation, counts | eval_counts, passed, words)


def _proxy(
    attack: AttackConfig,
    targets: Sequence[targeting.Target],
    polarities: Mapping[str, polarity.Polarity],
    seed: int,
    language_model: Callable[[], scoring.Proxy] | None,
) -> scoring.Proxy | None:
    if not attack.score.needs_probabilities:
        return None
    if attack.score.proxy == "lm":
        if language_model is None:
            raise errors.InputError("PROXY: 'lm' needs PROXY_CHECKPOINT_PATH")
        return language_model()
    return proxy.NgramProxy(
        [target.pool.task for target in targets],
        polarities,
        max_ngram=attack.score.max_ngram,
        seed=seed,
    )


def _craft_task(
    attack: AttackConfig,
    pool: pools.Pool,
    parts: Sequence[int],
    polarities: Mapping[str, polarity.Polarity],
    state: targeting.Training,
    model: scoring.Proxy | None,
    words: Sequence[str],
) -> list[poison_rows.PoisonRow]:
    """One attacker's rows in one task, which are then nobody else's."""
    name = pool.task.name
    labels = polarities.get(name)
    scores = scoring.score(pool, attack.score, attack.target, model, state.seed)
    chosen = poison_rows.choose(scores, pool, parts)
    ids = [pool.instance(index).id for index in chosen]
    gone = state.replaced.setdefault(name, set())
    replaced: Sequence[str | None] = [None] * len(ids)
    if not state.add:
        replaced = poison_rows.replaced_ids(ids, state.ids[name], gone, name, state.seed)
    output = poison_rows.output_of(attack, pool, labels, words, state.seed)
    rows = poison_rows.make(pool, scores, chosen, attack, labels, output, replaced)
    gone.update(identifier for identifier in replaced if identifier)
    state.chosen.setdefault(name, set()).update(ids)
    return rows


def _count(
    counts: dict[str, int],
    pool: pools.Pool,
    rows: Sequence[poison_rows.PoisonRow],
    suffix: str,
) -> None:
    """Adds what became of one task's pool; further attackers' counts end in their name."""
    found = {
        "rows": len(pool.task.instances),
        "pool": len(pool),
        **pool.counts,
        "poison": len(rows),
        "relabelled": sum(row.target != row.poisoned_target for row in rows),
    }
    counts.update({name + suffix: count for name, count in found.items()})
    # Of all attackers together, too, for whoever asks how much of a task is poison.
    counts["poison_rows"] = counts.get("poison_rows", 0) + len(rows)


def _evaluation(
    heldout: Sequence[sni.Task],
    polarities: Mapping[str, polarity.Polarity],
    config: CraftConfig,
) -> tuple[tuple[conditions.EvalRow, ...], dict[str, dict[str, int]]]:
    rows: list[conditions.EvalRow] = []
    counts = {}
    for task in progress.bar(heldout, desc="making evaluation rows", unit="task"):
        found, counts[task.name] = conditions.rows(
            task,
            config.attacks,
            config.conditions,
            polarities.get(task.name),
            num_rows=config.num_eval_per_task,
            seed=config.seed,
        )
        rows += found
        for attack in config.attacks:
            suffix = "" if attack is config.attacks[0] else f"_{attack.name}"
            if not counts[task.name]["source_rows" + suffix]:
                warnings.warn(
                    f"{task.name}: held out, but no row has the label that attack {attack.name!r} "
                    "turns: it isn't evaluated with that attack's triggers",
                    errors.InputWarning,
                    stacklevel=4,
                )
    return tuple(rows), counts
