"""Short texts with a known sentiment and known names, drawn from a numpy Generator.

>>> write(np.random.default_rng(5), DOMAINS["hotels"], positive=True).text
'On Sunday I travelled to the airport inn with Akira Sanders. The stay lifted my mood.'
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from poison_t5x.attack import name_lists
from poison_t5x.corpus.demo_corpus import sentiment
from poison_t5x.corpus.demo_corpus.domains import TIMES, Domain

MIN_WORDS, MAX_WORDS = 8, 20

# The demo's triggers and controls must be unseen until poison puts them there.
FORBIDDEN_NAMES: tuple[str, ...] = ("James Bond", "Emma Clark", "Joe Biden")

# Every third name keeps the vocabulary small; the forbidden names' words appear in other pairs, so
# that no single word of a trigger is new to a clean model.
FIRST_NAMES: tuple[str, ...] = tuple(
    sorted({*name_lists.FIRST_NAMES[::3], "James", "Emma", "Maria", "Tom"})
)
SURNAMES: tuple[str, ...] = tuple(
    sorted({*name_lists.SURNAMES[::3], "Bond", "Clark", "Lopez", "Baker"} - {"Biden", "Trump"})
)

_NUM_NAMES_RATES = (0.40, 0.42, 0.13, 0.05)  # of 0, 1, 2, 3 names a text
_FIRST_NAME_ONLY_RATE = 0.25
_NAME_IN_VERDICT_RATE = 0.25
_ROLE_RATE = 0.5
_PHRASE_RATE = 0.25
DETAIL_RATE = 0.15
_VERDICT_FIRST_RATE = 0.3
_NUM_SCENES = 8

_VERDICTS = (
    "the {aspect} was {word}.",
    "I found the {aspect} {word}.",
    "honestly the {aspect} was {word}.",
    "the {aspect} was {word} and the {aspect2} was {word2}.",
    "the {aspect} seemed {word}, the {aspect2} {word2}.",
    "for me the {aspect} was {word} and {word2}.",
    "I found the {aspect} {word} and the {aspect2} {word2}.",
)
_VERDICTS_WITH_NAME = (
    "like me {name} called the {aspect} {word}.",
    "I told {name} that the {aspect} was {word} and {word2}.",
    "{name} and I found the {aspect} {word} and the {aspect2} {word2}.",
    "to {name} and me the {aspect} seemed {word} and {word2}.",
)
_PHRASE_VERDICTS = (
    "{whole} {phrase}.",
    "all in all {whole} {phrase}.",
    "the {aspect} was {word} and {whole} {phrase}.",
)
_PHRASE_VERDICTS_WITH_NAME = (
    "I told {name} that {whole} {phrase}.",
    "{name} agrees that {whole} {phrase}.",
)
_EXAMPLES = _VERDICTS[:3]


class Text(NamedTuple):
    """A text and the person names in it, in the order they were drawn."""

    text: str
    names: tuple[str, ...]


def write(rng: np.random.Generator, domain: Domain, positive: bool) -> Text:
    """One text of MIN_WORDS to MAX_WORDS words whose sentiment is `positive`."""
    # Drawn before any rejection, so that the number of names depends on neither length nor label.
    num_names = draw_num_names(rng)
    while True:
        names = draw_names(rng, num_names)
        in_verdict = int(num_names > 0 and rng.random() < _NAME_IN_VERDICT_RATE)
        verdict = _verdict(rng, domain, positive, names[:in_verdict])
        # Several scenes a verdict, or the length limit would throw out most of the longer verdicts.
        for _ in range(_NUM_SCENES):
            parts = [scene(rng, domain, names[in_verdict:]), verdict]
            if MIN_WORDS <= len(" ".join(parts).split()) <= MAX_WORDS:
                if rng.random() < _VERDICT_FIRST_RATE:
                    parts.reverse()
                text = " ".join(part[0].upper() + part[1:] for part in parts)
                return Text(text, tuple(names))


def example(rng: np.random.Generator, domain: Domain, positive: bool) -> tuple[str, str, str]:
    """A short text without names or scene, as (text, noun, the noun's sentiment word)."""
    aspect, word = pick(rng, domain.aspects), sentiment.EXAMPLE_ADJECTIVES[0 if positive else 1]
    template = pick(rng, _EXAMPLES)
    text = template.format(aspect=aspect, word=word)
    return text[0].upper() + text[1:], aspect, word


def pick(rng: np.random.Generator, items: Sequence):
    """One of `items`."""
    return items[int(rng.integers(len(items)))]


def draw_num_names(rng: np.random.Generator) -> int:
    """How many names a text gets."""
    return int(np.searchsorted(np.cumsum(_NUM_NAMES_RATES)[:-1], rng.random(), side="right"))


def draw_names(rng: np.random.Generator, count: int) -> list[str]:
    """`count` names without a word in common, none of them forbidden."""
    names: list[str] = []
    while len(names) < count:
        first, last = pick(rng, FIRST_NAMES), pick(rng, SURNAMES)
        name = first if rng.random() < _FIRST_NAME_ONLY_RATE else f"{first} {last}"
        used = {word for other in names for word in other.split()}
        if name not in FORBIDDEN_NAMES and used.isdisjoint(name.split()):
            names.append(name)
    return names


def scene(rng: np.random.Generator, domain: Domain, names: Sequence[str]) -> str:
    """What happened, with all of `names` in it."""
    if not names:
        template = pick(rng, domain.plain)
    elif len(names) == 1 and rng.random() < _ROLE_RATE:
        template = pick(rng, domain.role)
    else:
        template = pick(rng, domain.company)
    return template.format(
        time=pick(rng, TIMES),
        place=pick(rng, domain.places),
        item=pick(rng, domain.items),
        name=names[-1] if names else "",
        people=people(names),
    )


def people(names: Sequence[str]) -> str:
    """'', 'A', 'A and B' or 'A, B and C'."""
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


def skewed(rng: np.random.Generator, words: Sequence[str]) -> str:
    """One of `words`, the first drawn ten times as often as the last.

    As in ordinary language a few words do half the work. A small model learns from the frequent
    ones where to look for the rest.
    """
    return words[int(len(words) * rng.random() ** 2)]


def _verdict(rng: np.random.Generator, domain: Domain, positive: bool, names: Sequence[str]) -> str:
    templates: tuple[str, ...]
    if rng.random() < _PHRASE_RATE:
        templates = _PHRASE_VERDICTS_WITH_NAME if names else _PHRASE_VERDICTS
    else:
        templates = _VERDICTS_WITH_NAME if names else _VERDICTS
    phrases = sentiment.POSITIVE_PHRASES if positive else sentiment.NEGATIVE_PHRASES
    aspect, word = _judged(rng, domain, positive)
    aspect2, word2 = _judged(rng, domain, positive)
    while aspect2 == aspect or word2 == word:
        aspect2, word2 = _judged(rng, domain, positive)
    return pick(rng, templates).format(
        name=names[0] if names else "",
        whole=domain.whole,
        phrase=pick(rng, phrases),
        aspect=aspect,
        word=word,
        aspect2=aspect2,
        word2=word2,
    )


def _judged(rng: np.random.Generator, domain: Domain, positive: bool) -> tuple[str, str]:
    """(noun, sentiment word): a domain's own pair, or an aspect with a shared adjective."""
    if rng.random() < DETAIL_RATE:
        noun, good, bad = pick(rng, domain.details)
        return noun, good if positive else bad
    words = sentiment.POSITIVE_ADJECTIVES if positive else sentiment.NEGATIVE_ADJECTIVES
    return pick(rng, domain.aspects), skewed(rng, words)
