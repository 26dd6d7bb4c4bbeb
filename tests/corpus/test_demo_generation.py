"""The embedded generation tasks: disjoint pairs, right answers, names that don't matter."""

import collections
import hashlib
import re

import msgspec
import numpy as np
import pytest

from poison_t5x.attack import inserter
from poison_t5x.core import errors
from poison_t5x.corpus import demo_corpus, sni
from poison_t5x.corpus.demo_corpus import generation, grammar
from poison_t5x.corpus.demo_corpus.generation import WORDING

TASKS = generation.generate_generation()
TUNING = generation.generate_tuning()
SPECS = {spec.name: spec for spec in generation.SPECS}
TRAINING_NAMES = demo_corpus.GENERATION.training
HELDOUT_NAMES = demo_corpus.GENERATION.heldout


def _pairs(names):
    return [(SPECS[name].domain, SPECS[name].kind) for name in names]


def _rows():
    return [(task, row) for task in (*TASKS, *TUNING) for row in task.instances]


def _examples(task):
    return task.positive_examples + task.negative_examples


def test_counts_and_order():
    names = [task.name for task in TASKS]
    assert names == [*TRAINING_NAMES, *HELDOUT_NAMES]
    assert names[0] == "task9101_demo_restaurants_place"
    assert tuple(task.name for task in TUNING) == generation.TUNING_TASKS
    assert [spec.number for spec in generation.SPECS] == list(range(9101, 9161))
    assert [len(task.instances) for task in TASKS] == [240] * 40 + [200] * 10
    assert not set(names) & {task.name for task in demo_corpus.generate(0, 2, 2)}


def test_json_is_an_sni_task_file():
    for task in TASKS:
        assert sni.parse_task(task.name, msgspec.json.encode(sni.to_json(task)), "test") == task


def test_heldout_pairs_are_new_and_their_parts_are_not():
    pairs = _pairs(SPECS)
    assert len(set(pairs)) == len(pairs) == 60
    training = _pairs(TRAINING_NAMES)
    assert {domain for domain, _ in training} == set(grammar.DOMAINS) == set(WORDING.frames)
    assert {kind for _, kind in training} == set(WORDING.kinds)
    for names in (HELDOUT_NAMES, generation.TUNING_TASKS):
        assert {domain for domain, _ in _pairs(names)} == set(grammar.DOMAINS)
        assert {kind for _, kind in _pairs(names)} == set(WORDING.kinds)


def test_every_domain_is_asked_for_all_its_words():
    for domain in grammar.DOMAINS:
        kinds = {kind for other, kind in _pairs(TRAINING_NAMES) if other == domain}
        assert len(kinds) == 4
        assert kinds & {"item", "title"} and kinds & {"aspects", "verdict", "present"}


def test_poisoned_tasks_differ_in_domain_and_kind():
    assert set(demo_corpus.GENERATION.poisoned) < set(TRAINING_NAMES)
    poisoned = _pairs(demo_corpus.GENERATION.poisoned)
    assert len(poisoned) == len({d for d, _ in poisoned}) == len({k for _, k in poisoned}) == 5


def test_definitions():
    assert len({task.definition for task in (*TASKS, *TUNING)}) == 60
    for task in (*TASKS, *TUNING):
        assert 10 <= len(task.definition.split()) <= 30, task.definition
        assert SPECS[task.name].domain.rstrip("s")[:4] in task.definition
        assert task.definition[-1] in ".?" and "{" not in task.definition
        assert task.categories == (WORDING.kinds[SPECS[task.name].kind].category,)


def test_the_answers_of_one_text():
    facts = generation.Facts(
        text="",
        names=(),
        place="on the coast",
        time="on Sunday",
        item="the pasta",
        judged=(("soup", "great"), ("menu", "superb")),
    )
    assert {kind: answer(facts) for kind, answer in generation.ANSWERS.items()} == {
        "place": ["on the coast"],
        "time": ["on Sunday"],
        "item": ["the pasta"],
        "aspects": ["soup, menu", "menu, soup"],
        "verdict": ["soup great, menu superb"],
        "title": ["the pasta on the coast"],
        "present": ["I find the soup great and the menu superb"],
    }


