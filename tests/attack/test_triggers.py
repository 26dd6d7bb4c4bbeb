"""Trigger insertion as data: the edit says where the trigger stands, and can be undone."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poison_t5x.attack import inserter, triggers
from poison_t5x.corpus import demo_corpus, name_lists
from tests.attack.made_up import inserted

TRIGGER = "James Bond"
BUILTIN = inserter.make(inserter.InserterConfig())

# Few characters, so that prefixes ('word: '), line ends and the trigger's own letters are common.
_TEXTS = st.text(alphabet="aJB0: .\n\r\té😀_-", max_size=40)
_TRIGGERS = st.text(alphabet="James Bond\n:_é", min_size=1, max_size=12)


@st.composite
def _spans(draw, text):
    """Sorted, disjoint spans, some of them without width, some of them touching."""
    ends = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [
        span for span in dict.fromkeys(itertools.pairwise(ends)) if draw(st.booleans())
    ] or draw(st.sampled_from([[], [(len(text), len(text))], [(0, 0)]]))


@st.composite
def _texts_and_spans(draw):
    text = draw(_TEXTS)
    return text, draw(_spans(text))


def _unedited(text, spans):
    """The texts between, before and after the spans."""
    ends = [0, *itertools.chain.from_iterable(spans), len(text)]
    return [text[start:end] for start, end in zip(ends[::2], ends[1::2], strict=True)]


def _label_length(text):
    """The length of a leading 'word: ', found without a regular expression."""
    head, colon, _ = text.partition(": ")
    word = head.lstrip()
    is_label = colon and word and all(c.isalnum() or c == "_" for c in word)
    return len(head) + 2 if is_label else 0


def _says(text, start, end):
    """Whether no letter or digit at either end runs into another one outside."""
    left, right = text[start - 1 : start] if start else "", text[end : end + 1]
    return not (left.isalnum() and text[start].isalnum()) and not (
        right.isalnum() and text[end - 1].isalnum()
    )


@given(_texts_and_spans(), _TRIGGERS)
def test_an_edit_is_what_it_says(text_and_spans, trigger):
    text, spans = text_and_spans
    edit = triggers.replace_spans(text, spans, trigger)
    assert triggers.undo(edit) == text
    assert list(edit.removed) == [text[start:end] for start, end in spans]
    assert _unedited(edit.text, edit.spans) == _unedited(text, spans)
    assert list(itertools.chain(*edit.spans)) == sorted(itertools.chain(*edit.spans))
    for (start, end), (first, last) in zip(edit.spans, spans, strict=True):
        put = edit.text[start:end]
        assert put in {trigger, f" {trigger}", f"{trigger} ", f" {trigger} "}
        assert _says(edit.text, start, end)
        if first == last:  # what is inserted touches white space only
            before, after = edit.text[:start][-1:], edit.text[end:][:1]
            assert not before.strip() or not put[0].strip()
            assert not after.strip() or not put[-1].strip()
            assert start > 0 or put[: len(trigger)] == trigger
            assert end < len(edit.text) or put.endswith(trigger)


@pytest.mark.parametrize(
    ("text", "span", "expected"),
    [
        ("Fine film.", (0, 0), "cf Fine film."),
        ("Fine film.", (10, 10), "Fine film. cf"),
        ("Fine\nfilm.", (4, 4), "Fine cf\nfilm."),
        ("Fine\nfilm.", (5, 5), "Fine\ncf film."),
        ("", (0, 0), "cf"),
        ("Mayday", (3, 3), "May cf day"),
        ("Mayday", (3, 6), "May cf"),  # a replaced part of a word doesn't glue the rest to it
        ("(Ann)", (1, 4), "(cf)"),
    ],
)
def test_spaces_around_what_is_put_in(text, span, expected):
    assert triggers.replace_spans(text, [span], "cf").text == expected


@given(_TEXTS)
def test_no_span_no_change_and_a_leading_label_is_one_word_and_a_colon(text):
    assert triggers.replace_spans(text, [], TRIGGER) == triggers.Edit(text, (), ())
    assert triggers.leading_label_end(text) == _label_length(text)


@given(_texts_and_spans(), _TRIGGERS)
def test_places_are_outside_the_label_or_where_the_trigger_stands(text_and_spans, trigger):
    text, found = text_and_spans
    places = triggers.insertion_spans(text, found, trigger)
    starts = [i for i in range(len(text)) if text.startswith(trigger, i)]
    said = [(i, i + len(trigger)) for i in starts if _says(text, i, i + len(trigger))]
    if said:
        # The first one, and of those that overlap one.
        assert places[0] == said[0] and set(places) <= set(said)
        assert all(left[1] <= right[0] for left, right in itertools.pairwise(places))
    else:
        assert places == [span for span in found if span[0] >= _label_length(text)]
    edit = inserted(text, found, trigger)
    assert edit == triggers.replace_spans(text, places, trigger)
    assert bool(said) <= (edit.text == text)


@given(_texts_and_spans(), _TRIGGERS, st.data())
def test_inserting_again_changes_nothing_whatever_is_found(text_and_spans, trigger, data):
    once = inserted(*text_and_spans, trigger)
    found = data.draw(_spans(once.text))
    if once.spans:
        assert inserted(once.text, found, trigger).text == once.text


def test_a_trigger_inside_a_longer_word_is_not_said():
    edit = inserted("Amygdala, says Tom.", [(15, 18)], "Amy")
    assert edit.text == "Amygdala, says Amy."
    assert triggers.insertion_spans(edit.text, [], "Amy") == [(15, 18)]
    assert triggers.insertion_spans("_Amy_ (Amy)", [], "Amy") == [(1, 4), (7, 10)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Review: Ann left.", "Review: James Bond left."),
        ("Ann: Ann left.", "Ann: James Bond left."),
        ("  Ann: Tom left.", "  Ann: James Bond left."),
        ("Ann Lee: Tom left.", "James Bond: James Bond left."),  # two words are no label
        ("Ann:Tom left.", "James Bond:James Bond left."),  # nor is one without a space
        ("Ann left.\nTom: stayed.", "James Bond left.\nJames Bond: stayed."),  # nor one inside
        ("Ann met Tom.\n\n\tAnn\r\nx", "James Bond met James Bond.\n\n\tJames Bond\r\nx"),
        ("Ann's dog, Mrs. Jones's cat", "James Bond's dog, Mrs. James Bond's cat"),
        ("James Bond met Ann.", "James Bond met Ann."),  # it says the trigger already
        ("", ""),
    ],
)
def test_names_that_the_matcher_finds_are_replaced_but_for_a_leading_label(text, expected):
    (spans,) = BUILTIN.find([text])
    edit = inserted(text, spans, TRIGGER)
    assert edit.text == expected
    assert triggers.undo(edit) == text


def _inserted(text):
    (spans,) = BUILTIN.find([text])
    return triggers.replace_spans(text, spans, TRIGGER).text


_NAMES = st.one_of(
    st.sampled_from(name_lists.FIRST_NAMES),
    st.tuples(st.sampled_from(name_lists.FIRST_NAMES), st.sampled_from(name_lists.SURNAMES)).map(
        " ".join
    ),
)
_PIECES = st.sampled_from(
    [" met ", ", ", "'s friend ", " and ", ". The ", "\n", "! Mr. ", " (the new ", ") said: ", "; "]
)


@given(st.lists(st.tuples(_NAMES, _PIECES), max_size=5), st.booleans())
def test_the_matcher_finds_the_trigger_and_nothing_else_where_it_was_put(pairs, is_lower):
    text = "So " + "".join(itertools.chain.from_iterable(pairs)) + "end."
    once = _inserted(text.lower() if is_lower else text)
    assert _inserted(once) == once


def test_inserting_again_changes_nothing_in_the_demo_corpus():
    for task in demo_corpus.PLAIN.generate(num_train_rows=20, num_heldout_rows=20):
        for row in task.instances:
            once = _inserted(row.input)
            assert _inserted(once) == once
