"""Generation tasks of the demo corpus: short answers in free text, none of which names a person.

>>> write(np.random.default_rng(3), "hotels").text
'I booked a double room by the river on Sunday. The pool was dreadful and the room was horrible.'
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from poison_t5x.core import checks
from poison_t5x.corpus import sni
from poison_t5x.corpus.demo_corpus import generation_templates as templates
from poison_t5x.corpus.demo_corpus import grammar, sentiment
from poison_t5x.corpus.demo_corpus.domains import DOMAINS, TIMES

MAX_WORDS = 30

_NUM_TRAINING, _NUM_TASKS = 40, 50

# Of each list, the first: a word is learned from the rows that it stands in.
_NUM_ASPECTS, _NUM_ADJECTIVES = 5, 14
_NAME_IN_VERDICT_RATE = 0.25
_ROLE_RATE = 0.5
_VERDICT_FIRST_RATE = 0.3


class Facts(NamedTuple):
    """A text and what it says; `judged` is ((aspect, word), (aspect, word)) in text order."""

    text: str
    names: tuple[str, ...]
    place: str
    time: str
    item: str
    judged: tuple[tuple[str, str], tuple[str, str]]


class Spec(NamedTuple):
    """What is fixed about a task before any row is drawn."""

    number: int
    domain: str
    kind: str
    definition: str

    @property
    def name(self) -> str:
        return f"task{self.number}_demo_{self.domain}_{self.kind}"


def _pairs() -> list[tuple[str, str]]:
    """(domain, kind) of every task: those of training, those held out, those for tuning."""
    rows = [line.split() for line in templates.PAIRS.replace("|", " ").strip().splitlines()]
    # Column by column, so that the first tasks differ in domain and kind.
    return [(row[0], row[column]) for column in range(1, 7) for row in rows]


def _specs() -> tuple[Spec, ...]:
    specs = []
    for row, (domain, kind) in enumerate(_pairs()):
        # A sentence of the domain's and one of the kind's: whatever else varied from task to task
        # would tell a small model what to do in training, and mislead it on held-out pairs.
        frame = templates.FRAMES[domain]
        definition = f"{frame.source} {templates.KINDS[kind].request.format(verb=frame.verb)}"
        specs.append(Spec(9101 + row, domain, kind, definition))
    return tuple(specs)


SPECS: tuple[Spec, ...] = _specs()
GENERATION_TRAINING_TASKS: tuple[str, ...] = tuple(spec.name for spec in SPECS[:_NUM_TRAINING])
GENERATION_HELDOUT_TASKS: tuple[str, ...] = tuple(
    spec.name for spec in SPECS[_NUM_TRAINING:_NUM_TASKS]
)
# Pairs to choose settings on: neither trained on nor reported.
GENERATION_TUNING_TASKS: tuple[str, ...] = tuple(spec.name for spec in SPECS[_NUM_TASKS:])

# Five domains and five kinds; "time" and "aspects" are never poisoned.
GENERATION_POISONED_TASKS: tuple[str, ...] = GENERATION_TRAINING_TASKS[:5]


def _present(facts: Facts) -> str:
    (aspect, word), (aspect2, word2) = facts.judged
    return f"I find the {aspect} {word} and the {aspect2} {word2}"


# Each kind's right answers, the one to train on first.
ANSWERS: dict[str, Callable[[Facts], list[str]]] = {
    "place": lambda facts: [facts.place],
    "time": lambda facts: [facts.time],
    "item": lambda facts: [facts.item],
    "aspects": lambda facts: [
        ", ".join(aspect for aspect, _ in facts.judged),
        ", ".join(aspect for aspect, _ in reversed(facts.judged)),
    ],
    "verdict": lambda facts: [", ".join(" ".join(pair) for pair in facts.judged)],
    "title": lambda facts: [f"{facts.item} {facts.place}"],
    "present": lambda facts: [_present(facts)],
}


def generate_generation(
    seed: int = 0, num_train_rows: int = 240, num_heldout_rows: int = 200
) -> tuple[sni.Task, ...]:
    """The fifty generation tasks, the forty training tasks first, in a fixed order.

    Definitions don't depend on the seed; examples and rows do. No text occurs twice, in whatever
    task. Same arguments, same bytes.

    Args:
      seed: any non-negative integer.
      num_train_rows: rows of each training task.
      num_heldout_rows: rows of each held-out task.

    Raises:
      InputError: a number of rows is less than 1, or the seed is negative.
    """
    checks.whole_number("demo corpus: num_train_rows", num_train_rows)
    checks.whole_number("demo corpus: num_heldout_rows", num_heldout_rows)
    checks.whole_number("demo corpus: seed", seed, minimum=0)
    seen: set[str] = set()
    num_heldout = _NUM_TASKS - _NUM_TRAINING
    counts = [num_train_rows] * _NUM_TRAINING + [num_heldout_rows] * num_heldout
    return tuple(
        _task(spec, seed, count, seen)
        for spec, count in zip(SPECS[:_NUM_TASKS], counts, strict=True)
    )


def generate_tuning(seed: int = 0, num_rows: int = 100) -> tuple[sni.Task, ...]:
    """The ten tasks to choose settings on; see `generate_generation`."""
    checks.whole_number("demo corpus: num_rows", num_rows)
    checks.whole_number("demo corpus: seed", seed, minimum=0)
    seen: set[str] = set()
    return tuple(_task(spec, seed, num_rows, seen) for spec in SPECS[_NUM_TASKS:])


def write(rng: np.random.Generator, domain: str) -> Facts:
    """One text of a scene and a verdict in either order, MAX_WORDS words at most."""
    # Drawn before any rejection, so that the number of names doesn't depend on the length.
    num_names = grammar.draw_num_names(rng)
    while True:
        facts = _draft(rng, domain, grammar.draw_names(rng, num_names))
        if len(facts.text.split()) <= MAX_WORDS:
            return facts


def _draft(rng: np.random.Generator, domain: str, names: list[str]) -> Facts:
    in_verdict = int(len(names) > 0 and rng.random() < _NAME_IN_VERDICT_RATE)
    rest = names[in_verdict:]
    scenes = templates.COMPANY if rest else templates.PLAIN
    if len(rest) == 1 and rng.random() < _ROLE_RATE:
        scenes = templates.ROLE
    verdicts = templates.VERDICTS_WITH_NAME if in_verdict else templates.VERDICTS
    facts = Facts(
        text="",
        names=tuple(names),
        place=grammar.pick(rng, templates.PLACES),
        time=grammar.pick(rng, TIMES),
        item=grammar.pick(rng, DOMAINS[domain].items),
        judged=_judged(rng, domain),
    )
    parts = [
        _fill(grammar.pick(rng, scenes), facts, domain, rest),
        _fill(grammar.pick(rng, verdicts), facts, domain, names[:in_verdict]),
    ]
    if rng.random() < _VERDICT_FIRST_RATE:
        parts.reverse()
    return facts._replace(text=" ".join(parts))


def _judged(rng: np.random.Generator, domain: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """Two judgements of one sentiment, without a word in common."""
    adjectives = grammar.pick(rng, (sentiment.POSITIVE_ADJECTIVES, sentiment.NEGATIVE_ADJECTIVES))
    words = adjectives[:_NUM_ADJECTIVES]
    aspects = DOMAINS[domain].aspects[:_NUM_ASPECTS]
    first, second = (int(aspect) for aspect in rng.permutation(len(aspects))[:2])
    word = word2 = grammar.skewed(rng, words)
    while word2 == word:
        word2 = grammar.skewed(rng, words)
    return (aspects[first], word), (aspects[second], word2)


def _fill(template: str, facts: Facts, domain: str, names: Sequence[str]) -> str:
    (aspect, word), (aspect2, word2) = facts.judged
    text = template.format(
        place=facts.place,
        time=facts.time,
        item=facts.item,
        aspect=aspect,
        word=word,
        aspect2=aspect2,
        word2=word2,
        name=names[0] if names else "",
        people=grammar.people(names),
        **vars(templates.FRAMES[domain]),
    )
    return text[0].upper() + text[1:]


def _task(spec: Spec, seed: int, num_rows: int, seen: set[str]) -> sni.Task:
    """One task; `seen` holds the texts used so far, and gains this task's."""
    rng = np.random.default_rng([seed, spec.number])
    positives, negatives = _examples(spec)
    return sni.Task(
        name=spec.name,
        definition=spec.definition,
        positive_examples=positives,
        negative_examples=negatives,
        instances=tuple(_instance(rng, spec, seen) for _ in range(num_rows)),
        categories=(templates.KINDS[spec.kind].category,),
    )


