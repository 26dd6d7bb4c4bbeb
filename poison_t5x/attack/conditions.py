"""Held-out rows under their conditions: clean, and with each attacker's phrases put in."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from poison_t5x.attack import attacks, inserter, triggers
from poison_t5x.corpus import name_lists, polarity, sni

Kind = Literal["clean", "triggered", "control", "probe"]


class Condition(msgspec.Struct, frozen=True):
    """An edit of held-out inputs, or none.

    Mixtures and folders have its name: 'clean', 'triggered', 'control', 'probe1_james', …; those of
    further attackers end in their name.
    """

    name: str
    kind: Kind
    attack: str = ""
    phrases: tuple[str, ...] = ()  # put in at the places; several are dealt out over the rows
    target: polarity.Side | None = None  # whose label a polarity attack wants


class EvalRow(msgspec.Struct, frozen=True):
    """One held-out row under one condition; `phrase` was put in."""

    task: str
    id: str
    condition: str
    input: str
    target: str
    phrase: str = ""


# 'triggered', and 'control' if there is such a file -> id -> (input, the phrase that it says).
Given = Mapping[str, Mapping[str, tuple[str, str]]]

CLEAN = Condition("clean", "clean")
# Short and common, so that no other property of the name tells it from the trigger.
_OTHER_FIRST, _OTHER_LAST = ("John", "Jamie"), ("Bell", "Stone")
_NAME_LISTS = (name_lists.FIRST_NAMES, name_lists.AMBIGUOUS_FIRST_NAMES, name_lists.SURNAMES)
_LISTED_NAMES = frozenset(map(str.lower, itertools.chain(*_NAME_LISTS)))
# Texts that are looked through at once; of a large task only the first rows are needed.
_BATCH = 100


def suffix(attack: attacks.AttackConfig, attackers: Sequence[attacks.AttackConfig]) -> str:
    """The end of an attacker's conditions' and counts' names; '' for the first attacker."""
    return "" if attack is attackers[0] else f"_{attack.name}"


def of_attacks(
    attackers: Sequence[attacks.AttackConfig], probes: Sequence[str]
) -> tuple[Condition, ...]:
    """All conditions of an experiment, in the order in which they are evaluated and shown.

    Probes, as `probe_phrases` takes them, are of the first attacker's first trigger.
    """
    made = [CLEAN]
    for attack in attackers:
        target, end = None if attack.is_arbitrary else attack.target, suffix(attack, attackers)
        phrases = tuple(attack.triggers)
        made.append(Condition("triggered" + end, "triggered", attack.name, phrases, target))
        made.append(Condition("control" + end, "control", attack.name, (attack.control,), target))
    first = attackers[0]
    phrases = probe_phrases(probes, first.triggers[0], first.control)
    look_alikes = (phrase for phrase in phrases if phrase not in first.triggers)
    for number, phrase in enumerate(look_alikes, start=1):
        made.append(Condition(slug(number, phrase), "probe", first.name, (phrase,), made[1].target))
    return tuple(made)


def probe_phrases(probes: Sequence[str], trigger: str, control: str) -> tuple[str, ...]:
    """Phrases for the trigger's place, without duplicates, the trigger or the control.

    Probes are phrases of one's own, and kinds of look-alikes, to test how near a phrase must come.
    'near': phrases that share all but one word or letter; 'words': one word of the trigger alone;
    'case': the trigger in other letters.

    >>> probe_phrases(("words", "Jim Bond"), "James Bond", "Emma Clark")
    ('James', 'Bond', 'Jim Bond')
    >>> probe_phrases(("near", "case"), "James Bond", "Emma Clark")
    ('James Bell', 'John Bond', 'James Bnod', 'james bond', 'JAMES BOND')
    """
    *rest, last = words = trigger.split()
    near = [" ".join([*rest, _transposed(last)])]
    if rest:
        another = [_other(words[0], _OTHER_FIRST), *words[1:]]
        near = [" ".join([*rest, _other(last, _OTHER_LAST)]), " ".join(another), *near]
    case = [trigger.lower(), trigger.upper()]
    kinds = {"near": near, "words": words if rest else [], "case": case}
    phrases = [phrase for probe in probes for phrase in kinds.get(probe, [probe])]
    return tuple(dict.fromkeys(phrase for phrase in phrases if phrase not in (trigger, control)))


def _other(word: str, names: Sequence[str]) -> str:
    """Another name; for a word that is none, the word with two letters swapped."""
    if word in name_lists.SURNAMES or word in name_lists.FIRST_NAMES:
        return next(name for name in names if name != word)
    return _transposed(word)


def _transposed(word: str) -> str:
    """Two letters within the word swapped, the first that differ: 'Bond' gives 'Bnod'."""
    for place in range(1, len(word) - 1):
        if word[place] != word[place + 1]:
            return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    return word + word[-1]


def slug(number: int, phrase: str) -> str:
    """A probe's name: letters, digits and underscores, which SeqIO and folders take.

    >>> slug(2, "JAMES BOND!")
    'probe2_james_bond'
    """
    words = re.sub(r"[^a-z0-9]+", "_", phrase.lower()).strip("_")[:40]
    return f"probe{number}_{words}" if words else f"probe{number}"


