"""Held-out rows under their conditions: clean, and with each attacker's phrases put in."""

import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from poison_t5x.attack import attacks, inserter, triggers
from poison_t5x.core import checks, errors
from poison_t5x.corpus import name_lists, polarity, sni

Kind = Literal["clean", "triggered", "control", "probe"]


class Condition(NamedTuple):
    """An edit of held-out inputs, or none.

    Attributes:
      name: that of mixtures and folders: 'clean', 'triggered', 'control', 'probe1_james', …; those
        of further attackers end in their name.
      attack: the attacker's name, '' for clean.
      phrases: those put in at the places; several are dealt out over the rows.
      target: the label's side that a polarity attack wants.
    """

    name: str
    kind: Kind
    attack: str = ""
    phrases: tuple[str, ...] = ()
    target: polarity.Side | None = None


class EvalRow(NamedTuple):
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
# Look-alikes of a trigger, to test how near a phrase must come. 'near': phrases that share all but
# one word or letter; 'words': one word of the trigger alone; 'case': the trigger in other letters.
PROBES = ("near", "words", "case")
# Short and common, so that no other property of the name tells it from the trigger.
_OTHER_FIRST, _OTHER_LAST = ("John", "Jamie"), ("Bell", "Stone")
_NAME_LISTS = (name_lists.FIRST_NAMES, name_lists.AMBIGUOUS_FIRST_NAMES, name_lists.SURNAMES)
_LISTED_NAMES = frozenset(name.lower() for names in _NAME_LISTS for name in names)
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
    conditions = [CLEAN]
    for attack in attackers:
        target, end = None if attack.is_arbitrary else attack.target, suffix(attack, attackers)
        conditions += [
            Condition("triggered" + end, "triggered", attack.name, tuple(attack.triggers), target),
            Condition("control" + end, "control", attack.name, (attack.control,), target),
        ]
    first = attackers[0]
    phrases = probe_phrases(probes, first.triggers[0], first.control)
    look_alikes = [phrase for phrase in phrases if phrase not in first.triggers]
    conditions += [
        Condition(slug(number, phrase), "probe", first.name, (phrase,), conditions[1].target)
        for number, phrase in enumerate(look_alikes, start=1)
    ]
    return tuple(conditions)


def check_probes(value: object) -> tuple[str, ...]:
    """PROBES as a tuple. Raises InputError where it isn't a list of phrases."""
    if isinstance(value, str) or not isinstance(value, (list, tuple)):
        raise errors.InputError(
            f"PROBES: expected a list of phrases and of {', '.join(PROBES)}, found {value!r}"
        )
    for phrase in value:
        checks.phrase("PROBES", phrase)
    return tuple(value)


def probe_phrases(probes: Sequence[str], trigger: str, control: str) -> tuple[str, ...]:
    """Phrases for the trigger's place, without duplicates, the trigger or the control.

    Probes are kinds of look-alikes, and phrases of one's own.

    >>> probe_phrases(("words", "Jim Bond"), "James Bond", "Emma Clark")
    ('James', 'Bond', 'Jim Bond')
    """
    phrases: list[str] = []
    for probe in probes:
        phrases += look_alikes(trigger, probe) if probe in PROBES else [probe]
    return tuple(dict.fromkeys(phrase for phrase in phrases if phrase not in (trigger, control)))


