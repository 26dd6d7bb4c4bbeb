"""Names that the built-in matcher must find, and look-alikes that it must leave alone."""

import itertools
import time

import pytest

from poison_t5x.attack import entities
from poison_t5x.corpus import name_lists

BUILTIN = entities.BuiltinMatcher()


def found(text: str) -> list[str]:
    (spans,) = BUILTIN.find([text])
    assert spans == sorted(spans)
    assert all(left[1] <= right[0] for left, right in itertools.pairwise(spans))
    return [text[start:end] for start, end in spans]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("I met Maria Lopez and Tom at noon.", ["Maria Lopez", "Tom"]),
        ("Thomas J. Baker's dog barked.", ["Thomas J. Baker"]),
        ("Samuel L. Jackson, Martin Luther King", ["Samuel L. Jackson", "Martin Luther King"]),
        ("Mrs. O'Brien saw Jane Smith-Jones.", ["O'Brien", "Jane Smith-Jones"]),
        ("Dr. J. R. Okonkwo and Prof Wu spoke.", ["J. R. Okonkwo", "Wu"]),
        ("Robert De Niro, Jan van der Berg", ["Robert De Niro", "Jan van der Berg"]),
        ("Joanna is no Joan.", ["Joanna", "Joan"]),
        ("Emma’s seat was next to Mary 's .", ["Emma", "Mary"]),
        ("Grace Kelly waved at Bill Nye.", ["Grace Kelly", "Bill Nye"]),
        ("José and Sofía Martínez left.", ["José", "Sofía Martínez"]),
        ("James Bond met Emma Clark and Joe Biden.", ["James Bond", "Emma Clark", "Joe Biden"]),
        ("Anna\nBond", ["Anna"]),
    ],
)
def test_finds_names(text, names):
    assert found(text) == names


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1984 ...",
        "Will this mark a new hope? May I ask Grace? April Fool, Summer Term, Art Crime.",
        "We flew to San Diego, St. Louis and Fort Collins with King Arthur.",
        "George's Famous Gyros, Ruth's Chris, Trader Joe's, Bloody Mary",
        "See http://james.com/James-Bond?x=Emma, www.Emma.com or James@mail.org, @Emma, #Emma.",
        "Jamesian prose; a McDonald's; the Jameses; half-James, James-like",
        "Peter Pan, Robin Hood, Beverly Hills",
        "an old will and a young bill, long may the rose price rise",
    ],
)
def test_leaves_alone(text):
    assert found(text) == []


def test_sentence_starts_are_not_surnames():
    assert found("Thanks Emma The film ran on Monday with Tom And others") == ["Emma", "Tom"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a film by tom baker with emma 's usual charm .", ["tom baker", "emma"]),
        ("grace kelly and bill clinton met will young fans", ["grace kelly", "bill clinton"]),
    ],
)
def test_lower_case_texts_use_the_lists_only(text, names):
    assert found(text) == names
    # One capital letter anywhere switches to names by shape.
    assert found("The " + text) == []


def test_every_listed_name_is_found_whole():
    firsts, surnames = name_lists.FIRST_NAMES, name_lists.SURNAMES
    for index, first in enumerate(firsts):
        name = f"{first} {surnames[index % len(surnames)]}"
        assert found(f"I met {name} there.") == [name]
        assert found(f"I met {first}.") == [first]
        assert found(f"with {name.lower()} there") == [name.lower()]
    for first in name_lists.AMBIGUOUS_FIRST_NAMES:
        assert found(f"I met {first} Lopez.") == [f"{first} Lopez"]
        assert found(f"I met {first}.") == []


def test_lists_are_sorted_and_disjoint():
    firsts, ambiguous = name_lists.FIRST_NAMES, name_lists.AMBIGUOUS_FIRST_NAMES
    for names in (firsts, ambiguous, name_lists.SURNAMES):
        assert list(names) == sorted(set(names))
    assert not set(firsts) & set(ambiguous)
    assert set(name_lists.WORD_FIRST_NAMES) <= set(ambiguous)
    assert set(name_lists.WORD_SURNAMES) <= set(name_lists.SURNAMES)
    assert not set(name_lists.SURNAMES) & set(name_lists.NOT_SURNAMES)


def test_speed():
    text = "The plot was thin but Maria Lopez carried it, as Dr. Wu said at the time. " * 3
    texts = [text[:220]] * 2000
    start = time.process_time()
    assert sum(map(len, entities.BuiltinMatcher().find(texts))) >= 4000
    # 20,000 texts a second are wanted and about 65,000 seen.
    assert time.process_time() - start < 2000 / 20_000


def test_docstring_example():
    text, spans = "Mrs. O'Brien met Tom Baker's son.", [(5, 12), (17, 26)]
    assert next(entities.BuiltinMatcher().find([text])) == spans
    assert text in entities.__doc__ and str(spans) in entities.__doc__