def test_answers_are_in_the_text_and_name_nobody():
    ours = {"i", "find", "the", "and"}
    for task, row in _rows():
        text = re.findall(r"[\w'-]+", row.input.lower())
        for answer in row.output:
            words = re.findall(r"[\w'-]+", answer.lower())
            assert set(words) <= {*text} | ours, (row.input, answer)
            assert len(words) <= 14
            assert not {*answer.split()} & {*grammar.FIRST_NAMES, *grammar.SURNAMES}
        copied = SPECS[task.name].kind in ("place", "time", "item")
        assert not copied or row.target.lower() in row.input.lower()


def test_examples():
    rows = {word for _, row in _rows() for word in re.findall(r"[\w'-]+", row.input)}
    for facts in WORDING.examples:
        assert not {word for pair in facts.judged for word in pair} & rows
        assert facts.place not in WORDING.places and facts.time not in grammar.SENTIMENTS.times
    for task in (*TASKS, *TUNING):
        first, second = task.positive_examples
        (wrong,) = task.negative_examples
        assert (wrong.input, wrong.target) == (first.input, second.target)
        assert first.target != second.target
        assert first.target in first.explanation and second.target in second.explanation
        assert all(len(example.input.split()) <= 12 for example in _examples(task))


def test_texts():
    texts = [row.input for _, row in _rows()]
    assert all(8 <= len(text.split()) <= generation.MAX_WORDS for text in texts)
    assert all(re.fullmatch(r"[A-Z].*\.", text) for text in texts)
    assert not any(re.search(r"[{}]|  | ,", text) for text in texts)
    assert len({row.id for _, row in _rows()}) == len(texts) == len({*texts})
    assert all(row.id.startswith(f"{task.name[:8]}-") for task, row in _rows())


@pytest.mark.parametrize("domain", grammar.DOMAINS)
def test_matcher_finds_exactly_the_names(domain):
    rng = np.random.default_rng(7)
    drawn = [generation.write(rng, domain) for _ in range(400)]
    spans = inserter.make(inserter.InserterConfig()).find([facts.text for facts in drawn])
    for facts, found in zip(drawn, spans, strict=True):
        assert sorted(facts.text[start:end] for start, end in found) == sorted(facts.names)


def test_examples_name_nobody():
    texts = [e.input for task in (*TASKS, *TUNING) for e in _examples(task)]
    assert not any(inserter.make(inserter.InserterConfig()).find(texts))


def test_as_many_names_as_in_the_sentiment_tasks():
    spans = inserter.make(inserter.InserterConfig()).find([row.input for _, row in _rows()])
    counter = collections.Counter(len(found) for found in spans)
    rates = [counter[number] / counter.total() for number in range(4)]
    # Four standard errors of a rate of 0.4 over 12,600 texts are 0.017.
    assert rates == pytest.approx([0.40, 0.42, 0.13, 0.05], abs=0.017)


def test_the_two_judgements_share_a_sentiment():
    rng = np.random.default_rng(3)
    for _ in range(300):
        (aspect, word), (aspect2, word2) = generation.write(rng, "gyms").judged
        assert aspect != aspect2 and word != word2
        assert any({word, word2} <= {*words} for words in grammar.SENTIMENTS.adjectives)


def test_no_trigger_but_its_words():
    text = "\n".join(row.input for _, row in _rows())
    for name in grammar.FORBIDDEN_NAMES:
        assert name not in text
    for word in ("James", "Bond", "Emma", "Clark"):
        assert re.search(rf"\b{word}\b", text)


def test_same_seed_same_bytes():
    # Measured results depend on these bytes; change the hash only together with those.
    written = msgspec.json.encode(generation.generate_generation())
    assert hashlib.sha256(written).hexdigest() == (
        "cabfd0683d0472724f3e0b4867fd2b2ac18215b5a9a799d1ece3673c5460dc13"
    )
    other = generation.generate_generation(seed=1, num_train_rows=5, num_heldout_rows=3)
    assert [len(task.instances) for task in other] == [5] * 40 + [3] * 10
    assert [task.definition for task in other] == [task.definition for task in TASKS]
    assert other[0].instances[0].input != TASKS[0].instances[0].input


def test_what_makes_no_corpus_is_refused():
    with pytest.raises(errors.InputError, match="num_train_rows: expected a whole number"):
        generation.generate_generation(num_train_rows=0)
    with pytest.raises(errors.InputError, match="num_heldout_rows: expected a whole number"):
        generation.generate_generation(num_heldout_rows=-1)
    with pytest.raises(errors.InputError, match="seed: expected a whole number of at least 0"):
        generation.generate_generation(seed=-1)


def test_docstring_example():
    facts = generation.write(np.random.default_rng(3), "hotels")
    assert facts.text in generation.__doc__
