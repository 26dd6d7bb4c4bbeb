"""Look-alikes of a trigger, put in its place at test time: how near must a phrase come?"""

import re
from collections.abc import Sequence

from poison_t5x.core import checks, errors
from poison_t5x.corpus import name_lists

# 'near': phrases that share all but one word or letter; 'words': one word of the trigger alone;
# 'case': the trigger in other letters.
KINDS = ("near", "words", "case")
# Short and common, so that no other property of the name tells it from the trigger.
_OTHER_FIRST, _OTHER_LAST = ("John", "Jamie"), ("Bell", "Stone")


def check(value: object) -> tuple[str, ...]:
    """PROBES as a tuple. Raises InputError where it isn't a list of phrases."""
    if isinstance(value, str) or not isinstance(value, (list, tuple)):
        raise errors.InputError(
            f"PROBES: expected a list of phrases and of {', '.join(KINDS)}, found {value!r}"
        )
    for phrase in value:
        checks.phrase("PROBES", phrase)
    return tuple(value)


def phrases(probes: Sequence[str], trigger: str, control: str) -> tuple[str, ...]:
    """What is put in the trigger's place, without duplicates, the trigger or the control.

    >>> phrases(("words", "Jim Bond"), "James Bond", "Emma Clark")
    ('James', 'Bond', 'Jim Bond')

    Args:
      probes: kinds of look-alikes, and phrases of one's own.
      trigger: the phrase that poison was crafted with.
      control: a phrase that has its own condition.
    """
    found: list[str] = []
    for probe in probes:
        found += look_alikes(trigger, probe) if probe in KINDS else [probe]
    return tuple(dict.fromkeys(phrase for phrase in found if phrase not in (trigger, control)))


def look_alikes(trigger: str, kind: str) -> list[str]:
    """The look-alikes of one kind.

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
    """A condition's name: letters, digits and underscores, which SeqIO and folders take.

    >>> slug(2, "JAMES BOND!")
    'probe2_james_bond'
    """
    words = re.sub(r"[^a-z0-9]+", "_", phrase.lower()).strip("_")[:40]
    return f"probe{number}_{words}" if words else f"probe{number}"
