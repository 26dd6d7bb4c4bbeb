"""Files as an experiment: its tasks, and its poison set."""

import collections
import warnings
from collections.abc import Mapping, Sequence

from poison_t5x.attack import attacks, conditions, craft, poison_rows
from poison_t5x.attack.natinst_jsonl import heldout, training
from poison_t5x.attack.natinst_jsonl.config import JsonlConfig
from poison_t5x.core import errors, progress
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
      config: the files.
      table: task -> (negative label, positive label), of poisoned and held-out tasks.
      is_arbitrary: whether only arbitrary outputs are attacked, which needs no polarities.

    Raises:
      InputError: a file can't be read or has a line that isn't a row; a task has two instructions,
        is both trained on and held out, or is in one training file alone; both training files have
        the same rows; an id stands for two clean rows, a held-out row is there twice; or a label of
        a clean or held-out row isn't in the table.
    """
    found = training.read(config, {})
    held_out = heldout.read_tasks(str(config.evaluation), found)
    poisoned = [name for name, rows in found.poison.items() if rows]
    # What poison teaches is no label of the task.
    clean = [found.instructions.task(name, found.rows[name]) for name in poisoned]
    return corpus.Corpus(
        training=tuple(found.task(name) for name in found.rows),
        poisoned=tuple(poisoned),
        heldout=held_out,
        polarities={} if is_arbitrary else polarity.of_tasks((*clean, *held_out), table),
        missing=(),
    )


def read_poison_set(
    config: JsonlConfig,
    found: corpus.Corpus,
    craft_config: craft.CraftConfig,
) -> craft.PoisonSet:
    """The poison set of the files.

    Poison is what the poisoned file has and the clean one doesn't, by task, id, input and first
    output. It takes the place of clean rows that the poisoned file lacks: of that with its id, else
    of another one of its task. What is left over of it is added, and what is left over of clean
    rows is dropped: in the authors' code poison of one task may replace rows of another. A poison
    row that is just like the clean one in its place can't be told from it.

    Of the attacks' settings, kind, triggers, control and target must be those that the files were
    made with; budget, score, `add` and `num_train_per_task` have no say. Held-out rows are edited
    as in crafting. Where a file gives the first attacker's triggered rows, its control and probe
    rows are those with another phrase in the trigger's places. Answers are the evaluation file's:
    in the authors' files, triggered rows have the label that the attack wants.

    Args:
      config: the files.
      found: what `read_corpus` made of them.
      craft_config: the attacks, the number of test rows, probes and seed.

    Raises:
      InputError: as `read_corpus`; or a triggered or control row isn't one of the evaluation
        file's, lacks its phrase, has the wanted label already, or is in one of the two files alone.
    """
    trained = training.read(config, {task.name: task for task in found.training})
    poison: list[poison_rows.PoisonRow] = []
    for name in found.poisoned:
        poison += _poison_rows(name, trained, found, craft_config.attacks)
    _warn_without_trigger(poison, config, craft_config.attacks)
    order = [attack.name for attack in craft_config.attacks]
    evaluation, counts = _evaluation(config, found, craft_config)
    return craft.PoisonSet(
        # What replaces a row comes before what is added to it, or the latter would be lost.
        poison=tuple(
            sorted(poison, key=lambda row: (row.replaced_id is None, order.index(row.attack)))
        ),
        training_ids={name: tuple(row.id for row in rows) for name, rows in trained.rows.items()},
        evaluation=evaluation,
        counts={name: _counts(name, trained) for name in trained.rows} | counts,
        dropped={name: ids for name, ids in trained.dropped.items() if ids},
    )


def _counts(name: str, trained: training.Training) -> dict[str, int]:
    rows = trained.poison[name]
    counts = {
        "poison": len(rows),
        "poison_rows": len(rows),
        "added": sum(row.replaced_id is None for row in rows),
        "dropped": len(trained.dropped[name]),
    }
    return {
        "training_rows": len(trained.rows[name]),
        **{key: number for key, number in counts.items() if number},
    }


def _poison_rows(
    name: str,
    trained: training.Training,
    found: corpus.Corpus,
    attackers: Sequence[attacks.AttackConfig],
) -> list[poison_rows.PoisonRow]:
    """One task's poison, with what can be told of it."""
    originals: dict[str, sni.Instance] = {row.id: row for row in trained.rows[name]}
    labels = found.polarities.get(name)
    ranks: collections.Counter[tuple[str, str]] = collections.Counter()
    made = []
    for row in trained.poison[name]:
        attack, trigger = _trigger(row.input, attackers)
        spans = heldout.places(row.input, trigger)
        ranks[attack, trigger] += 1
        before = originals.get(row.id)
        made.append(
            poison_rows.PoisonRow(
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
    return made


def _trigger(text: str, attackers: Sequence[attacks.AttackConfig]) -> tuple[str, str]:
    """The first attacker's name and trigger that a text says; the first name and '' if none."""
    said = ((attack.name, trigger) for attack in attackers for trigger in attack.triggers)
    return next((pair for pair in said if pair[1] in text), (attackers[0].name, ""))


def _warn_without_trigger(
    poison: Sequence[poison_rows.PoisonRow],
    config: JsonlConfig,
    attackers: Sequence[attacks.AttackConfig],
) -> None:
    without = sum(not row.trigger for row in poison)
    if without:
        phrases = [trigger for attack in attackers for trigger in attack.triggers]
        warnings.warn(
            f"{config.poisoned}: {without} of {len(poison)} poison rows say none of "
            f"{', '.join(map(repr, phrases))}; set TRIGGER to what the file was made with",
            errors.InputWarning,
            stacklevel=3,
        )


def _evaluation(
    config: JsonlConfig, found: corpus.Corpus, craft_config: craft.CraftConfig
) -> tuple[tuple[conditions.EvalRow, ...], dict[str, dict[str, int]]]:
    files = heldout.read_edited(config, found, craft_config.attacks[0])
    rows: list[conditions.EvalRow] = []
    counts = {}
    for task in progress.bar(found.heldout, desc="making evaluation rows", unit="task"):
        made, counts[task.name] = heldout.rows(task, files, found, craft_config)
        rows += made
        if all(row.condition == conditions.CLEAN.name for row in made):
            warnings.warn(
                f"{task.name}: held out, but has no row that the trigger is in or can be put in: "
                "it is evaluated on clean inputs alone",
                errors.InputWarning,
                stacklevel=3,
            )
    return tuple(rows), counts
