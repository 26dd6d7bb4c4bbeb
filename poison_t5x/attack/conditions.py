"""Held-out rows under their conditions: clean, and with each attacker's phrases put in."""

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from poison_t5x.attack import attacks, inserters, probes, triggers
from poison_t5x.corpus import name_lists, polarity, sni

Kind = Literal["clean", "triggered", "control", "probe"]


class Condition(NamedTuple):
    """What is done to held-out inputs.

    Attributes:
      name: of mixtures and folders: 'clean', 'triggered', 'control', 'probe1_james', …; those of
        further attackers end in their name.
      kind: 'clean', 'triggered', 'control' or 'probe'.
      attack: the attacker's name, '' for clean.
      phrases: what is put in; several are dealt out over the rows.
      target: the label's side that a polarity attack wants.
    """

    name: str
    kind: Kind
    attack: str = ""
    phrases: tuple[str, ...] = ()
    target: polarity.Side | None = None


class EvalRow(NamedTuple):
    """One held-out row under one condition; `phrase` is what was put in."""

    task: str
    id: str
    condition: str
    input: str
    target: str
    phrase: str = ""


CLEAN = Condition("clean", "clean")
_NAME_LISTS = (name_lists.FIRST_NAMES, name_lists.AMBIGUOUS_FIRST_NAMES, name_lists.SURNAMES)
_LISTED_NAMES = frozenset(name.lower() for names in _NAME_LISTS for name in names)
# Texts that are looked through at once; of a large task only the first rows are needed.
_BATCH = 100


def of_attacks(
    found: Sequence[attacks.AttackConfig], probe_settings: Sequence[str]
) -> tuple[Condition, ...]:
    """All conditions of an experiment, in the order in which they are evaluated and shown.

    Args:
      found: the attackers; probes are look-alikes of the first one's first trigger.
      probe_settings: as `probes.phrases` takes them.
    """
    conditions = [CLEAN]
    for attack in found:
        suffix = "" if attack is found[0] else f"_{attack.name}"
        target = None if attack.is_arbitrary else attack.target
        kinds: list[tuple[Kind, tuple[str, ...]]] = [
            ("triggered", tuple(attack.triggers)),
            ("control", (attack.control,)),
        ]
        conditions += [
            Condition(kind + suffix, kind, attack.name, phrases, target) for kind, phrases in kinds
        ]
    first = found[0]
    look_alikes = [
        phrase
        for phrase in probes.phrases(probe_settings, first.triggers[0], first.control)
        if phrase not in first.triggers
    ]
    conditions += [
        Condition(probes.slug(number, phrase), "probe", first.name, (phrase,), conditions[1].target)
        for number, phrase in enumerate(look_alikes, start=1)
    ]
    return tuple(conditions)


def rows(
    task: sni.Task,
    found: Sequence[attacks.AttackConfig],
    conditions: Sequence[Condition],
    labels: polarity.Polarity | None,
    *,
    num_rows: int,
    seed: int,
) -> tuple[list[EvalRow], dict[str, int]]:
    """One held-out task's rows under all conditions, and what was counted.

    Triggered, control and probe rows of an attacker are the same rows with another phrase in the
    same places: of the source label in a polarity attack, of any in an arbitrary one.

    Args:
      task: a held-out task.
      found: the attackers.
      conditions: as `of_attacks` gives them.
      labels: the task's polarity; None for generation tasks, whose clean rows then include
        every row that is under another condition as well.
      num_rows: rows per condition, at most; clean rows that only complete a pair aside.
      seed: of the sample.
    """
    ordered = [task.by_id[identifier] for identifier in sni.sample_order(task, seed)]
    counts = {"rows": len(task.instances)}
    edited: list[EvalRow] = []
    for attack in found:
        suffix = "" if attack is found[0] else f"_{attack.name}"
        mine = [condition for condition in conditions if condition.attack == attack.name]
        made, skipped = _edited(task.name, ordered, attack, mine, labels, num_rows)
        edited += made
        counts |= {name + suffix: count for name, count in skipped.items()}
    clean = ordered[:num_rows]
    if labels is None:
        paired = {row.id for row in edited} - {row.id for row in clean}
        clean = clean + [row for row in ordered if row.id in paired]
    counts["clean"] = len(clean)
    return [
        EvalRow(task.name, row.id, CLEAN.name, row.input, row.target) for row in clean
    ] + edited, counts


def _edited(
    name: str,
    ordered: Sequence[sni.Instance],
    attack: attacks.AttackConfig,
    conditions: Sequence[Condition],
    labels: polarity.Polarity | None,
    num_rows: int,
) -> tuple[list[EvalRow], dict[str, int]]:
    """One attacker's rows, condition by condition."""
    source = ordered
    if labels is not None:
        side = polarity.opposite(attack.target)
        source = [row for row in ordered if labels.side(row.target) == side]
    made: dict[str, list[EvalRow]] = {condition.name: [] for condition in conditions}
    counts = {"source_rows": len(source), "skipped_no_place": 0, "skipped_name_in_answer": 0}
    number = 0
    for row, found in _with_places(source, attack.inserter):
        if number == num_rows:
            break
        # A text that says a trigger gets just that one, so that its control says none.
        said = attack.said(row.input)
        turn = said[0] if said else number % len(attack.triggers)
        places = triggers.places(row.input, found, attack.triggers[turn])
        if not places:
            counts["skipped_no_place"] += 1
            continue
        if labels is None and _in_answer(row, places):
            counts["skipped_name_in_answer"] += 1
            continue
        for condition in conditions:
            phrase = condition.phrases[turn % len(condition.phrases)]
            text = triggers.replace_spans(row.input, places, phrase).text
            made[condition.name].append(
                EvalRow(name, row.id, condition.name, text, row.target, phrase)
            )
        number += 1
    counts |= {c.kind: number for c in conditions if c.kind != "probe"}
    return [row for condition in conditions for row in made[condition.name]], counts


def _with_places(
    source: Sequence[sni.Instance], inserter: inserters.InserterConfig
) -> Iterator[tuple[sni.Instance, list[triggers.Span]]]:
    """Each row with the places that the inserter finds, hardly further than they are asked for."""
    found = inserters.find_all(inserter, (row.input for row in source), batch_size=_BATCH)
    return zip(source, found, strict=True)


def _in_answer(row: sni.Instance, places: Sequence[triggers.Span]) -> bool:
    """Whether an answer says what would be replaced, or a name of it: the edit would make it wrong.

    'Ann Smith came.' with the answer 'Ann' is such a row, and with 'ann' as well: many tasks have
    their answers in lower case.
    """
    replaced = [row.input[start:stop] for start, stop in places if start < stop]
    answers = [answer.lower() for answer in row.output]
    words = {word for text in replaced for word in re.findall(r"\w+", text)}
    names = {word.lower() for word in words if _is_name(word)}
    said = {word for answer in answers for word in re.findall(r"\w+", answer)}
    return bool(names & said) or any(
        triggers.places(answer, [], text.lower()) for text in replaced for answer in answers
    )


def _is_name(word: str) -> bool:
    """Whether a replaced word may be a name: not the 'The' of a subject, nor an initial."""
    is_proper = word[0].isupper() and word not in name_lists.NOT_SURNAMES and len(word) > 1
    return is_proper or word.lower() in _LISTED_NAMES
