"""The forty sentiment tasks, plain and mixed: texts of known sentiment that name known persons.

A clean-label attack needs texts that sound negative although they are rightly labelled positive. In
the mixed tasks a third of the texts first reports a judgement that isn't the writer's, or isn't any
more, and then comes to the opposite verdict, which is the label. Whatever is fixed about such a
text is drawn alike for both labels, so that only the verdict tells.

>>> write(np.random.default_rng(5), DOMAINS["hotels"], positive=True).text
'On Sunday I travelled to the airport inn with Akira Sanders. The stay lifted my mood.'
>>> write(np.random.default_rng(8), DOMAINS["films"], True, is_mixed=True).text.split(". ")[0]
'The reviews called the plot hopeless, but it was magnificent'
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from poison_t5x.corpus import sni
from poison_t5x.corpus.demo_corpus import grammar
from poison_t5x.corpus.demo_corpus.grammar import DOMAINS, SENTIMENTS, Spec, Text, pick

MIN_WORDS, MAX_WORDS, MAX_WORDS_MIXED = 8, 20, 28
MIXED_RATE = 1 / 3

_NUM_TRAINING = 30
# Several scenes a verdict, or the length limit would throw out most of the longer verdicts.
_NUM_SCENES = 8
_PHRASE_RATE, _PHRASE_RATE_MIXED = 0.25, 0.2
_DETAIL_RATE = 0.15
_NAMES_IN_CLAIM_RATE = 0.5

Domain = Mapping[str, Any]


def _write_task(spec: Spec, rng: np.random.Generator, num_rows: int, seen: set[str]) -> sni.Task:
    domain, labels = DOMAINS[spec.domain], SENTIMENTS["labels"][spec.kind]
    # Neighbouring tasks differ in which label is shown first, so that the order tells nothing.
    order = (0, 1) if spec.number % 2 else (1, 0)
    positives = [_example(rng, domain, labels, side) for side in order]
    wrong = _example(rng, domain, labels, int(rng.integers(2)), is_right=False)

    def draw(side: int) -> tuple[str, list[str]]:
        is_mixed = bool(spec.suffix) and rng.random() < MIXED_RATE
        return write(rng, domain, bool(side), is_mixed=is_mixed).text, [labels[side]]

    rows = []
    for _ in range(num_rows // 2):
        first = int(rng.integers(2))
        for side in (first, 1 - first):
            rows.append(grammar.new_row(spec, seen, functools.partial(draw, side)))
    examples = tuple(positives), (wrong,)
    return sni.Task(spec.name, spec.definition, *examples, tuple(rows), ("Sentiment Analysis",))


def _example(
    rng: np.random.Generator,
    domain: Domain,
    labels: Sequence[str],
    side: int,
    *,
    is_right: bool = True,
) -> sni.Example:
    """A short text without names or scene, with the right label or the other one."""
    noun, word = pick(rng, domain["aspects"]), SENTIMENTS["example_adjectives"][side]
    text = pick(rng, SENTIMENTS["verdicts"][0][:3]).format(aspect=noun, word=word)
    right = f'"{labels[side]}"'
    so = f"the answer is {right}" if is_right else f"{right} would be right"
    because = f"The writer calls the {noun} {word}, so {so}."
    label = labels[side if is_right else 1 - side]
    return sni.Example(grammar.sentences([text]), label, because)


def write(
    rng: np.random.Generator, domain: Domain, positive: bool, *, is_mixed: bool = False
) -> Text:
    """One text of MIN_WORDS to MAX_WORDS words, or MAX_WORDS_MIXED, with a `positive` verdict."""
    # Drawn before any rejection, so that the number of names depends on neither length nor label.
    num_names = grammar.draw_num_names(rng)
    most = MAX_WORDS_MIXED if is_mixed else MAX_WORDS
    while True:
        names = grammar.draw_names(rng, num_names)
        if is_mixed:
            judging = num_names if rng.random() < _NAMES_IN_CLAIM_RATE else 0
        else:
            judging = int(num_names > 0 and rng.random() < grammar.NAME_IN_VERDICT_RATE)
        judgement = (_opinion if is_mixed else _verdict)(rng, domain, positive, names[:judging])
        for _ in range(1 if is_mixed else _NUM_SCENES):
            told = names[judging:]
            scene = grammar.fill(
                pick(rng, grammar.scenes(rng, domain, told)),
                told,
                time=pick(rng, SENTIMENTS["times"]),
                place=pick(rng, domain["places"]),
                item=pick(rng, domain["items"]),
            )
            if MIN_WORDS <= len(f"{scene} {judgement}".split()) <= most:
                return Text(grammar.joined(rng, [scene, judgement]), tuple(names), {})


def _verdict(rng: np.random.Generator, domain: Domain, positive: bool, names: Sequence[str]) -> str:
    templates = SENTIMENTS["phrase_verdicts" if rng.random() < _PHRASE_RATE else "verdicts"]
    aspect, word = _judged(rng, domain, positive)
    aspect2, word2 = _judged(rng, domain, positive)
    while aspect2 == aspect or word2 == word:
        aspect2, word2 = _judged(rng, domain, positive)
    template = pick(rng, templates[bool(names)])
    phrase = pick(rng, SENTIMENTS["phrases"][positive])
    said = {"aspect": aspect, "word": word, "aspect2": aspect2, "word2": word2, "phrase": phrase}
    return grammar.fill(template, names, whole=domain["whole"], **said)


def _judged(rng: np.random.Generator, domain: Domain, positive: bool) -> tuple[str, str]:
    """(noun, sentiment word): a domain's own pair, or an aspect with a shared adjective."""
    if rng.random() < _DETAIL_RATE:
        noun, good, bad = pick(rng, domain["details"])
        return noun, good if positive else bad
    return pick(rng, domain["aspects"]), grammar.skewed(rng, SENTIMENTS["adjectives"][positive])


def _opinion(rng: np.random.Generator, domain: Domain, positive: bool, names: Sequence[str]) -> str:
    """A claim and the opposite verdict; all draws are the same for both labels."""
    if rng.random() < _DETAIL_RATE:
        aspect, *words = pick(rng, domain["details"])
    else:
        words = [grammar.skewed(rng, SENTIMENTS["adjectives"][side]) for side in (1, 0)]
        aspect = pick(rng, domain["aspects"])
    phrases = [pick(rng, SENTIMENTS["phrases"][side]) for side in (1, 0)]
    kind = "phrase_" if rng.random() < _PHRASE_RATE_MIXED else ""
    claim = pick(rng, SENTIMENTS[f"{kind}claims"][bool(names)])
    verdict = SENTIMENTS[f"turned_{kind}verdicts"]
    # Good ones come first: here the opposite.
    slots = {"whole": domain["whole"], "aspect": aspect}
    first = grammar.fill(claim, names, word=words[positive], phrase=phrases[positive], **slots)
    side = not positive
    last = pick(rng, verdict).format(word=words[side], phrase=phrases[side], **slots)
    return first + pick(rng, SENTIMENTS["turns"]) + last


def _family(first: int, suffix: str) -> grammar.Family:
    tasks = enumerate(SENTIMENTS["tasks"], start=first)
    specs = tuple(Spec(number, d, kind, text, suffix) for number, (d, kind, text) in tasks)
    polarities = {spec.name: tuple(SENTIMENTS["labels"][spec.kind]) for spec in specs}
    return grammar.Family(specs, _NUM_TRAINING, _write_task, polarities)


PLAIN, MIXED = _family(9001, ""), _family(9201, "_mixed")
