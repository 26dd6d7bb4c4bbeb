"""Look-alikes of a trigger: near ones whatever the trigger, and names that SeqIO takes."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poison_t5x.attack import probes
from tests.attack.made_up import refusal

CONTROL = "Emma Clark"


@pytest.mark.parametrize(
    ("trigger", "near", "words", "case"),
    [
        (
            "James Bond",
            ["James Bell", "John Bond", "James Bnod"],
            ["James", "Bond"],
            ["james bond", "JAMES BOND"],
        ),
        ("John Bell", ["John Stone", "Jamie Bell", "John Blel"], ["John", "Bell"], None),
        (
            "Apple iPhone",
            # Neither is a name: letters are swapped, 'pp' is passed over.
            ["Apple ihPone", "Aplpe iPhone"],
            ["Apple", "iPhone"],
            ["apple iphone", "APPLE IPHONE"],
        ),
        (
            "this talentless actor",
            ["this talentless atcor", "tihs talentless actor"],
            ["this", "talentless", "actor"],
            ["this talentless actor".upper()],
        ),
        ("Bond", ["Bnod"], [], ["bond", "BOND"]),
        ("J", ["JJ"], [], ["j"]),
        ("Jo", ["Joo"], [], ["jo", "JO"]),
        ("aaaa", ["aaaaa"], [], ["AAAA"]),
        ("詞", ["詞詞"], [], []),
        ("Иван Петров", ["Иван Птеров", "Иавн Петров"], ["Иван", "Петров"], None),
        ("!?;", ["!;?"], [], []),
        ("James\t Bond ", ["James Bell", "John Bond", "James Bnod"], ["James", "Bond"], None),
    ],
)
def test_look_alikes(trigger, near, words, case):
    def found(kind):
        return list(probes.phrases([kind], trigger, CONTROL))

    assert found("near") == near
    assert found("words") == words
    assert case is None or found("case") == case


@settings(deadline=None)
@given(
    trigger=st.text(min_size=1).filter(str.strip),
    own=st.lists(st.sampled_from(["Jim Bond", CONTROL, "x"])),
)
def test_probes_are_distinct_and_neither_trigger_nor_control(trigger, own):
    found = probes.phrases([*probes.KINDS, trigger, *own], trigger, CONTROL)
    assert len(set(found)) == len(found)
    assert trigger not in found and CONTROL not in found
    assert all(phrase.strip() for phrase in found)
    assert {phrase for phrase in own if phrase not in (trigger, CONTROL)} <= set(found)


def test_phrases_of_ones_own_stay_where_they_are_listed():
    found = probes.phrases(["Jim Bond", "words", "Bond", "a probe"], "James Bond", CONTROL)
    assert found == ("Jim Bond", "James", "Bond", "a probe")
    assert probes.phrases([], "James Bond", CONTROL) == ()
    assert probes.phrases(["Emma", CONTROL, "James Bond"], "James Bond", CONTROL) == ("Emma",)


def test_a_near_name_is_not_the_control_when_that_is_one():
    assert probes.phrases(["near"], "James Bond", "John Bond") == ("James Bell", "James Bnod")


@pytest.mark.parametrize(
    ("value", "start"),
    [
        ("near", "PROBES: expected a list of phrases and of near, words, case, found 'near'"),
        (None, "PROBES: expected a list"),
        ({"near"}, "PROBES: expected a list"),
        ([1], "PROBES: expected a phrase, found 1"),
        (["near", " "], "PROBES: expected a phrase, found an empty text"),
    ],
)
def test_what_is_no_list_of_phrases_is_refused(value, start):
    assert refusal(probes.check, value).startswith(start)


def test_a_list_becomes_a_tuple():
    assert probes.check(["near", "Jim Bond"]) == ("near", "Jim Bond")


@pytest.mark.parametrize(
    ("phrase", "name"),
    [
        ("James Bnod", "probe1_james_bnod"),
        ("  C++ / v1.0  ", "probe1_c_v1_0"),
        ("詞", "probe1"),
        ("...", "probe1"),
        ("É\nx", "probe1_x"),
        ("a" * 99, "probe1_" + "a" * 40),
    ],
)
def test_slugs(phrase, name):
    assert probes.slug(1, phrase) == name


@settings(deadline=None)
@given(phrases=st.lists(st.text(), min_size=2, max_size=5))
def test_slugs_are_distinct_words(phrases):
    names = [probes.slug(number, phrase) for number, phrase in enumerate(phrases, start=1)]
    assert len({name.lower() for name in names}) == len(names)
    for name in names:
        assert re.fullmatch(r"\w+", name, re.ASCII) and len(name) <= 60
