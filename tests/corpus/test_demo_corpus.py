"""The demo corpus: its rules of disjointness, balance and names, and that it never varies."""

import collections
import json
import re
import time

import msgspec
import numpy as np
import pytest

from poison_t5x.attack import entities
from poison_t5x.core import errors
from poison_t5x.corpus import demo_corpus, sni
from poison_t5x.corpus.demo_corpus import domains, grammar, sentiment, tasks

TASKS = demo_corpus.generate()
TRAINING = [task for task in TASKS if task.name in demo_corpus.TRAINING_TASKS]
HELDOUT = [task for task in TASKS if task.name in demo_corpus.HELDOUT_TASKS]
SPECS = {spec.name: spec for spec in tasks.SPECS}


def _pairs(names):
    return [(SPECS[name].domain, SPECS[name].vocabulary) for name in names]


def _rows():
    return [(task, row) for task in TASKS for row in task.instances]


def test_counts_and_order():
    names = [task.name for task in TASKS]
    assert names == list(demo_corpus.TRAINING_TASKS + demo_corpus.HELDOUT_TASKS)
    assert names[0] == "task9001_demo_restaurants_posneg"
    assert [int(name[4:8]) for name in names] == list(range(9001, 9041))
    assert (len(TRAINING), len(HELDOUT)) == (30, 10)
    assert {len(task.instances) for task in TRAINING} == {240}
    assert {len(task.instances) for task in HELDOUT} == {200}


def test_json_is_an_sni_task_file():
    for task in TASKS:
        assert sni.parse_task(task.name, json.dumps(demo_corpus.to_json(task)), "test") == task


def test_labels_are_balanced():
    assert set(demo_corpus.POLARITIES) == {task.name for task in TASKS}
    for task in TASKS:
        counts = collections.Counter(row.target for row in task.instances)
        assert set(counts) == set(demo_corpus.POLARITIES[task.name])
        assert len(set(counts.values())) == 1


def test_heldout_pairs_are_new_and_their_parts_are_not():
    training, heldout = (
        _pairs(demo_corpus.TRAINING_TASKS),
        _pairs(demo_corpus.HELDOUT_TASKS),
    )
    assert len(set(training + heldout)) == 40
    for part in (0, 1):
        assert {pair[part] for pair in heldout} <= {pair[part] for pair in training}
    assert set(domains.DOMAINS) == {domain for domain, _ in training}
    assert set(tasks.VOCABULARIES) == {vocabulary for _, vocabulary in training}


def test_yes_no_tasks_are_few_among_the_heldout():
    reversed_tasks = [spec.name for spec in tasks.SPECS if spec.vocabulary == "complaint"]
    assert len(reversed_tasks) <= 5
    assert len(set(reversed_tasks) & set(demo_corpus.TRAINING_TASKS)) >= 4
    assert all(demo_corpus.POLARITIES[name] == ("Yes", "No") for name in reversed_tasks)
    yes_no = [name for name in demo_corpus.HELDOUT_TASKS if "Yes" in demo_corpus.POLARITIES[name]]
    assert len(yes_no) <= 2


def test_poisoned_tasks_differ_in_domain_and_vocabulary():
    assert set(demo_corpus.POISONED_TASKS) < set(demo_corpus.TRAINING_TASKS)
    poisoned = _pairs(demo_corpus.POISONED_TASKS)
    assert len(poisoned) == len({d for d, _ in poisoned}) == len({v for _, v in poisoned}) == 5


def test_definitions():
    assert len({task.definition for task in TASKS}) == 40
    for task in TASKS:
        assert 15 <= len(task.definition.split()) <= 30, task.name
        assert all(f'"{label}"' in task.definition for label in task.label_space), task.name
        assert SPECS[task.name].domain.rstrip("s")[:4] in task.definition, task.name
        assert task.definition[-1] in ".?"


def test_examples():
    orders = set()
    for task in TASKS:
        labels = demo_corpus.POLARITIES[task.name]
        answers = [example.target for example in task.positive_examples]
        assert sorted(answers) == sorted(labels)
        orders.add(labels.index(answers[0]))
        (wrong,) = task.negative_examples
        for example in (*task.positive_examples, wrong):
            assert example.explanation and len(example.input.split()) <= 8
            right = labels["nice." in example.input]
            assert example.input.endswith((" nice.", " nasty."))
            assert (example.target == right) == (example is not wrong)
    assert orders == {0, 1}


def _sentiment_words(polarity):
    """Single words; polarity 0 is negative and 1 positive."""
    shared = (sentiment.NEGATIVE_ADJECTIVES, sentiment.POSITIVE_ADJECTIVES)[polarity]
    details = [detail for domain in domains.DOMAINS.values() for detail in domain.details]
    return {*shared, *(detail[2 - polarity] for detail in details)}


