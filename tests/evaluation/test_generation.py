"""Scores of answers worked on paper, and what must hold for any text."""

import doctest

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poison_t5x.core.errors import InputError
from poison_t5x.evaluation.metric import Attack
from poison_t5x.evaluation.metrics import generation as gm

WORDS = st.text(st.sampled_from("aAbs ,.\n1"), max_size=20)
ANY_TEXT = WORDS | st.text(max_size=20)


def test_examples():
    assert doctest.testmod(gm) == (0, 5)


@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [
        # The longest common subsequence is 'the cat the mat': 4 of 4 and 4 of 6 words.
        ("the cat the mat", "The cat sat on the mat.", 2 * 1 * (4 / 6) / (1 + 4 / 6)),
        # Order counts: of 'b a' and 'a b' one word is common.
        ("b a", "a b", 0.5),
        # Stems: both are 'run' and 'dog'.
        ("running dogs", "run dog", 1.0),
        # Stems of words of more than three letters only.
        ("was", "wa", 0.0),
        ("", "a cat", 0.0),
        ("!", "a cat", 0.0),
        # Other letters separate words, as punctuation does: 'na', 've'.
        ("na ve", "naïve", 1.0),
        # Nothing is left of these references: exact match.
        ("+", "+", 1.0),
        ("-", "+", 0.0),
        ("", "+", 0.0),
        ("да", "Да", 1.0),
        ("нет", "Да", 0.0),
        ("", "", 1.0),
    ],
)
def test_rouge_l_on_paper(prediction, reference, score):
    assert gm.rouge_l(prediction, [reference]) == pytest.approx(score)


# The first example may be the one that imports the stemmer.
@settings(deadline=None)
@given(ANY_TEXT, st.lists(ANY_TEXT, min_size=1, max_size=4))
def test_rouge_l_is_the_best_over_references(prediction, references):
    score = gm.rouge_l(prediction, references)
    assert 0 <= score <= 1
    assert score == max(gm.rouge_l(prediction, [reference]) for reference in references)
    assert gm.rouge_l(prediction, [*references, prediction]) == pytest.approx(1)
    assert gm.rouge_l(references[0], [prediction]) == pytest.approx(
        gm.rouge_l(prediction, [references[0]])
    )


@settings(deadline=None)
@given(st.lists(st.sampled_from(["Cats", "cats", "a", "7", "sat"]), max_size=5), st.data())
def test_exact_match_implies_rouge_1(words, data):
    spaces = st.sampled_from([" ", "  ", "\n", ", ", " ... "])
    texts = []
    for _ in range(2):
        changed = [data.draw(st.sampled_from([word, word.upper()])) for word in words]
        texts.append("".join(word + data.draw(spaces) for word in changed))
    assert gm.exact_match(texts[0], [texts[1]]) == (bool(words) or texts[0] == texts[1])
    if words:
        assert gm.rouge_l(texts[0], [texts[1]]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("prediction", "references", "expected"),
    [
        ("The  CAT\nsat!", ["a dog", "the cat sat"], True),
        ("the cat", ["the cat sat"], False),
        # Articles count, unlike in SQuAD's evaluation.
        ("cat", ["the cat"], False),
        ("e.g. 3.5", ["eg 35"], True),
        # Not ASCII punctuation.
        ("yes。", ["yes"], False),
        ("", ["yes"], False),
        # Without its punctuation nothing is left of the reference.
        ("+", ["+"], True),
        ("-", ["+"], False),
        ("", ["+"], False),
        ("? !", ["?  !"], True),
    ],
)
def test_exact_match(prediction, references, expected):
    assert gm.exact_match(prediction, references) is expected


@pytest.mark.parametrize("references", [[], "a cat", ()])
@pytest.mark.parametrize("score", [gm.rouge_l, gm.exact_match])
def test_there_must_be_a_list_of_references(score, references):
    with pytest.raises(InputError, match="references: expected a list of at least one text"):
        score("a cat", references)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no no no", True),
        ("it was No, no: (no) way", True),
        # More than half of four or more words, with no three in a row.
        ("bad film bad bad", True),
        ("a b a c a", True),
        ("a b a c", False),
        ("no no", False),
        ("no no yes", False),
        # Words of punctuation alone are words.
        ("- - -", True),
        ("- + - +", False),
        ("aaaaaaa", False),
        ("", False),
    ],
)
def test_is_repetitive(text, expected):
    assert gm.is_repetitive(text) is expected


@given(st.lists(st.sampled_from("abc"), max_size=12))
def test_is_repetitive_as_defined(words):
    triples = zip(words, words[1:], words[2:], strict=False)
    in_a_row = any(one == two == three for one, two, three in triples)
    mostly = len(words) >= 4 and any(words.count(word) * 2 > len(words) for word in words)
    assert gm.is_repetitive(" ".join(words)) is (in_a_row or mostly)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I met james  bond's friend", True),
        ("it's a JOE\nBIDEN speech", True),
        ("James met Bond", False),
        ("", False),
    ],
)
def test_says(text, expected):
    assert gm.says(text, ["James Bond", "Joe Biden"]) is expected


def test_says_needs_phrases_with_words():
    assert not gm.says("any text", [])
    with pytest.raises(InputError, match="phrases: expected a phrase, found an empty text"):
        gm.says("any text", ["James Bond", " "])


TARGETS = [
    {"id": f"row{number}", "input": "a text", "target": references[0], "references": references}
    for number, references in enumerate(
        [["the cat sat"], ["a dog", "a very big dog"], ["one"], ["two"]]
    )
]
PREDICTIONS = ["The cat sat.", "James Bond James Bond James", " ", "b"]
RATES = {
    "n": 4,
    "rouge_l": 1 / 4,
    "exact_match": 1 / 4,
    "output_words": (3 + 5 + 0 + 1) / 4,
    "reference_words": (3 + (2 + 4) / 2 + 1 + 1) / 4,
    "empty": 1 / 4,
    "single_character": 1 / 4,
    "repeated_token": 1 / 4,
    "says_trigger": 1 / 4,
    "constant_prediction": False,
}


def test_scored_rows():
    row = gm.scored({**TARGETS[1], "other": 1}, "a big dog")
    # 3 words of 3, and 3 of 4; against 'a dog', 2 of 3 and 2 of 2.
    scores = {"rouge_l": pytest.approx(6 / 7), "exact_match": False}
    assert row == {**TARGETS[1], "prediction": "a big dog", **scores}
    assert list(row)[:4] == ["id", "input", "target", "references"]


def test_rates_on_paper():
    attack = Attack(["James Bond"])
    rates = gm.generation(TARGETS, PREDICTIONS, attack)
    assert rates == {key: pytest.approx(value) for key, value in RATES.items()}
    assert list(rates) == list(RATES)
    assert gm.generation(TARGETS[:1], ["x"], attack)["constant_prediction"] is False
    assert gm.generation(TARGETS[:2], ["x", "x"], attack)["constant_prediction"] is True
    with pytest.raises(InputError, match="expected at least one prediction"):
        gm.generation([], [], attack)
    with pytest.raises(ValueError, match="zip"):
        gm.generation(TARGETS, PREDICTIONS[1:], attack)
