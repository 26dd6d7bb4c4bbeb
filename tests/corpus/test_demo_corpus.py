"""The demo corpus: disjoint pairs, balance, right answers, names, and that it never varies."""

import collections
import doctest
import functools
import hashlib
import re
import time

import msgspec
import numpy as np
import pytest

from poison_t5x.attack import inserter
from poison_t5x.core import errors
from poison_t5x.corpus import demo_corpus, sni
from poison_t5x.corpus.demo_corpus import generation, grammar, sentiment
from poison_t5x.corpus.demo_corpus.generation import WORDING
from tests.task_files import to_json

FAMILIES = {
    "plain": demo_corpus.PLAIN,
    "mixed": demo_corpus.MIXED,
    "generation": demo_corpus.GENERATION,
}
TASKS = {name: family.generate() for name, family in FAMILIES.items()}
TUNING = demo_corpus.TUNING.generate(num_heldout_rows=100)
PLAIN, MIXED = TASKS["plain"], TASKS["mixed"]
GENERATED = (*TASKS["generation"], *TUNING)
POLARITIES = {**demo_corpus.POLARITIES, **demo_corpus.MIXED.polarities}
SPECS = {
    spec.name: spec for family in (*FAMILIES.values(), demo_corpus.TUNING) for spec in family.specs
}
MAX_WORDS = {
    "plain": sentiment.MAX_WORDS,
    "mixed": sentiment.MAX_WORDS_MIXED,
    "generation": generation.MAX_WORDS,
}
# SHA-256 of each family as msgspec writes it. Measured results depend on these bytes; change them
# only together with those.
SHA256 = {
    "plain": "953c4efe003bc79d3826c02b4e7e8d2f90bec0da087d41ab7db037291135da9a",
    "mixed": "ef63cae3e0c8407191ee441aa789505aec75347102e3953a66063e7fea656b5a",
    "generation": "cabfd0683d0472724f3e0b4867fd2b2ac18215b5a9a799d1ece3673c5460dc13",
}
each_family = pytest.mark.parametrize("family", FAMILIES)
each_sentiment = pytest.mark.parametrize("family", ["plain", "mixed"])
each_domain = pytest.mark.parametrize("domain", grammar.DOMAINS)


def _pairs(names):
    return [(SPECS[name].domain, SPECS[name].kind) for name in names]


def _all_tasks(family):
    return GENERATED if family == "generation" else TASKS[family]


def _rows(family):
    return [(task, row) for task in _all_tasks(family) for row in task.instances]


def _polarity(task, row):
    return POLARITIES[task.name].index(row.target)


def _words(text):
    return re.findall(r"[\w'-]+", text)


def _sentiment_words(side):
    """Single sentiment words; side 0 is negative and 1 positive."""
    details = [detail for domain in grammar.DOMAINS.values() for detail in domain["details"]]
    return {*grammar.SENTIMENTS["adjectives"][side], *(detail[2 - side] for detail in details)}


def _units(side):
    """All sentiment words and phrases of a side as one regular expression."""
    units = (*_sentiment_words(side), *grammar.SENTIMENTS["phrases"][side])
    return re.compile(rf"(?<![\w-])(?:{'|'.join(sorted(units, key=len, reverse=True))})(?![\w-])")


UNITS = (_units(0), _units(1))


def _sides(text):
    """The sides of a text's sentiment words and phrases, in the text's order."""
    places = [(match.start(), side) for side in (0, 1) for match in UNITS[side].finditer(text)]
    return [side for _, side in sorted(places)]


@pytest.mark.parametrize(
    ("family", "first", "number", "num_training"),
    [
        ("plain", "task9001_demo_restaurants_posneg", 9001, 30),
        ("mixed", "task9201_demo_restaurants_posneg_mixed", 9201, 30),
        ("generation", "task9101_demo_restaurants_place", 9101, 40),
    ],
)
def test_counts_and_order(family, first, number, num_training):
    tasks = TASKS[family]
    names = [task.name for task in tasks]
    assert names == [*FAMILIES[family].training, *FAMILIES[family].heldout]
    assert names[0] == first and len(FAMILIES[family].training) == num_training
    assert [int(name[4:8]) for name in names] == list(range(number, number + num_training + 10))
    assert [len(task.instances) for task in tasks] == [240] * num_training + [200] * 10