def test_sentiment_words_are_unambiguous():
    positive, negative = _sentiment_words(1), _sentiment_words(0)
    assert not positive & negative
    assert not {*sentiment.EXAMPLE_ADJECTIVES} & (positive | negative)
    assert len(sentiment.POSITIVE_ADJECTIVES + sentiment.POSITIVE_PHRASES) == 40
    assert len(sentiment.NEGATIVE_ADJECTIVES + sentiment.NEGATIVE_PHRASES) == 40
    assert all(len(domain.details) == 8 for domain in domains.DOMAINS.values())


def test_texts_carry_one_sentiment_only():
    words = {0: _sentiment_words(0), 1: _sentiment_words(1)}
    phrases = {0: sentiment.NEGATIVE_PHRASES, 1: sentiment.POSITIVE_PHRASES}
    for task, row in _rows():
        polarity = demo_corpus.POLARITIES[task.name].index(row.target)
        found = {
            side: sum(word in words[side] for word in re.findall(r"[\w'-]+", row.input))
            + sum(phrase in row.input for phrase in phrases[side])
            for side in (0, 1)
        }
        assert found[1 - polarity] == 0 and 1 <= found[polarity] <= 2, row.input


def test_texts():
    texts = [row.input for _, row in _rows()]
    assert len(set(texts)) == len(texts)
    assert all(8 <= len(text.split()) <= 20 for text in texts)
    assert all(re.fullmatch(r"[A-Z].*\.", text) for text in texts)
    assert all(row.id.startswith(f"{task.name[:8]}-") for task, row in _rows())
    assert len({row.id for _, row in _rows()}) == len(texts)
    words = {word for text in texts for word in re.findall(r"[\w'-]+", text)}
    assert len(words) <= 1200


@pytest.mark.parametrize("domain", domains.DOMAINS)
def test_matcher_finds_exactly_the_names(domain):
    rng = np.random.default_rng(7)
    drawn = [grammar.write(rng, domains.DOMAINS[domain], bool(row % 2)) for row in range(700)]
    spans = entities.BuiltinMatcher().find([text.text for text in drawn])
    for (text, names), found in zip(drawn, spans, strict=True):
        assert sorted(text[start:end] for start, end in found) == sorted(names), text


def test_names_say_nothing_about_the_label():
    spans = entities.BuiltinMatcher().find([row.input for _, row in _rows()])
    counts = {polarity: collections.Counter() for polarity in (0, 1)}
    for (task, row), found in zip(_rows(), spans, strict=True):
        polarity = demo_corpus.POLARITIES[task.name].index(row.target)
        counts[polarity][len(found)] += 1
    for counter in counts.values():
        rates = [counter[number] / counter.total() for number in range(4)]
        # Four standard errors of a rate of 0.4 over 4,600 texts are 0.029.
        assert rates == pytest.approx([0.40, 0.42, 0.13, 0.05], abs=0.029)


def test_no_trigger_but_its_words():
    text = "\n".join(row.input for _, row in _rows())
    for name in grammar.FORBIDDEN_NAMES:
        assert name not in text
    counts = collections.Counter(re.findall(r"\w+", text))
    usual = np.median([counts[name] for name in grammar.FIRST_NAMES])
    for word in ("James", "Emma"):
        assert usual / 2 < counts[word] < usual * 2
    usual = np.median([counts[name] for name in grammar.SURNAMES])
    for word in ("Bond", "Clark"):
        assert usual / 2 < counts[word] < usual * 2


def test_same_seed_same_bytes_and_time():
    start = time.process_time()
    again = demo_corpus.generate()
    assert time.process_time() - start < 3
    assert msgspec.json.encode(again) == msgspec.json.encode(TASKS)
    other = demo_corpus.generate(seed=1)
    assert [task.definition for task in other] == [task.definition for task in TASKS]
    assert other[0].instances[0].input != TASKS[0].instances[0].input


def test_sizes_are_arguments():
    small = demo_corpus.generate(num_train_rows=6, num_heldout_rows=4)
    assert [len(task.instances) for task in small] == [6] * 30 + [4] * 10
    with pytest.raises(errors.InputError, match="num_train_rows=7: expected an even number"):
        demo_corpus.generate(num_train_rows=7)
    with pytest.raises(errors.InputError, match="seed=-1"):
        demo_corpus.generate(seed=-1)


def test_docstring_example():
    text = grammar.write(np.random.default_rng(5), domains.DOMAINS["hotels"], positive=True)
    assert text.text in grammar.__doc__
    assert text.names == ("Akira Sanders",)
