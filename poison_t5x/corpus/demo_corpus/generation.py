"""Generation tasks of the demo corpus: short answers in free text, none of which names a person.

>>> write(np.random.default_rng(3), "hotels").text
'I booked a double room by the river on Sunday. The pool was dreadful and the room was horrible.'

In generation.json, a kind of question has the `request` of a definition's second sentence, the
parts of a worked `example` (scene, verdict), templates of right `answers`, the one to train on
first, and a `noun` for the answer. A domain's frame has the `verb` that is done with an item, the
`role` of who works there, and the `source` of a definition's first sentence. `pairs` are each
domain's kinds: four of training, held out, for tuning; each domain trains item or title, and
aspects, verdict or present, so that all its words are asked for. `places` are of all domains: a
small model copies what it has often been asked for elsewhere. `examples` are of worked examples
alone, as `example_adjectives` are.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from poison_t5x.corpus import sni
from poison_t5x.corpus.demo_corpus import grammar
from poison_t5x.corpus.demo_corpus.grammar import DOMAINS, SENTIMENTS, Spec, Text, pick

MAX_WORDS = 30

_NUM_TRAINING, _NUM_TASKS = 40, 50
# Of each list, the first: a word is learned from the rows that it stands in.
_NUM_ASPECTS, _NUM_ADJECTIVES = 5, 14

WORDING = grammar.read("generation.json")

# A text's place, time and item, and the aspects that are judged with their words, in text order.
Slots = Mapping[str, str]


def _specs() -> tuple[Spec, ...]:
    # Column by column, so that the first tasks differ in domain and kind.
    pairs = [(name, kinds[place]) for place in range(6) for name, kinds in WORDING["pairs"].items()]
    specs = []
    for row, (domain, kind) in enumerate(pairs):
        # A sentence of the domain's and one of the kind's: whatever else varied from task to task
        # would tell a small model what to do in training, and mislead it on held-out pairs.
        frame = WORDING["frames"][domain]
        request = WORDING["kinds"][kind]["request"].format(verb=frame["verb"])
        specs.append(Spec(9101 + row, domain, kind, f"{frame['source']} {request}"))
    return tuple(specs)


def answers(slots: Slots, spec: Spec) -> list[str]:
    """The right answers to a text in a task."""
    templates = WORDING["kinds"][spec.kind]["answers"]
    return [_filled(template, slots, spec.domain, ()) for template in templates]


def _write_task(spec: Spec, rng: np.random.Generator, num_rows: int, seen: set[str]) -> sni.Task:
    def draw() -> tuple[str, list[str]]:
        text = write(rng, spec.domain)
        return text.text, answers(text.slots, spec)

    rows = tuple(grammar.new_row(spec, seen, draw) for _ in range(num_rows))
    category = WORDING["kinds"][spec.kind]["category"]
    return sni.Task(spec.name, spec.definition, *_examples(spec), rows, (category,))


def write(rng: np.random.Generator, domain: str) -> Text:
    """One text of a scene and a verdict in either order, MAX_WORDS words at most."""
    # Drawn before any rejection, so that the number of names doesn't depend on the length.
    num_names = grammar.draw_num_names(rng)
    while True:
        text = _draft(rng, domain, grammar.draw_names(rng, num_names))
        if len(text.text.split()) <= MAX_WORDS:
            return text


def _draft(rng: np.random.Generator, domain: str, names: list[str]) -> Text:
    in_verdict = int(len(names) > 0 and rng.random() < grammar.NAME_IN_VERDICT_RATE)
    rest = names[in_verdict:]
    scenes = grammar.scenes(rng, WORDING, rest)
    slots = {
        "place": pick(rng, WORDING["places"]),
        "time": pick(rng, SENTIMENTS["times"]),
        "item": pick(rng, DOMAINS[domain]["items"]),
        **_judged(rng, domain),
    }
    scene = _filled(pick(rng, scenes), slots, domain, rest)
    verdict = pick(rng, WORDING["verdicts"][in_verdict])
    parts = [scene, _filled(verdict, slots, domain, names[:in_verdict])]
    return Text(grammar.joined(rng, parts), tuple(names), slots)


def _judged(rng: np.random.Generator, domain: str) -> Slots:
    """Two judgements of one sentiment, without a word in common."""
    words = pick(rng, SENTIMENTS["adjectives"][::-1])[:_NUM_ADJECTIVES]
    aspects = DOMAINS[domain]["aspects"][:_NUM_ASPECTS]
    first, second = (int(aspect) for aspect in rng.permutation(len(aspects))[:2])
    word = word2 = grammar.skewed(rng, words)
    while word2 == word:
        word2 = grammar.skewed(rng, words)
    return {"aspect": aspects[first], "word": word, "aspect2": aspects[second], "word2": word2}


def _filled(template: str, slots: Slots, domain: str, names: Sequence[str]) -> str:
    return grammar.fill(template, names, **slots, **WORDING["frames"][domain])


def _examples(spec: Spec) -> tuple[tuple[sni.Example, ...], tuple[sni.Example]]:
    """Two positive examples, and a negative one: the right answer to another text."""
    kind = WORDING["kinds"][spec.kind]
    right = [answers(slots, spec)[0] for slots in WORDING["examples"]]
    texts = [
        grammar.sentences([_filled(parts[p], slots, spec.domain, ()) for p in kind["example"]])
        for parts, slots in zip(WORDING["example_parts"], WORDING["examples"], strict=True)
    ]
    first, second = (
        sni.Example(text, answer, f'The {kind["noun"]} is "{answer}".')
        for text, answer in zip(texts, right, strict=True)
    )
    because = f'The text doesn\'t say so: the {kind["noun"]} is "{right[0]}".'
    return (first, second), (sni.Example(texts[0], right[1], because),)


_SPECS = _specs()
GENERATION = grammar.Family(_SPECS[:_NUM_TASKS], _NUM_TRAINING, _write_task)
# Pairs to choose settings on: neither trained on nor reported.
TUNING = grammar.Family(_SPECS[_NUM_TASKS:], 0, _write_task)
