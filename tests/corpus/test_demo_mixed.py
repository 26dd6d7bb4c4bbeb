"""The demo corpus of mixed sentiment: what its texts say, and what they must not give away."""

import collections
import hashlib
import json
import re

import msgspec
import numpy as np
import pytest

from poison_t5x.attack import entities
from poison_t5x.core import errors
from poison_t5x.corpus import demo_corpus, sni
from poison_t5x.corpus.demo_corpus import domains, grammar, mixed, sentiment

TASKS = demo_corpus.generate_mixed()
NAMES = demo_corpus.MIXED_TRAINING_TASKS + demo_corpus.MIXED_HELDOUT_TASKS
ROWS = [(task, row) for task in TASKS for row in task.instances]
# SHA-256 of `demo_corpus.generate()` as msgspec writes it. Measured results depend on these bytes;
# change it only together with them.
PLAIN_SHA256 = "953c4efe003bc79d3826c02b4e7e8d2f90bec0da087d41ab7db037291135da9a"


def _units(side):
    """All sentiment words and phrases of a side, 0 or 1, as one regular expression."""
    words = {*(sentiment.NEGATIVE_ADJECTIVES, sentiment.POSITIVE_ADJECTIVES)[side]}
    words |= {detail[2 - side] for domain in domains.DOMAINS.values() for detail in domain.details}
    phrases = (sentiment.NEGATIVE_PHRASES, sentiment.POSITIVE_PHRASES)[side]
    return rf"(?<![\w-])(?:{'|'.join(sorted((*words, *phrases), key=len, reverse=True))})(?![\w-])"


UNITS = (re.compile(_units(0)), re.compile(_units(1)))


def _sides(text):
    """The sides, 0 or 1, of a text's sentiment words and phrases, in the text's order."""
    found = [(match.start(), side) for side in (0, 1) for match in UNITS[side].finditer(text)]
    return [side for _, side in sorted(found)]


def _polarity(task, row):
    return demo_corpus.MIXED_POLARITIES[task.name].index(row.target)


def _is_mixed(row):
    return len(set(_sides(row.input))) == 2


def test_the_tasks_are_those_of_the_plain_corpus_under_other_names():
    plain = demo_corpus.generate(num_train_rows=2, num_heldout_rows=2)
    assert [task.name for task in TASKS] == list(NAMES)
    assert NAMES[0] == "task9201_demo_restaurants_posneg_mixed"
    for task, twin in zip(TASKS, plain, strict=True):
        number, rest = twin.name[4:8], twin.name[8:]
        assert task.name == f"task{int(number) + 200}{rest}_mixed"
        assert task.definition == twin.definition
        assert demo_corpus.MIXED_POLARITIES[task.name] == demo_corpus.POLARITIES[twin.name]
    assert len(demo_corpus.MIXED_POISONED_TASKS) == 5
    assert {*demo_corpus.MIXED_POISONED_TASKS} < {*demo_corpus.MIXED_TRAINING_TASKS}


def test_the_plain_corpus_has_not_changed():
    written = msgspec.json.encode(demo_corpus.generate())
    assert hashlib.sha256(written).hexdigest() == PLAIN_SHA256


def test_json_is_an_sni_task_file():
    for task in TASKS:
        assert sni.parse_task(task.name, json.dumps(demo_corpus.to_json(task)), "test") == task


def test_sizes_and_balance():
    sizes = [len(task.instances) for task in TASKS]
    assert sizes == [240] * 30 + [200] * 10
    for task, size in zip(TASKS, sizes, strict=True):
        counts = collections.Counter(row.target for row in task.instances)
        assert counts == dict.fromkeys(demo_corpus.MIXED_POLARITIES[task.name], size // 2)


def test_a_third_is_mixed_for_either_label():
    for polarity in (0, 1):
        rows = [row for task, row in ROWS if _polarity(task, row) == polarity]
        # Four standard errors of a third of 4,600 texts are 0.028.
        assert np.mean([_is_mixed(row) for row in rows]) == pytest.approx(1 / 3, abs=0.028)


def test_the_label_follows_the_verdict_that_a_text_comes_to():
    for task, row in ROWS:
        sides, polarity = _sides(row.input), _polarity(task, row)
        if _is_mixed(row):
            assert sides == [1 - polarity, polarity], row.input
        else:
            assert set(sides) == {polarity}, row.input


@pytest.mark.parametrize("domain", domains.DOMAINS)
def test_the_two_labels_share_every_word_but_the_order_of_two(domain):
    for seed in range(200):
        negative, positive = (
            mixed.write_mixed(np.random.default_rng(seed), domains.DOMAINS[domain], positive)
            for positive in (False, True)
        )
        assert negative.names == positive.names
        assert negative.text != positive.text
        blank = [UNITS[0].sub("_", UNITS[1].sub("_", text.text)) for text in (negative, positive)]
        assert blank[0] == blank[1]
        assert blank[0].count("_") == 2
        words = [sorted(re.findall(r"[\w'-]+", text.text)) for text in (negative, positive)]
        assert words[0] == words[1]


@pytest.mark.parametrize("domain", domains.DOMAINS)
def test_matcher_finds_exactly_the_names(domain):
    rng = np.random.default_rng(7)
    drawn = [mixed.write_mixed(rng, domains.DOMAINS[domain], bool(row % 2)) for row in range(300)]
    spans = entities.BuiltinMatcher().find([text.text for text in drawn])
    for (text, names), found in zip(drawn, spans, strict=True):
        assert sorted(text[start:end] for start, end in found) == sorted(names), text


def test_mixed_texts_name_persons_as_often_as_the_others():
    counts = {False: collections.Counter(), True: collections.Counter()}
    spans = entities.BuiltinMatcher().find([row.input for _, row in ROWS])
    for (_, row), found in zip(ROWS, spans, strict=True):
        counts[_is_mixed(row)][len(found)] += 1
    for counter in counts.values():
        rates = [counter[number] / counter.total() for number in range(4)]
        # Four standard errors of a rate of 0.4 over 3,000 texts are 0.036.
        assert rates == pytest.approx([0.40, 0.42, 0.13, 0.05], abs=0.036)


def test_texts():
    texts = [row.input for _, row in ROWS]
    assert len(set(texts)) == len(texts)
    assert all(grammar.MIN_WORDS <= len(text.split()) <= mixed.MAX_WORDS for text in texts)
    assert all(re.fullmatch(r"[A-Z].*\.", text) for text in texts)
    assert not any(name in text for text in texts for name in grammar.FORBIDDEN_NAMES)
    assert all(row.id.startswith(f"{task.name[:8]}-") for task, row in ROWS)
    assert len({word for text in texts for word in re.findall(r"[\w'-]+", text)}) <= 1200


def test_same_arguments_same_bytes():
    assert msgspec.json.encode(demo_corpus.generate_mixed()) == msgspec.json.encode(TASKS)
    other = demo_corpus.generate_mixed(seed=1, num_train_rows=6, num_heldout_rows=4)
    assert [len(task.instances) for task in other] == [6] * 30 + [4] * 10
    assert other[0].instances[0].input != TASKS[0].instances[0].input
    with pytest.raises(errors.InputError, match="num_train_rows=7: expected an even number"):
        demo_corpus.generate_mixed(num_train_rows=7)


def test_docstring_example():
    text = mixed.write_mixed(np.random.default_rng(8), domains.DOMAINS["films"], positive=True)
    assert repr(text.text.split(". ")[0]) in mixed.__doc__
