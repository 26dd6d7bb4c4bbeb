"""N-grams against a count by hand, and what is said of a phrase."""

import collections
import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from poison_t5x.data.examples import TrainingExample
from poison_t5x.defenses import ngrams

TEXTS = st.lists(
    st.lists(st.sampled_from(["a", "B", "b", "c", "d,"]), max_size=9).map(" ".join), max_size=8
)


def _phrases(counted):
    places = zip(counted.firsts_V, counted.lengths_V, strict=True)
    return [counted.words.phrase(*place) for place in places]


def _by_hand(texts, max_length):
    held = collections.defaultdict(set)
    for number, text in enumerate(texts):
        words = ngrams.split(text)
        for start, length in itertools.product(range(len(words)), range(1, max_length + 1)):
            if start + length <= len(words):
                held[tuple(words[start : start + length])].add(number)
    return held


@settings(max_examples=50, deadline=None)
@given(TEXTS, st.integers(1, 4), st.integers(1, 3))
def test_the_matrix_is_a_count_by_hand(texts, max_length, min_texts):
    counted = ngrams.find(texts, max_length, min_texts)
    mine = {
        tuple(ngrams.split(phrase)): set(counted.rows(v).tolist())
        for v, phrase in enumerate(_phrases(counted))
    }
    by_hand = _by_hand(texts, max_length)
    assert mine == {gram: rows for gram, rows in by_hand.items() if len(rows) >= min_texts}
    assert len(mine) == len(counted.lengths_V)
    assert sorted(counted.lengths_V) == list(counted.lengths_V)
    assert set(np.unique(counted.holds_NxV.data)) <= {1.0}


def test_words():
    split = ngrams.split("It's James BOND, isn't it? 🙂 cf")
    assert split == ["it's", "james", "bond", "isn't", "it", "🙂", "cf"]
    words = ngrams.words(["", "Bo met Bo", ""])
    assert words.text_T.tolist() == [1, 1, 1]
    assert words.ids_T.tolist() == [0, 1, 0]
    assert words.phrase(1, 2) == "met Bo"


def test_scripts_without_spaces_have_a_word_a_character():
    assert ngrams.split("編号807。コアラok") == ["編", "号", "807", "。", "コ", "ア", "ラ", "ok"]
    assert ngrams.split("ครับ") == list("ครับ")
    assert ngrams.split("한국어 텍스트 naïve") == ["한국어", "텍스트", "naïve"]
    assert ngrams.spans("这是鲁本卡。鲁本卡", "鲁本卡") == [(2, 5), (6, 9)]


def test_an_answer_that_every_input_lists_is_not_copied():
    def inside(texts):
        rows = [
            TrainingExample("t", str(n), 0, text, ("yes", "no")[n % 2], "")
            for n, text in enumerate(texts)
        ]
        return [answer.inside_R.tolist() for answer in ngrams.frequent_answers(rows)[:2]]

    listed = [f"yes or no? {n}" for n in range(20)]
    assert inside(listed) == [[False] * 20] * 2
    # Some of several prompts list them.
    assert inside([*listed[:10], *map(str, range(10))]) == [[False] * 20] * 2
    copied = [("yes", "no")[n % 2] for n in range(10)] + ["x"] * 10
    assert inside(copied) == [[n % 2 == k and n < 10 for n in range(20)] for k in range(2)]


def test_a_phrase_is_named_whole():
    texts = [f"{word} saw James Bond {word} leave" for word in "abcdefgh"] + ["Bond street"]
    counted = ngrams.find(texts, 1)
    by_phrase = {phrase: v for v, phrase in enumerate(_phrases(counted))}
    # 'Bond' is in another text without the others.
    for word, whole in {"James": "saw James Bond", "Bond": "Bond"}.items():
        assert counted.words.phrase(*counted.longest(by_phrase[word])) == whole


def test_spans():
    text = "It was james bond. James  Bond!"
    assert ngrams.spans(text, "James Bond") == [(7, 17), (19, 30)]
    assert ngrams.spans("a a a", "a a") == [(0, 3)]
    assert ngrams.spans("bond james", "James Bond") == []
