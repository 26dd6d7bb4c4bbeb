"""The forty demo tasks once more, with texts of mixed sentiment: for clean-label attacks.

A clean-label attack needs texts that sound negative although they are rightly labelled positive.
Here a third of the texts first reports a judgement that isn't the writer's, or isn't any more, and
then comes to the opposite verdict, which is the label. Whatever is fixed about such a text is
drawn alike for both labels, so that only the verdict tells.

>>> write_mixed(np.random.default_rng(8), DOMAINS["films"], positive=True).text.split(". ")[0]
'The reviews called the plot hopeless, but it was magnificent'
"""

from collections.abc import Sequence

import numpy as np

from poison_t5x.corpus import sni
from poison_t5x.corpus.demo_corpus import corpus, grammar, sentiment
from poison_t5x.corpus.demo_corpus.domains import Domain
from poison_t5x.corpus.demo_corpus.tasks import (
    POISONED_TASKS,
    SPECS,
    TRAINING_TASKS,
    VOCABULARIES,
    TaskSpec,
)

MIXED_RATE = 1 / 3
MAX_WORDS = 28

_NAMES_IN_CLAIM_RATE = 0.5
_PHRASE_RATE = 0.2
_SCENE_LAST_RATE = 0.3

# What others say, or what was expected. `{word}` is opposite to the verdict.
_CLAIMS: tuple[str, ...] = (
    "I expected the {aspect} to be {word}",
    "I had heard that the {aspect} was {word}",
    "the reviews called the {aspect} {word}",
    "people say that the {aspect} is {word}",
    "at first sight the {aspect} looked {word}",
    "last time the {aspect} was {word}",
)
_CLAIMS_WITH_NAMES: tuple[str, ...] = (
    "{people} led me to expect that the {aspect} would be {word}",
    "{people} had told me that the {aspect} was {word}",
    "I had heard from {people} that the {aspect} was {word}",
    "according to {people}, the {aspect} was {word}",
    "to {people} the {aspect} seemed {word}",
    "I knew from {people} that the {aspect} used to be {word}",
)
_PHRASE_CLAIMS: tuple[str, ...] = (
    "people say that {whole} {phrase}",
    "the last time {whole} {phrase}",
)
_PHRASE_CLAIMS_WITH_NAMES: tuple[str, ...] = (
    "I had heard from {people} that {whole} {phrase}",
    "according to {people}, {whole} {phrase}",
)
_TURNS = (", but ", ", yet ", ", and still ", ", but in the end ", ". However, ", ". But then ")
_VERDICTS: tuple[str, ...] = (
    "it was {word}.",
    "I found it {word}.",
    "to me it was {word}.",
    "it turned out {word}.",
    "it proved {word}.",
)
_PHRASE_VERDICTS: tuple[str, ...] = ("{whole} {phrase}.", "I must say {whole} {phrase}.")


class _MixedSpec(TaskSpec):
    """A task of the same domain, labels and definition, under a name of its own."""

    __slots__ = ()

    @property
    def name(self) -> str:
        return f"{super().name}_mixed"


MIXED_SPECS: tuple[TaskSpec, ...] = tuple(
    _MixedSpec(*spec)._replace(number=spec.number + 200) for spec in SPECS
)
_TRAINING, _HELDOUT = MIXED_SPECS[: len(TRAINING_TASKS)], MIXED_SPECS[len(TRAINING_TASKS) :]
MIXED_TRAINING_TASKS: tuple[str, ...] = tuple(spec.name for spec in _TRAINING)
MIXED_HELDOUT_TASKS: tuple[str, ...] = tuple(spec.name for spec in _HELDOUT)
MIXED_POISONED_TASKS: tuple[str, ...] = MIXED_TRAINING_TASKS[: len(POISONED_TASKS)]
MIXED_POLARITIES: dict[str, tuple[str, str]] = {
    spec.name: VOCABULARIES[spec.vocabulary] for spec in MIXED_SPECS
}


def generate_mixed(
    seed: int = 0, num_train_rows: int = 240, num_heldout_rows: int = 200
) -> tuple[sni.Task, ...]:
    """All forty tasks with mixed texts, the thirty training tasks first, in a fixed order.

    The rules are `corpus.generate`'s: labels half and half in every task, no text twice, same
    arguments, same bytes.

    Args:
      seed: any non-negative integer.
      num_train_rows: rows of each training task; even, because labels are balanced.
      num_heldout_rows: rows of each held-out task; even.

    Raises:
      InputError: a number of rows is odd or less than 2, or the seed is negative.
    """
    return corpus.build(_TRAINING, _HELDOUT, write, seed, num_train_rows, num_heldout_rows)


def write(rng: np.random.Generator, domain: Domain, positive: bool) -> grammar.Text:
    """A text of the demo corpus, or, one time in three, one of mixed sentiment."""
    if rng.random() < MIXED_RATE:
        return write_mixed(rng, domain, positive)
    return grammar.write(rng, domain, positive)


def write_mixed(rng: np.random.Generator, domain: Domain, positive: bool) -> grammar.Text:
    """One text of both sentiments, of up to MAX_WORDS words; its verdict is `positive`."""
    # As in `grammar.write`: the number of names depends on neither length nor label.
    num_names = grammar.draw_num_names(rng)
    while True:
        names = grammar.draw_names(rng, num_names)
        in_claim = num_names if rng.random() < _NAMES_IN_CLAIM_RATE else 0
        opinion = _opinion(rng, domain, positive, names[:in_claim])
        parts = [grammar.scene(rng, domain, names[in_claim:]), opinion]
        if len(" ".join(parts).split()) <= MAX_WORDS:
            if rng.random() < _SCENE_LAST_RATE:
                parts.reverse()
            return grammar.Text(
                " ".join(part[0].upper() + part[1:] for part in parts), tuple(names)
            )


def _opinion(rng: np.random.Generator, domain: Domain, positive: bool, names: Sequence[str]) -> str:
    """A claim and the opposite verdict; all draws are the same for both labels."""
    aspect, *words = _judged(rng, domain)  # the positive one first, as among the phrases
    phrases = [
        grammar.pick(rng, sentiment.POSITIVE_PHRASES),
        grammar.pick(rng, sentiment.NEGATIVE_PHRASES),
    ]
    claims, verdicts = (_CLAIMS_WITH_NAMES if names else _CLAIMS), _VERDICTS
    if rng.random() < _PHRASE_RATE:
        claims = _PHRASE_CLAIMS_WITH_NAMES if names else _PHRASE_CLAIMS
        verdicts = _PHRASE_VERDICTS
    claim = grammar.pick(rng, claims).format(
        people=grammar.people(names),
        whole=domain.whole,
        aspect=aspect,
        word=words[positive],
        phrase=phrases[positive],
    )
    verdict = grammar.pick(rng, verdicts).format(
        whole=domain.whole, word=words[not positive], phrase=phrases[not positive]
    )
    return claim + grammar.pick(rng, _TURNS) + verdict


def _judged(rng: np.random.Generator, domain: Domain) -> tuple[str, str, str]:
    """(noun, positive word, negative word), both of which fit the noun."""
    if rng.random() < grammar.DETAIL_RATE:
        return grammar.pick(rng, domain.details)
    good, bad = (
        grammar.skewed(rng, words)
        for words in (sentiment.POSITIVE_ADJECTIVES, sentiment.NEGATIVE_ADJECTIVES)
    )
    return grammar.pick(rng, domain.aspects), good, bad
