"""The demo corpus's sentiment tasks: disjointness, balance, names, and that they never vary."""

import collections
import hashlib
import re
import time

import msgspec
import numpy as np
import pytest

from poison_t5x.attack import inserter
from poison_t5x.core import errors
from poison_t5x.corpus import demo_corpus, sni
from poison_t5x.corpus.demo_corpus import grammar, sentiment

PLAIN, MIXED = demo_corpus.generate(), demo_corpus.generate_mixed()
FAMILIES = {"plain": PLAIN, "mixed": MIXED}
POLARITIES = {**demo_corpus.POLARITIES, **demo_corpus.MIXED.polarities}
SPECS = {spec.name: spec for spec in sentiment.SPECS}
MAX_WORDS = {"plain": sentiment.MAX_WORDS, "mixed": sentiment.MAX_WORDS_MIXED}
# SHA-256 of each family as msgspec writes it. Measured results depend on these bytes; change them
# only together with those.
SHA256 = {
    "plain": "953c4efe003bc79d3826c02b4e7e8d2f90bec0da087d41ab7db037291135da9a",
    "mixed": "ef63cae3e0c8407191ee441aa789505aec75347102e3953a66063e7fea656b5a",
}
family = pytest.mark.parametrize("family", FAMILIES)
each_domain = pytest.mark.parametrize("domain", grammar.DOMAINS)


def _pairs(names):
    return [(SPECS[name].domain, SPECS[name].kind) for name in names]


def _rows(family):
    return [(task, row) for task in FAMILIES[family] for row in task.instances]


def _polarity(task, row):
    return POLARITIES[task.name].index(row.target)


def _words(side):
    """Single sentiment words; side 0 is negative and 1 positive."""
    details = [detail for domain in grammar.DOMAINS.values() for detail in domain.details]
    return {*grammar.SENTIMENTS.adjectives[side], *(detail[2 - side] for detail in details)}


def _units(side):
    """All sentiment words and phrases of a side as one regular expression."""
    units = sorted((*_words(side), *grammar.SENTIMENTS.phrases[side]), key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(units)})(?![\w-])")


UNITS = (_units(0), _units(1))


def _sides(text):
    """The sides of a text's sentiment words and phrases, in the text's order."""
    found = [(match.start(), side) for side in (0, 1) for match in UNITS[side].finditer(text)]
    return [side for _, side in sorted(found)]


