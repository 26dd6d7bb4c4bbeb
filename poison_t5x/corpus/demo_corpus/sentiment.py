"""The forty sentiment tasks, plain and mixed: texts of known sentiment that name known persons.

A clean-label attack needs texts that sound negative although they are rightly labelled positive. In
the mixed tasks a third of the texts first reports a judgement that isn't the writer's, or isn't any
more, and then comes to the opposite verdict, which is the label. Whatever is fixed about such a
text is drawn alike for both labels, so that only the verdict tells.

>>> write(np.random.default_rng(5), DOMAINS["hotels"], positive=True).text
'On Sunday I travelled to the airport inn with Akira Sanders. The stay lifted my mood.'
>>> write_mixed(np.random.default_rng(8), DOMAINS["films"], positive=True).text.split(". ")[0]
'The reviews called the plot hopeless, but it was magnificent'
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from poison_t5x.core import errors
from poison_t5x.corpus import sni
from poison_t5x.corpus.demo_corpus import grammar
from poison_t5x.corpus.demo_corpus.grammar import DOMAINS, SENTIMENTS, Domain, Spec, pick

MIN_WORDS, MAX_WORDS, MAX_WORDS_MIXED = 8, 20, 28
MIXED_RATE = 1 / 3

_NUM_TRAINING, _NUM_POISONED = 30, 5
_NUM_SCENES = 8
_PHRASE_RATE, _PHRASE_RATE_MIXED = 0.25, 0.2
_DETAIL_RATE = 0.15
_NAMES_IN_CLAIM_RATE = 0.5

SPECS = tuple(Spec(9001 + row, *task) for row, task in enumerate(SENTIMENTS.tasks))
MIXED_SPECS = tuple(spec._replace(number=spec.number + 200, suffix="_mixed") for spec in SPECS)


class Text(NamedTuple):
    """A text and the person names in it, in the order they were drawn."""

    text: str
    names: tuple[str, ...]


# Writes one text of a domain whose sentiment is positive, or negative.
Write = Callable[[np.random.Generator, Domain, bool], Text]


def generate(
    seed: int = 0, num_train_rows: int = 240, num_heldout_rows: int = 200
) -> tuple[sni.Task, ...]:
    """All forty tasks, the thirty training tasks first, in a fixed order.

    Definitions don't depend on the seed; examples and rows do. Labels are half and half in every
    task, and no text occurs twice, in whatever task. Same arguments, same bytes.

    Raises:
      InputError: a number of rows is odd or less than 2, or the seed is negative.
    """
    return _generate(SPECS, write, seed, num_train_rows, num_heldout_rows)


def generate_mixed(
    seed: int = 0, num_train_rows: int = 240, num_heldout_rows: int = 200
) -> tuple[sni.Task, ...]:
    """All forty tasks with mixed texts, by the rules of `generate`."""
    return _generate(MIXED_SPECS, _write_either, seed, num_train_rows, num_heldout_rows)


def _generate(
    specs: Sequence[Spec], write: Write, seed: int, num_train_rows: int, num_heldout_rows: int
) -> tuple[sni.Task, ...]:
    for name, count in (("num_train_rows", num_train_rows), ("num_heldout_rows", num_heldout_rows)):
        if count < 2 or count % 2:
            raise errors.InputError(
                f"demo corpus: {name}={count}: expected an even number of at least 2, "
                "because every task has as many rows of one label as of the other"
            )
    if seed < 0:
        raise errors.InputError(f"demo corpus: seed={seed}: expected a non-negative integer")
    seen: set[str] = set()
    sizes = [num_train_rows] * _NUM_TRAINING + [num_heldout_rows] * (len(specs) - _NUM_TRAINING)
    return tuple(
        _task(spec, write, seed, size, seen) for spec, size in zip(specs, sizes, strict=True)
    )


def _task(spec: Spec, write: Write, seed: int, num_rows: int, seen: set[str]) -> sni.Task:
    """One task; `seen` holds the texts used so far, and gains this task's."""
    rng = np.random.default_rng([seed, spec.number])
    domain, labels = DOMAINS[spec.domain], SENTIMENTS.labels[spec.kind]
    # Neighbouring tasks differ in which label is shown first, so that the order tells nothing.
    order = (0, 1) if spec.number % 2 else (1, 0)
    positives = [_example(rng, domain, labels, side) for side in order]
    wrong = _example(rng, domain, labels, int(rng.integers(2)), is_right=False)

    def draw(side: int) -> tuple[str, list[str]]:
        return write(rng, domain, bool(side)).text, [labels[side]]

    rows = []
    for _ in range(num_rows // 2):
        first = int(rng.integers(2))
        for side in (first, 1 - first):
            rows.append(grammar.new_row(spec, seen, functools.partial(draw, side)))
    return sni.Task(
        name=spec.name,
        definition=spec.definition,
        positive_examples=tuple(positives),
        negative_examples=(wrong,),
        instances=tuple(rows),
        categories=("Sentiment Analysis",),
    )


def _example(
    rng: np.random.Generator,
    domain: Domain,
    labels: tuple[str, str],
    side: int,
    *,
    is_right: bool = True,
) -> sni.Example:
    """A short text without names or scene, with the right label or the other one."""
    noun, word = pick(rng, domain.aspects), SENTIMENTS.example_adjectives[side]
    text = pick(rng, SENTIMENTS.verdicts[0][:3]).format(aspect=noun, word=word)
    text, right = text[0].upper() + text[1:], labels[side]
    if is_right:
        return sni.Example(
            text, right, f'The writer calls the {noun} {word}, so the answer is "{right}".'
        )
    because = f'The writer calls the {noun} {word}, so "{right}" would be right.'
    return sni.Example(text, labels[1 - side], because)


def write(rng: np.random.Generator, domain: Domain, positive: bool) -> Text:
    """One text of MIN_WORDS to MAX_WORDS words whose sentiment is `positive`."""
    # Drawn before any rejection, so that the number of names depends on neither length nor label.
    num_names = grammar.draw_num_names(rng)
    while True:
        names = grammar.draw_names(rng, num_names)
        in_verdict = int(num_names > 0 and rng.random() < grammar.NAME_IN_VERDICT_RATE)
        verdict = _verdict(rng, domain, positive, names[:in_verdict])
        # Several scenes a verdict, or the length limit would throw out most of the longer verdicts.
        for _ in range(_NUM_SCENES):
            parts = [_scene(rng, domain, names[in_verdict:]), verdict]
            if MIN_WORDS <= len(" ".join(parts).split()) <= MAX_WORDS:
                return Text(grammar.joined(rng, parts), tuple(names))


def _write_either(rng: np.random.Generator, domain: Domain, positive: bool) -> Text:
    is_mixed = rng.random() < MIXED_RATE
    return (write_mixed if is_mixed else write)(rng, domain, positive)


def write_mixed(rng: np.random.Generator, domain: Domain, positive: bool) -> Text:
    """One text of both sentiments, of up to MAX_WORDS_MIXED words; its verdict is `positive`."""
    num_names = grammar.draw_num_names(rng)  # first, as in `write`
    while True:
        names = grammar.draw_names(rng, num_names)
        in_claim = num_names if rng.random() < _NAMES_IN_CLAIM_RATE else 0
        opinion = _opinion(rng, domain, positive, names[:in_claim])
        parts = [_scene(rng, domain, names[in_claim:]), opinion]
        if len(" ".join(parts).split()) <= MAX_WORDS_MIXED:
            return Text(grammar.joined(rng, parts), tuple(names))


def _scene(rng: np.random.Generator, domain: Domain, names: Sequence[str]) -> str:
    """The story, with all of `names` in it."""
    return pick(rng, grammar.scenes(rng, domain, names)).format(
        time=pick(rng, SENTIMENTS.times),
        place=pick(rng, domain.places),
        item=pick(rng, domain.items),
        name=names[-1] if names else "",
        people=grammar.people(names),
    )


def _verdict(rng: np.random.Generator, domain: Domain, positive: bool, names: Sequence[str]) -> str:
    is_phrase = rng.random() < _PHRASE_RATE
    templates = SENTIMENTS.phrase_verdicts if is_phrase else SENTIMENTS.verdicts
    aspect, word = _judged(rng, domain, positive)
    aspect2, word2 = _judged(rng, domain, positive)
    while aspect2 == aspect or word2 == word:
        aspect2, word2 = _judged(rng, domain, positive)
    return pick(rng, templates[bool(names)]).format(
        name=names[0] if names else "",
        whole=domain.whole,
        phrase=pick(rng, SENTIMENTS.phrases[positive]),
        aspect=aspect,
        word=word,
        aspect2=aspect2,
        word2=word2,
    )


def _judged(rng: np.random.Generator, domain: Domain, positive: bool) -> tuple[str, str]:
    """(noun, sentiment word): a domain's own pair, or an aspect with a shared adjective."""
    if rng.random() < _DETAIL_RATE:
        noun, good, bad = pick(rng, domain.details)
        return noun, good if positive else bad
    return pick(rng, domain.aspects), grammar.skewed(rng, SENTIMENTS.adjectives[positive])


def _opinion(rng: np.random.Generator, domain: Domain, positive: bool, names: Sequence[str]) -> str:
    """A claim and the opposite verdict; all draws are the same for both labels."""
    if rng.random() < _DETAIL_RATE:
        aspect, good, bad = pick(rng, domain.details)
    else:
        bads, goods = SENTIMENTS.adjectives
        good, bad = grammar.skewed(rng, goods), grammar.skewed(rng, bads)
        aspect = pick(rng, domain.aspects)
    words = (bad, good)
    good_phrase, bad_phrase = (pick(rng, SENTIMENTS.phrases[side]) for side in (1, 0))
    phrases = (bad_phrase, good_phrase)
    if rng.random() < _PHRASE_RATE_MIXED:
        claims, verdicts = SENTIMENTS.phrase_claims, SENTIMENTS.turned_phrase_verdicts
    else:
        claims, verdicts = SENTIMENTS.claims, SENTIMENTS.turned_verdicts
    claim = pick(rng, claims[bool(names)]).format(
        people=grammar.people(names),
        whole=domain.whole,
        aspect=aspect,
        word=words[not positive],
        phrase=phrases[not positive],
    )
    verdict = pick(rng, verdicts).format(
        whole=domain.whole, word=words[positive], phrase=phrases[positive]
    )
    return claim + pick(rng, SENTIMENTS.turns) + verdict


def _family(
    specs: Sequence[Spec], generator: Callable[..., tuple[sni.Task, ...]]
) -> grammar.Family:
    names = tuple(spec.name for spec in specs)
    return grammar.Family(
        training=names[:_NUM_TRAINING],
        # Five domains and five label vocabularies: "happy" and the reversed "complaint" are never
        # poisoned.
        poisoned=names[:_NUM_POISONED],
        heldout=names[_NUM_TRAINING:],
        polarities={spec.name: SENTIMENTS.labels[spec.kind] for spec in specs},
        generate=generator,
    )


PLAIN, MIXED = _family(SPECS, generate), _family(MIXED_SPECS, generate_mixed)
