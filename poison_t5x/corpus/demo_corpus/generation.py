"""Generation tasks of the demo corpus: short answers in free text, none of which names a person.

>>> write(np.random.default_rng(3), "hotels").text
'I booked a double room by the river on Sunday. The pool was dreadful and the room was horrible.'
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from poison_t5x.corpus import sni
from poison_t5x.corpus.demo_corpus import grammar
from poison_t5x.corpus.demo_corpus.grammar import DOMAINS, SENTIMENTS, Spec, pick

MAX_WORDS = 30

_NUM_TRAINING, _NUM_TASKS = 40, 50
# Of each list, the first: a word is learned from the rows that it stands in.
_NUM_ASPECTS, _NUM_ADJECTIVES = 5, 14


class Kind(msgspec.Struct, frozen=True):
    """A kind of question.

    Attributes:
      request: the task to do: the second sentence of a definition.
      example: parts of a worked example's input: 'scene', 'verdict' or both.
      answers: templates of the right ones, the one to train on first.
      noun: a name of the answer, for explanations.
    """

    category: str
    request: str
    answers: tuple[str, ...]
    example: tuple[str, ...]
    noun: str


class Facts(msgspec.Struct, frozen=True):
    """A text and what it says; `judged` is ((aspect, word), (aspect, word)) in text order."""

    place: str
    time: str
    item: str
    judged: tuple[tuple[str, str], tuple[str, str]]
    names: tuple[str, ...] = ()
    text: str = ""


class _Wording(msgspec.Struct, frozen=True):
    """Templates, and what each domain is asked.

    Attributes:
      frames: domain -> `verb`, what was done with an item; `role`, who works there; `source`, the
        first sentence of a definition.
      pairs: domain -> kinds, four of training, held out, for tuning. Each domain trains item or
        title, and aspects, verdict or present, so that all its words are asked for.
      places: of all domains: a small model copies what it has often been asked for elsewhere.
      verdicts: without and with a name.
      examples: of worked examples alone; words of the rows would tell a small model something about
        inputs that they don't stand in.
    """

    frames: dict[str, dict[str, str]]
    kinds: dict[str, Kind]
    pairs: dict[str, tuple[str, ...]]
    places: tuple[str, ...]
    plain: tuple[str, ...]
    company: tuple[str, ...]
    role: tuple[str, ...]
    verdicts: grammar.Pair
    example_verdict: str
    example_scenes: tuple[str, ...]
    examples: tuple[Facts, ...]


WORDING = grammar.read("generation.json", _Wording)


def _specs() -> tuple[Spec, ...]:
    # Column by column, so that the first tasks differ in domain and kind.
    pairs = [
        (domain, kinds[column]) for column in range(6) for domain, kinds in WORDING.pairs.items()
    ]
    specs = []
    for row, (domain, kind) in enumerate(pairs):
        # A sentence of the domain's and one of the kind's: whatever else varied from task to task
        # would tell a small model what to do in training, and mislead it on held-out pairs.
        frame = WORDING.frames[domain]
        request = WORDING.kinds[kind].request.format(verb=frame["verb"])
        specs.append(Spec(9101 + row, domain, kind, f"{frame['source']} {request}"))
    return tuple(specs)


def answers(facts: Facts, spec: Spec) -> list[str]:
    """The right answers to a text in a task."""
    return [_filled(told, facts, spec.domain, ()) for told in WORDING.kinds[spec.kind].answers]


def _write_task(spec: Spec, rng: np.random.Generator, num_rows: int, seen: set[str]) -> sni.Task:
    positives, wrong = _examples(spec)

    def draw() -> tuple[str, list[str]]:
        facts = write(rng, spec.domain)
        return facts.text, answers(facts, spec)

    return sni.Task(
        name=spec.name,
        definition=spec.definition,
        positive_examples=positives,
        negative_examples=(wrong,),
        instances=tuple(grammar.new_row(spec, seen, draw) for _ in range(num_rows)),
        categories=(WORDING.kinds[spec.kind].category,),
    )


def write(rng: np.random.Generator, domain: str) -> Facts:
    """One text of a scene and a verdict in either order, MAX_WORDS words at most."""
    # Drawn before any rejection, so that the number of names doesn't depend on the length.
    num_names = grammar.draw_num_names(rng)
    while True:
        facts = _draft(rng, domain, grammar.draw_names(rng, num_names))
        if len(facts.text.split()) <= MAX_WORDS:
            return facts


def _draft(rng: np.random.Generator, domain: str, names: list[str]) -> Facts:
    in_verdict = int(len(names) > 0 and rng.random() < grammar.NAME_IN_VERDICT_RATE)
    rest = names[in_verdict:]
    scenes = grammar.scenes(rng, WORDING, rest)
    facts = Facts(
        names=tuple(names),
        place=pick(rng, WORDING.places),
        time=pick(rng, SENTIMENTS.times),
        item=pick(rng, DOMAINS[domain].items),
        judged=_judged(rng, domain),
    )
    scene = _filled(pick(rng, scenes), facts, domain, rest)
    verdict = _filled(pick(rng, WORDING.verdicts[in_verdict]), facts, domain, names[:in_verdict])
    return msgspec.structs.replace(facts, text=grammar.joined(rng, [scene, verdict]))


def _judged(rng: np.random.Generator, domain: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """Two judgements of one sentiment, without a word in common."""
    words = pick(rng, SENTIMENTS.adjectives[::-1])[:_NUM_ADJECTIVES]
    aspects = DOMAINS[domain].aspects[:_NUM_ASPECTS]
    first, second = (int(aspect) for aspect in rng.permutation(len(aspects))[:2])
    word = word2 = grammar.skewed(rng, words)
    while word2 == word:
        word2 = grammar.skewed(rng, words)
    return (aspects[first], word), (aspects[second], word2)


def _filled(template: str, facts: Facts, domain: str, names: Sequence[str]) -> str:
    (aspect, word), (aspect2, word2) = facts.judged
    return template.format(
        place=facts.place,
        time=facts.time,
        item=facts.item,
        aspect=aspect,
        word=word,
        aspect2=aspect2,
        word2=word2,
        name=names[0] if names else "",
        people=grammar.people(names),
        **WORDING.frames[domain],
    )


def _examples(spec: Spec) -> tuple[tuple[sni.Example, ...], sni.Example]:
    """Two positive examples, and a negative one: the right answer to another text."""
    kind = WORDING.kinds[spec.kind]
    texts, right = [], []
    for scene, facts in zip(WORDING.example_scenes, WORDING.examples, strict=True):
        parts = {"scene": scene, "verdict": WORDING.example_verdict}
        filled = [_filled(parts[part], facts, spec.domain, ()) for part in kind.example]
        texts.append(" ".join(part[0].upper() + part[1:] for part in filled))
        right.append(answers(facts, spec)[0])
    positives = tuple(
        sni.Example(text, answer, f'The {kind.noun} is "{answer}".')
        for text, answer in zip(texts, right, strict=True)
    )
    because = f'The text doesn\'t say so: the {kind.noun} is "{right[0]}".'
    return positives, sni.Example(texts[0], right[1], because)


_SPECS = _specs()
GENERATION = grammar.Family(_SPECS[:_NUM_TASKS], _NUM_TRAINING, _write_task)
# Pairs to choose settings on: neither trained on nor reported.
TUNING = grammar.Family(_SPECS[_NUM_TASKS:], 0, _write_task)