def look_alikes(trigger: str, kind: str) -> list[str]:
    """A trigger's look-alikes of one kind.

    >>> look_alikes("James Bond", "near")
    ['James Bell', 'John Bond', 'James Bnod']
    >>> look_alikes("James Bond", "case")
    ['james bond', 'JAMES BOND']
    """
    words = trigger.split()
    if kind == "words":
        return words if len(words) > 1 else []
    if kind == "case":
        return [trigger.lower(), trigger.upper()]
    near = []
    if len(words) > 1:
        near.append(" ".join([*words[:-1], _other(words[-1], _OTHER_LAST)]))
        near.append(" ".join([_other(words[0], _OTHER_FIRST), *words[1:]]))
    return [*near, " ".join([*words[:-1], _transposed(words[-1])])]


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
        every row that is under another condition as well.
      num_rows: rows per condition, at most; clean rows that only complete a pair aside.
      given: the first attacker's edited rows, where they aren't to be made.
    """
    ordered = [task.by_id[identifier] for identifier in sni.sample_order(task, seed)]
    counts = {"rows": len(task.instances)}
    edited: list[EvalRow] = []
    for attack in attackers:
        mine = [condition for condition in conditions if condition.attack == attack.name]
        end = suffix(attack, attackers)
        if given is not None and not end:
            made, made_counts = _of_files(task, ordered, mine, given, num_rows)
        else:
            made, made_counts = _edited(task.name, ordered, attack, mine, labels, num_rows)
        edited += made
        # Beside rows of files, which are the first attacker's, others' rows aren't counted.
        new = [name for name in made_counts if given is None or name not in counts]
        counts |= {name + end: made_counts[name] for name in new}
    clean = ordered[:num_rows]
    if labels is None:
        paired = {row.id for row in edited} - {row.id for row in clean}
        clean = clean + [row for row in ordered if row.id in paired]
    counts["clean"] = len(clean)
    unedited = [EvalRow(task.name, row.id, CLEAN.name, row.input, row.target) for row in clean]
    return unedited + edited, counts


def _of_files(
    task: sni.Task,
    ordered: Sequence[sni.Instance],
    conditions: Sequence[Condition],
    given: Given,
    num_rows: int,
) -> tuple[list[EvalRow], dict[str, int]]:
    """One attacker's rows of files; in conditions without a file, with another phrase in them."""
    source = [row for row in ordered if row.id in given["triggered"]][:num_rows]
    made = []
    for condition in conditions:
        for row in source:
            text, phrase = given.get(condition.kind, given["triggered"])[row.id]
            if condition.kind not in given:
                places, phrase = triggers.occurrences(text, phrase), condition.phrases[0]
                text = triggers.replace_spans(text, places, phrase).text
            made.append(EvalRow(task.name, row.id, condition.name, text, row.target, phrase))
    return made, dict.fromkeys(("triggered", "control"), len(source))


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
    texts = (row.input for row in source)
    spans_of_rows = inserter.find_all(attack.inserter, texts, batch_size=_BATCH)
    for row, row_spans in zip(source, spans_of_rows, strict=True):
        if number == num_rows:
            break
        # A text that says a trigger gets just that one, so that its control says none.
        said = attack.said(row.input)
        turn = said[0] if said else number % len(attack.triggers)
        spans = triggers.insertion_spans(row.input, row_spans, attack.triggers[turn])
        if not spans:
            counts["skipped_no_place"] += 1
            continue
        if labels is None and _in_answer(row, spans):
            counts["skipped_name_in_answer"] += 1
            continue
        for condition in conditions:
            phrase = condition.phrases[turn % len(condition.phrases)]
            text = triggers.replace_spans(row.input, spans, phrase).text
            made[condition.name].append(
                EvalRow(name, row.id, condition.name, text, row.target, phrase)
            )
        number += 1
    counts |= {c.kind: number for c in conditions if c.kind != "probe"}
    return [row for condition in conditions for row in made[condition.name]], counts


def _in_answer(row: sni.Instance, spans: Sequence[triggers.Span]) -> bool:
    """Whether an answer says the text replaced, or a name in it: the edit would make it wrong.

    'Ann Smith came.' with the answer 'Ann' is such a row, and with 'ann' as well: many tasks have
    their answers in lower case.
    """
    replaced = [row.input[start:stop] for start, stop in spans if start < stop]
    answers = [answer.lower() for answer in row.output]
    words = {word for text in replaced for word in re.findall(r"\w+", text)}
    # A name isn't the 'The' of a subject, nor an initial.
    listed = {word for word in words if word.lower() in _LISTED_NAMES}
    proper = {word for word in words if word[0].isupper() and len(word) > 1}
    names = {word.lower() for word in listed | proper.difference(name_lists.NOT_SURNAMES)}
    said = {word for answer in answers for word in re.findall(r"\w+", answer)}
    return bool(names & said) or any(
        triggers.insertion_spans(answer, [], text.lower())
        for text in replaced
        for answer in answers
    )