@each_sentiment
def test_labels_are_half_and_half(family):
    for task in TASKS[family]:
        counts = collections.Counter(row.target for row in task.instances)
        assert counts == dict.fromkeys(POLARITIES[task.name], len(task.instances) // 2)


def test_a_mixed_task_is_the_plain_ones_twin():
    for task, twin in zip(MIXED, PLAIN, strict=True):
        number, rest = twin.name[4:8], twin.name[8:]
        assert task.name == f"task{int(number) + 200}{rest}_mixed"
        assert task.definition == twin.definition
        assert POLARITIES[task.name] == POLARITIES[twin.name]


@each_family
def test_json_is_an_sni_task_file(family):
    for task in TASKS[family]:
        assert sni.parse_task(task.name, msgspec.json.encode(to_json(task)), "test") == task


def test_heldout_pairs_are_new_and_their_parts_are_not():
    training = _pairs(demo_corpus.PLAIN.training)
    heldout = _pairs(demo_corpus.PLAIN.heldout)
    assert len(set(training + heldout)) == 40
    for part, known in enumerate((grammar.DOMAINS, grammar.SENTIMENTS["labels"])):
        assert {pair[part] for pair in heldout} <= {pair[part] for pair in training} == set(known)
    tuning = demo_corpus.TUNING.heldout
    assert [SPECS[name].number for name in tuning] == list(range(9151, 9161))
    assert len({*_pairs(task.name for task in GENERATED)}) == 60
    assert set(WORDING["frames"]) == set(grammar.DOMAINS)
    family = demo_corpus.GENERATION
    for names in (family.training, family.heldout, tuning):
        assert {domain for domain, _ in _pairs(names)} == set(grammar.DOMAINS)
        assert {kind for _, kind in _pairs(names)} == set(WORDING["kinds"])


def test_every_domain_is_asked_for_all_its_words():
    for domain in grammar.DOMAINS:
        pairs = _pairs(demo_corpus.GENERATION.training)
        kinds = {kind for other, kind in pairs if other == domain}
        assert len(kinds) == 4
        assert kinds & {"item", "title"} and kinds & {"aspects", "verdict", "present"}


@each_family
def test_poisoned_tasks_differ_in_domain_and_in_labels_or_kind(family):
    assert FAMILIES[family].training[:5] == FAMILIES[family].poisoned
    poisoned = _pairs(FAMILIES[family].poisoned)
    assert len(poisoned) == len({d for d, _ in poisoned}) == len({k for _, k in poisoned}) == 5


@each_family
def test_definitions(family):
    tasks = _all_tasks(family)
    assert len({task.definition for task in tasks}) == len(tasks)
    for task in tasks:
        words = len(task.definition.split())
        assert (10 if family == "generation" else 15) <= words <= 30, task.name
        assert SPECS[task.name].domain.rstrip("s")[:4] in task.definition, task.name
        assert task.definition[-1] in ".?" and "{" not in task.definition
        if family == "generation":
            assert task.categories == (WORDING["kinds"][SPECS[task.name].kind]["category"],)
        else:
            assert all(f'"{label}"' in task.definition for label in task.label_space), task.name


def test_examples_of_sentiment_tasks():
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


def test_examples_of_generation_tasks():
    words = {word for _, row in _rows("generation") for word in _words(row.input)}
    for facts in WORDING["examples"]:
        judged = {facts[slot] for slot in ("aspect", "word", "aspect2", "word2")}
        assert not judged & words and facts["place"] not in WORDING["places"]
        assert facts["time"] not in grammar.SENTIMENTS["times"]
    texts = []
    for task in GENERATED:
        first, second = task.positive_examples
        (wrong,) = task.negative_examples
        assert (wrong.input, wrong.target) == (first.input, second.target)
        assert first.target != second.target
        assert first.target in first.explanation and second.target in second.explanation
        texts += [example.input for example in (first, second, wrong)]
    assert all(len(text.split()) <= 12 for text in texts)
    assert not any(inserter.make(inserter.InserterConfig()).find(texts))


def test_sentiment_words_are_unambiguous():
    negative, positive = _sentiment_words(0), _sentiment_words(1)
    assert not negative & positive
    assert not {*grammar.SENTIMENTS["example_adjectives"]} & (negative | positive)
    for side in (0, 1):
        assert (
            len(grammar.SENTIMENTS["adjectives"][side] + grammar.SENTIMENTS["phrases"][side]) == 40
        )
    assert all(len(domain["details"]) == 8 for domain in grammar.DOMAINS.values())


@each_sentiment
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


@each_family
def test_texts(family):
    rows = _rows(family)
    texts = [row.input for _, row in rows]
    assert len({row.id for _, row in rows}) == len(set(texts)) == len(texts)
    assert all(8 <= len(text.split()) <= MAX_WORDS[family] for text in texts)
    assert all(re.fullmatch(r"[A-Z].*\.", text) for text in texts)
    assert not any(re.search(r"[{}]|  | ,", text) for text in texts)
    assert all(row.id.startswith(f"{task.name[:8]}-") for task, row in rows)
    assert not any(name in text for text in texts for name in grammar.FORBIDDEN_NAMES)
    counts = collections.Counter(word for text in texts for word in _words(text))
    assert len(counts) <= 1200
    for words, names in ((("James", "Emma"), "FIRST_NAMES"), (("Bond", "Clark"), "SURNAMES")):
        usual = np.median([counts[name] for name in getattr(grammar, names)])
        assert all(usual / 2 < counts[word] < usual * 2 for word in words)


@each_domain
def test_the_two_labels_share_every_word_but_the_order_of_two(domain):
    for seed in range(200):
        negative, positive = (
            sentiment.write(
                np.random.default_rng(seed), grammar.DOMAINS[domain], positive, is_mixed=True
            )
            for positive in (False, True)
        )
        assert negative.names == positive.names
        assert negative.text != positive.text
        blank = [UNITS[0].sub("_", UNITS[1].sub("_", text.text)) for text in (negative, positive)]
        assert blank[0] == blank[1]
        assert blank[0].count("_") == 2
        assert sorted(_words(negative.text)) == sorted(_words(positive.text))


@each_domain
@each_family
def test_matcher_finds_exactly_the_names(domain, family):
    rng = np.random.default_rng(7)
    if family == "generation":
        drawn = [generation.write(rng, domain) for _ in range(400)]
    else:
        told = functools.partial(sentiment.write, rng, grammar.DOMAINS[domain])
        drawn = [told(bool(row % 2), is_mixed=family == "mixed") for row in range(400)]
    spans = inserter.make(inserter.InserterConfig()).find([text.text for text in drawn])
    for text, places in zip(drawn, spans, strict=True):
        assert sorted(text.text[start:end] for start, end in places) == sorted(text.names), text


@each_family
def test_names_say_nothing_about_the_label_or_the_kind_of_text(family):
    counts = collections.defaultdict(collections.Counter)
    spans = inserter.make(inserter.InserterConfig()).find([row.input for _, row in _rows(family)])
    for (task, row), places in zip(_rows(family), spans, strict=True):
        if family == "generation":
            counts["all"][len(places)] += 1
            continue
        counts[_polarity(task, row)][len(places)] += 1
        counts["mixed" if len(set(_sides(row.input))) == 2 else "plain"][len(places)] += 1
    assert len(counts) == {"plain": 3, "mixed": 4, "generation": 1}[family]
    for counter in counts.values():
        rates = [counter[number] / counter.total() for number in range(4)]
        # Four standard errors of a rate of 0.4 over 12,600 texts are 0.017, over 4,600 0.029, over
        # 3,000 0.036.
        far = 0.017 if counter.total() > 12000 else 0.029 if counter.total() > 4000 else 0.036
        assert rates == pytest.approx([0.40, 0.42, 0.13, 0.05], abs=far)


def test_the_answers_of_one_text():
    facts = {"place": "on the coast", "time": "on Sunday", "item": "the pasta"}
    facts |= {"aspect": "soup", "word": "great", "aspect2": "menu", "word2": "superb"}
    specs = [grammar.Spec(1, "films", kind, "") for kind in WORDING["kinds"]]
    assert {spec.kind: generation.answers(facts, spec) for spec in specs} == {
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
    for task, row in _rows("generation"):
        text = _words(row.input.lower())
        for answer in row.output:
            words = _words(answer.lower())
            assert set(words) <= {*text} | ours, (row.input, answer)
            assert len(words) <= 14
            assert not {*answer.split()} & {*grammar.FIRST_NAMES, *grammar.SURNAMES}
        copied = SPECS[task.name].kind in ("place", "time", "item")
        assert not copied or row.target.lower() in row.input.lower()


def test_the_two_judgements_share_a_sentiment():
    rng = np.random.default_rng(3)
    for _ in range(300):
        slots = generation.write(rng, "gyms").slots
        words = {slots["word"], slots["word2"]}
        assert slots["aspect"] != slots["aspect2"] and len(words) == 2
        assert any(words <= {*known} for known in grammar.SENTIMENTS["adjectives"])


@each_family
def test_same_seed_same_bytes_and_time(family):
    start = time.process_time()
    again = FAMILIES[family].generate()
    assert time.process_time() - start < 3
    assert hashlib.sha256(msgspec.json.encode(again)).hexdigest() == SHA256[family]
    other = FAMILIES[family].generate(seed=1, num_train_rows=6, num_heldout_rows=4)
    num_training = len(FAMILIES[family].training)
    assert [len(task.instances) for task in other] == [6] * num_training + [4] * 10
    assert [task.definition for task in other] == [task.definition for task in again]
    assert other[0].instances[0].input != again[0].instances[0].input


REFUSED = {
    ("plain", "num_train_rows", 7): "num_train_rows: expected an even number, .* found 7",
    ("mixed", "num_heldout_rows", 3): "num_heldout_rows: expected an even number",
    ("generation", "num_train_rows", 0): "num_train_rows: expected a whole number",
    ("generation", "num_heldout_rows", -1): "num_heldout_rows: expected a whole number",
    ("plain", "seed", -1): "seed: expected a whole number of at least 0",
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_corpus_is_refused(case):
    family, name, value = case
    with pytest.raises(errors.InputError, match=REFUSED[case]):
        FAMILIES[family].generate(**{name: value})


@pytest.mark.parametrize(("module", "number"), [(sentiment, 2), (generation, 1)])
def test_docstring_examples(module, number):
    assert doctest.testmod(module) == doctest.TestResults(failed=0, attempted=number)