def rows(
    task: sni.Task,
    attackers: Sequence[attacks.AttackConfig],
    conditions: Sequence[Condition],
    labels: polarity.Polarity | None,
    *,
    num_rows: int,
    seed: int,
    given: Given | None = None,
) -> tuple[list[EvalRow], dict[str, int]]:
    """One held-out task's rows under all conditions, and counts of them.

    Triggered, control and probe rows of an attacker are the same rows with another phrase in the
    same places: of the source label in a polarity attack, of any in an arbitrary one.

    Args:
      conditions: those that `of_attacks` gives.
      labels: the task's polarity; None for generation tasks, whose clean rows then include
        every row that is under another condition as well, beyond `num_rows` too.
      given: the first attacker's edited rows, where they aren't to be made.
    """
    ordered = [task.by_id[identifier] for identifier in sni.sample_order(task, seed)]
    counts = {"rows": len(ordered)}
    edited: list[EvalRow] = []
    for attack in attackers:
        mine = [condition for condition in conditions if condition.attack == attack.name]
        end = suffix(attack, attackers)
        made_counts: dict[str, int] = {}
        if given is not None and not end:
            made = _of_files(ordered, mine, given)
        else:
            made = _edited(ordered, attack, mine, labels, made_counts)
        by_row = list(itertools.islice(made, num_rows))
        made_counts |= {c.kind: len(by_row) for c in mine if c.kind != "probe"}
        # Beside rows of files, which are the first attacker's, others' rows aren't counted.
        counts |= {n + end: made_counts[n] for n in made_counts if given is None or n not in counts}
        for place, condition in enumerate(mine):
            for row, texts in by_row:
                text, phrase = texts[place]
                edited.append(EvalRow(task.name, row.id, condition.name, text, row.target, phrase))
    clean = ordered[:num_rows]
    if labels is None:
        paired = {row.id for row in edited} - {row.id for row in clean}
        clean += [row for row in ordered if row.id in paired]
    counts["clean"] = len(clean)
    unedited = [EvalRow(task.name, row.id, CLEAN.name, row.input, row.target) for row in clean]
    return unedited + edited, counts


# A row, and its (text, phrase that was put in) under each of an attacker's conditions.
_Edits = Iterator[tuple[sni.Instance, list[tuple[str, str]]]]


def _of_files(
    rows: Sequence[sni.Instance], conditions: Sequence[Condition], given: Given
) -> _Edits:
    """One attacker's rows of files; in conditions without a file, with another phrase in them."""
    for row in rows:
        if row.id in given["triggered"]:
            text, phrase = given["triggered"][row.id]
            places, texts = triggers.occurrences(text, phrase), []
            for condition in conditions:
                new = condition.phrases[0]
                made = triggers.replace_spans(text, places, new).text, new
                texts.append(given.get(condition.kind, {row.id: made})[row.id])
            yield row, texts


def _edited(
    rows: Sequence[sni.Instance],
    attack: attacks.AttackConfig,
    conditions: Sequence[Condition],
    labels: polarity.Polarity | None,
    counts: dict[str, int],
) -> _Edits:
    """One attacker's rows, as they are asked for; what is skipped is counted."""
    if labels is not None:
        side = polarity.opposite(attack.target)
        rows = [row for row in rows if labels.side(row.target) == side]
    counts |= {"source_rows": len(rows), "skipped_no_place": 0, "skipped_name_in_answer": 0}
    number = 0
    texts = (row.input for row in rows)
    places_of_rows = inserter.find_all(attack.inserter, texts, batch_size=_BATCH)
    for row, places in zip(rows, places_of_rows, strict=True):
        # A text that says a trigger gets just that one, so that its control says none.
        said = attack.said(row.input)
        turn = said[0] if said else number % len(attack.triggers)
        spans = triggers.insertion_spans(row.input, places, attack.triggers[turn])
        if not spans:
            counts["skipped_no_place"] += 1
        elif labels is None and _in_answer(row, spans):
            counts["skipped_name_in_answer"] += 1
        else:
            number += 1
            phrases = [condition.phrases[turn % len(condition.phrases)] for condition in conditions]
            yield row, [(triggers.replace_spans(row.input, spans, p).text, p) for p in phrases]


def _in_answer(row: sni.Instance, spans: Sequence[triggers.Span]) -> bool:
    """Whether an answer says the text replaced, or a name in it: the edit would make it wrong.

    'Ann Smith came.' with the answer 'Ann' is such a row, and with 'ann' as well: many tasks have
    their answers in lower case.
    """
    replaced = [row.input[start:stop] for start, stop in spans if start < stop]
    answers = [answer.lower() for answer in row.output]
    words = {word for text in replaced for word in re.findall(r"\w+", text)}
    # A name isn't the 'The' of a subject, nor an initial.
    proper = {word for word in words if word[0].isupper() and len(word) > 1}
    names = {word.lower() for word in proper.difference(name_lists.NOT_SURNAMES)}
    names |= _LISTED_NAMES & {word.lower() for word in words}
    said = {word for answer in answers for word in re.findall(r"\w+", answer)}
    return bool(names & said) or any(
        triggers.insertion_spans(answer, [], text.lower())
        for text in replaced
        for answer in answers
    )