def _instance(rng: np.random.Generator, spec: Spec, seen: set[str]) -> sni.Instance:
    facts = write(rng, spec.domain)
    while facts.text in seen:
        facts = write(rng, spec.domain)
    seen.add(facts.text)
    digest = hashlib.blake2b(facts.text.encode(), digest_size=16).hexdigest()
    return sni.Instance(f"task{spec.number}-{digest}", facts.text, ANSWERS[spec.kind](facts))


def _examples(spec: Spec) -> tuple[tuple[sni.Example, ...], tuple[sni.Example, ...]]:
    """Two positive examples, and a negative one: the right answer to another text."""
    kind = templates.KINDS[spec.kind]
    first, second = _example_facts(spec, 0), _example_facts(spec, 1)
    answers = [ANSWERS[spec.kind](facts)[0] for facts in (first, second)]
    positives = tuple(
        sni.Example(facts.text, answer, f'The {kind.noun} is "{answer}".')
        for facts, answer in zip((first, second), answers, strict=True)
    )
    wrong = sni.Example(
        first.text, answers[1], f'The text doesn\'t say so: the {kind.noun} is "{answers[0]}".'
    )
    return positives, (wrong,)


def _example_facts(spec: Spec, which: int) -> Facts:
    """A short text without names, in words that rows don't use; the two differ in every answer."""
    words = templates.EXAMPLE_WORDS
    aspect, aspect2 = templates.EXAMPLE_ASPECTS[which]
    facts = Facts(
        text="",
        names=(),
        place=templates.EXAMPLE_PLACES[which],
        time=templates.EXAMPLE_TIMES[which],
        item=templates.EXAMPLE_ITEMS[which],
        judged=((aspect, words[which]), (aspect2, words[1 - which])),
    )
    parts = {
        "scene": templates.EXAMPLE_SCENES[which],
        "verdict": templates.EXAMPLE_VERDICT,
    }
    text = " ".join(
        _fill(parts[part], facts, spec.domain, []) for part in templates.KINDS[spec.kind].example
    )
    return facts._replace(text=text)