@family
def test_counts_order_and_balance(family):
    tasks, suffix = FAMILIES[family], "_mixed" if family == "mixed" else ""
    first = 9201 if suffix else 9001
    assert tasks[0].name == f"task{first}_demo_restaurants_posneg{suffix}"
    assert [int(task.name[4:8]) for task in tasks] == list(range(first, first + 40))
    assert [len(task.instances) for task in tasks] == [240] * 30 + [200] * 10
    for task in tasks:
        counts = collections.Counter(row.target for row in task.instances)
        assert counts == dict.fromkeys(POLARITIES[task.name], len(task.instances) // 2)


def test_names_and_polarities_are_those_of_the_tasks():
    plain, mixed = ([task.name for task in tasks] for tasks in (PLAIN, MIXED))
    assert plain == [*demo_corpus.PLAIN.training, *demo_corpus.PLAIN.heldout]
    assert mixed == [*demo_corpus.MIXED.training, *demo_corpus.MIXED.heldout]
    assert demo_corpus.MIXED.training[:5] == demo_corpus.MIXED.poisoned
    for task, twin in zip(MIXED, PLAIN, strict=True):
        number, rest = twin.name[4:8], twin.name[8:]
        assert task.name == f"task{int(number) + 200}{rest}_mixed"
        assert task.definition == twin.definition
        assert POLARITIES[task.name] == POLARITIES[twin.name]


@family
def test_json_is_an_sni_task_file(family):
    for task in FAMILIES[family]:
        assert sni.parse_task(task.name, msgspec.json.encode(sni.to_json(task)), "test") == task


def test_heldout_pairs_are_new_and_their_parts_are_not():
    training = _pairs(demo_corpus.PLAIN.training)
    heldout = _pairs(demo_corpus.PLAIN.heldout)
    assert len(set(training + heldout)) == 40
    for part, known in enumerate((grammar.DOMAINS, grammar.SENTIMENTS.labels)):
        assert {pair[part] for pair in heldout} <= {pair[part] for pair in training} == set(known)


def test_yes_no_tasks_are_few_among_the_heldout():
    reversed_tasks = [spec.name for spec in sentiment.SPECS if spec.kind == "complaint"]
    assert len(reversed_tasks) <= 5
    assert len(set(reversed_tasks) & set(demo_corpus.PLAIN.training)) >= 4
    assert all(POLARITIES[name] == ("Yes", "No") for name in reversed_tasks)
    assert sum("Yes" in POLARITIES[name] for name in demo_corpus.PLAIN.heldout) <= 2


def test_poisoned_tasks_differ_in_domain_and_vocabulary():
    assert set(demo_corpus.PLAIN.poisoned) < set(demo_corpus.PLAIN.training)
    poisoned = _pairs(demo_corpus.PLAIN.poisoned)
    assert len(poisoned) == len({d for d, _ in poisoned}) == len({v for _, v in poisoned}) == 5


def test_definitions():
    assert len({task.definition for task in PLAIN}) == 40
    for task in PLAIN:
        assert 15 <= len(task.definition.split()) <= 30, task.name
        assert all(f'"{label}"' in task.definition for label in task.label_space), task.name
        assert SPECS[task.name].domain.rstrip("s")[:4] in task.definition, task.name
        assert task.definition[-1] in ".?"


def test_examples():
    orders = set()
    for task in PLAIN:
        labels = POLARITIES[task.name]
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


def test_sentiment_words_are_unambiguous():
    assert not _words(0) & _words(1)
    assert not {*grammar.SENTIMENTS.example_adjectives} & (_words(0) | _words(1))
    for side in (0, 1):
        assert len(grammar.SENTIMENTS.adjectives[side] + grammar.SENTIMENTS.phrases[side]) == 40
    assert all(len(domain.details) == 8 for domain in grammar.DOMAINS.values())


@family
def test_the_label_follows_the_verdict_that_a_text_comes_to(family):
    mixed = {0: [], 1: []}
    for task, row in _rows(family):
        sides, polarity = _sides(row.input), _polarity(task, row)
        mixed[polarity].append(len(set(sides)) == 2)
        if family == "mixed" and mixed[polarity][-1]:
            assert sides == [1 - polarity, polarity], row.input
        else:
            assert set(sides) == {polarity} and len(sides) <= 2, row.input
    # Four standard errors of a third of 4,600 texts are 0.028.
    rate = 1 / 3 if family == "mixed" else 0
    assert [np.mean(flags) for flags in mixed.values()] == pytest.approx([rate] * 2, abs=0.028)


@family
def test_texts(family):
    rows = _rows(family)
    texts = [row.input for _, row in rows]
    assert len({row.id for _, row in rows}) == len(set(texts)) == len(texts)
    assert all(8 <= len(text.split()) <= MAX_WORDS[family] for text in texts)
    assert all(re.fullmatch(r"[A-Z].*\.", text) for text in texts)
    assert all(row.id.startswith(f"{task.name[:8]}-") for task, row in rows)
    assert not any(name in text for text in texts for name in grammar.FORBIDDEN_NAMES)
    counts = collections.Counter(word for text in texts for word in re.findall(r"[\w'-]+", text))
    assert len(counts) <= 1200
    for words, names in ((("James", "Emma"), "FIRST_NAMES"), (("Bond", "Clark"), "SURNAMES")):
        usual = np.median([counts[name] for name in getattr(grammar, names)])
        assert all(usual / 2 < counts[word] < usual * 2 for word in words)


@each_domain
def test_the_two_labels_share_every_word_but_the_order_of_two(domain):
    for seed in range(200):
        negative, positive = (
            sentiment.write_mixed(np.random.default_rng(seed), grammar.DOMAINS[domain], positive)
            for positive in (False, True)
        )
        assert negative.names == positive.names
        assert negative.text != positive.text
        blank = [UNITS[0].sub("_", UNITS[1].sub("_", text.text)) for text in (negative, positive)]
        assert blank[0] == blank[1]
        assert blank[0].count("_") == 2
        words = [sorted(re.findall(r"[\w'-]+", text.text)) for text in (negative, positive)]
        assert words[0] == words[1]


@each_domain
@pytest.mark.parametrize("write", [sentiment.write, sentiment.write_mixed])
def test_matcher_finds_exactly_the_names(domain, write):
    rng = np.random.default_rng(7)
    drawn = [write(rng, grammar.DOMAINS[domain], bool(row % 2)) for row in range(400)]
    spans = inserter.make(inserter.InserterConfig()).find([text.text for text in drawn])
    for (text, names), found in zip(drawn, spans, strict=True):
        assert sorted(text[start:end] for start, end in found) == sorted(names), text


@family
def test_names_say_nothing_about_the_label_or_the_kind_of_text(family):
    counts = collections.defaultdict(collections.Counter)
    spans = inserter.make(inserter.InserterConfig()).find([row.input for _, row in _rows(family)])
    for (task, row), found in zip(_rows(family), spans, strict=True):
        counts[_polarity(task, row)][len(found)] += 1
        counts["mixed" if len(set(_sides(row.input))) == 2 else "plain"][len(found)] += 1
    assert len(counts) == (4 if family == "mixed" else 3)
    for counter in counts.values():
        rates = [counter[number] / counter.total() for number in range(4)]
        # Four standard errors of a rate of 0.4 over 4,600 texts are 0.029, over 3,000 0.036.
        far = 0.029 if counter.total() > 4000 else 0.036
        assert rates == pytest.approx([0.40, 0.42, 0.13, 0.05], abs=far)


@family
def test_same_seed_same_bytes_and_time(family):
    generate = {"plain": demo_corpus.generate, "mixed": demo_corpus.generate_mixed}[family]
    start = time.process_time()
    again = generate()
    assert time.process_time() - start < 3
    assert hashlib.sha256(msgspec.json.encode(again)).hexdigest() == SHA256[family]
    other = generate(seed=1, num_train_rows=6, num_heldout_rows=4)
    assert [len(task.instances) for task in other] == [6] * 30 + [4] * 10
    assert [task.definition for task in other] == [task.definition for task in again]
    assert other[0].instances[0].input != again[0].instances[0].input
    with pytest.raises(errors.InputError, match="num_train_rows=7: expected an even number"):
        generate(num_train_rows=7)
    with pytest.raises(errors.InputError, match="seed=-1"):
        generate(seed=-1)


def test_docstring_examples():
    hotels, films = grammar.DOMAINS["hotels"], grammar.DOMAINS["films"]
    text = sentiment.write(np.random.default_rng(5), hotels, positive=True)
    assert repr(text.text) in sentiment.__doc__
    assert text.names == ("Akira Sanders",)
    text = sentiment.write_mixed(np.random.default_rng(8), films, positive=True)
    assert repr(text.text.split(". ")[0]) in sentiment.__doc__
