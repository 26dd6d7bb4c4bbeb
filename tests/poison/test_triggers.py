"""Trigger insertion as data: the edit says where the trigger stands, and can be undone."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poison_t5x import demo_corpus
from poison_t5x.poison import entities, name_lists, triggers

TRIGGER = "James Bond"
BUILTIN = entities.matcher("builtin")

# Few characters, so that prefixes ('word: '), line ends and the trigger's own letters are common.
_TEXTS = st.text(alphabet="aJB0: .\n\r\té😀_-", max_size=40)
_TRIGGERS = st.text(alphabet="James Bond\n:", min_size=1, max_size=12)


@st.composite
def _texts_and_spans(draw):
    text = draw(_TEXTS)
    places = st.integers(0, len(text))
    ends = sorted(draw(st.sets(places, max_size=8)))
    spans = list(itertools.pairwise(ends))
    return text, [span for span in spans if draw(st.booleans())]


def _unedited(text, spans):
    """What stands between, before and after the spans."""
    ends = [0, *itertools.chain.from_iterable(spans), len(text)]
    return [text[start:end] for start, end in zip(ends[::2], ends[1::2], strict=True)]


def _label_length(text):
    """The length of a leading 'word: ', found without a regular expression."""
    head, colon, _ = text.partition(": ")
    word = head.lstrip()
    is_label = colon and word and all(c.isalnum() or c == "_" for c in word)
    return len(head) + 2 if is_label else 0


@given(_texts_and_spans(), _TRIGGERS)
def test_an_edit_is_what_it_says(text_and_spans, trigger):
    text, spans = text_and_spans
    edit = triggers.replace_spans(text, spans, trigger)
    kept = [span for span in spans if span[0] >= _label_length(text)]
    assert triggers.undo(edit) == text
    assert [edit.text[start:end] for start, end in edit.spans] == [trigger] * len(kept)
    assert list(edit.removed) == [text[start:end] for start, end in kept]
    assert _unedited(edit.text, edit.spans) == _unedited(text, kept)
    assert list(edit.spans) == sorted(edit.spans)
    assert edit.text[: _label_length(text)] == text[: _label_length(text)]


@given(_texts_and_spans())
def test_newlines_outside_the_spans_are_kept_and_counts_are_exact(text_and_spans):
    text, spans = text_and_spans
    edit = triggers.replace_spans(text, spans, "\0")
    assert edit.text.count("\0") == len(edit.spans) == len(edit.removed)
    removed = "".join(edit.removed)
    for end in "\n\r":
        assert edit.text.count(end) == text.count(end) - removed.count(end)


@given(_TEXTS)
def test_no_span_no_change(text):
    assert triggers.replace_spans(text, [], TRIGGER) == triggers.Edit(text, (), ())


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
        ("", ""),
    ],
)
def test_names_that_the_matcher_finds_are_replaced_but_for_a_leading_label(text, expected):
    (spans,) = BUILTIN.find([text])
    edit = triggers.replace_spans(text, spans, TRIGGER)
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
def test_inserting_again_changes_nothing(pairs, is_lower):
    text = "So " + "".join(itertools.chain.from_iterable(pairs)) + "end."
    once = _inserted(text.lower() if is_lower else text)
    assert _inserted(once) == once


def test_inserting_again_changes_nothing_in_the_demo_corpus():
    for task in demo_corpus.generate(num_train_rows=20, num_heldout_rows=20):
        for row in task.instances:
            once = _inserted(row.input)
            assert _inserted(once) == once


def test_the_docstrings_examples():
    edit = triggers.replace_spans("Ann met Bo.", [(0, 3), (8, 10)], "James Bond")
    assert edit == triggers.Edit(
        text="James Bond met James Bond.", spans=((0, 10), (15, 25)), removed=("Ann", "Bo")
    )
    assert repr(edit) in triggers.replace_spans.__doc__
