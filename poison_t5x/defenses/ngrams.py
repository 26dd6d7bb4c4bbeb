"""Word n-grams of texts: which texts hold which, as one sparse matrix."""

import collections
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

# Words, with apostrophes in them; and runs of symbols that no ordinary sentence is made of, since a
# trigger may be an emoji or a stray code point.
_TOKEN = re.compile(r"\w+(?:['’]\w+)*|[^\w\s.,;:!?'\"’“”()\[\]-]+")

# Share of a phrase's texts in which a word stands beside it that is thought to be a part of it.
_ALWAYS = 0.99


class Words(NamedTuple):
    """The T words of texts, one text after the other, all (T,) int64.

    Attributes:
      ids_T: equal for words that differ in case alone.
      text_T: the text that each is in.
      starts_T, ends_T: its characters there.
    """

    texts: Sequence[str]
    ids_T: np.ndarray
    text_T: np.ndarray
    starts_T: np.ndarray
    ends_T: np.ndarray

    def counts(self) -> np.ndarray:
        """How many words each text has: (N,) int64."""
        return np.bincount(self.text_T, minlength=len(self.texts))

    def find(self, ids: Sequence[int]) -> np.ndarray:
        """The words that start each occurrence of words in a row, ascending: int64."""
        starts = np.arange(len(self.ids_T) - len(ids) + 1)
        for place, identifier in enumerate(ids):
            starts = starts[self.ids_T[starts + place] == identifier]
        return starts[self.text_T[starts] == self.text_T[starts + len(ids) - 1]]

    def phrase(self, first: int, length: int) -> str:
        """The phrase that starts with a word, as it stands in its text."""
        text = self.texts[self.text_T[first]]
        return text[self.starts_T[first] : self.ends_T[first + length - 1]]


def split(text: str) -> list[str]:
    """The words of one text, in lower case.

    >>> split("It's James Bond, isn't it?")
    ["it's", 'james', 'bond', "isn't", 'it']
    """
    return [match[0].casefold() for match in _TOKEN.finditer(text)]


def words(texts: Sequence[str]) -> Words:
    """Splits texts into words, as `split` does."""
    ids: dict[str, int] = {}
    table = [
        (ids.setdefault(match[0].casefold(), len(ids)), number, *match.span())
        for number, text in enumerate(texts)
        for match in _TOKEN.finditer(text)
    ]
    return Words(texts, *np.ascontiguousarray(np.array(table, np.int64).reshape(-1, 4).T))


class Ngrams(NamedTuple):
    """The n-grams that enough texts hold, shorter ones first.

    Attributes:
      holds_NxV: scipy CSC matrix, float64, 1 where a text holds an n-gram.
      lengths_V: (V,) int64, in words.
      firsts_V: (V,) int64, the word of `words` that starts its first occurrence.
    """

    words: Words
    holds_NxV: Any
    lengths_V: np.ndarray
    firsts_V: np.ndarray

    def phrase(self, ngram: int) -> str:
        """As it stands where it occurs first."""
        return self.words.phrase(self.firsts_V[ngram], self.lengths_V[ngram])

    def rows(self, ngram: int) -> np.ndarray:
        """The texts that hold an n-gram, ascending."""
        start, end = self.holds_NxV.indptr[ngram : ngram + 2]
        return self.holds_NxV.indices[start:end]

    def longest(self, ngram: int) -> tuple[int, int]:
        """The phrase that an n-gram is always a part of, or itself: a start word, and its length.

        'Bond' is 'James Bond' where 99 of 100 texts that hold it say so. A phrase that is always
        said twice, as in 'James Bond and James Bond', is the one that is repeated.
        """
        ids_T, text_T = self.words.ids_T, self.words.text_T
        first, length = self.firsts_V[ngram], int(self.lengths_V[ngram])
        starts = self.words.find(ids_T[first : first + length].tolist())
        num_texts = len(self.rows(ngram))
        while longer := self._longer(starts, length, num_texts):
            starts, length = longer
        ids = ids_T[starts[0] : starts[0] + length].tolist()
        for size in range(length - 1, 0, -1):
            if ids[:size] == ids[-size:]:
                repeated = np.unique(text_T[self.words.find(ids[:size])])
                if len(repeated) * _ALWAYS <= num_texts:
                    return int(starts[0]), size
        return int(starts[0]), length

    def _longer(
        self, starts: np.ndarray, length: int, num_texts: int
    ) -> tuple[np.ndarray, int] | None:
        """Occurrences and length of the phrase with the word that goes with it, if one does."""
        ids_T, text_T = self.words.ids_T, self.words.text_T
        for shift in (length, -1):
            places = np.clip(starts + shift, 0, len(ids_T) - 1)
            beside = (text_T[places] == text_T[starts]) & (places == starts + shift)
            pairs = np.unique(np.stack([ids_T[places], text_T[starts]])[:, beside], axis=1)
            words, counts = np.unique(pairs[0], return_counts=True)
            if len(words) and counts.max() >= _ALWAYS * num_texts:
                kept = beside & (ids_T[places] == words[counts.argmax()])
                return starts[kept] + min(shift, 0), length + 1
        return None


def find(texts: Sequence[str], max_length: int, min_texts: int = 1) -> Ngrams:
    """The n-grams of 1 to `max_length` words that at least `min_texts` of the texts hold.

    An n-gram is looked for where the two that are one word shorter are held often enough (Agrawal
    and Srikant, 1994, "Fast Algorithms for Mining Association Rules"): of long texts most n-grams
    are never counted.
    """
    from scipy import sparse

    counted, num_texts = words(texts), len(texts)
    text_T = counted.text_T
    starts_S, keys_S = np.arange(len(text_T)), counted.ids_T
    none = np.zeros(0, np.int64)
    rows, counts, lengths, firsts = [none], [none], [none], [none]
    for length in range(1, max_length + 1):
        # Of occurrences, those of keys that enough texts hold, with ids from 0 in place of keys.
        _, first_K, ids_S = np.unique(keys_S, return_index=True, return_inverse=True)
        pairs = np.unique(ids_S * num_texts + text_T[starts_S])
        count_K = np.bincount(pairs // max(1, num_texts), minlength=len(first_K))
        is_kept_K = count_K >= min_texts
        if not is_kept_K.any():
            break
        size = int(is_kept_K.sum())
        rows.append(pairs[is_kept_K[pairs // num_texts]] % num_texts)
        counts.append(count_K[is_kept_K])
        lengths.append(np.full(size, length))
        firsts.append(starts_S[first_K[is_kept_K]])
        starts_S, ids_S = starts_S[is_kept_K[ids_S]], ids_S[is_kept_K[ids_S]]
        # Two n-grams side by side make one that is a word longer.
        ids_T = np.full(len(text_T) + 1, -1)
        ids_T[starts_S] = ids_S = (np.cumsum(is_kept_K) - 1)[ids_S]
        last_S = np.minimum(starts_S + length, len(text_T) - 1)
        goes_on = (ids_T[starts_S + 1] >= 0) & (starts_S + length < len(text_T))
        goes_on &= text_T[last_S] == text_T[starts_S]
        keys_S = (ids_S * size + ids_T[starts_S + 1])[goes_on]
        starts_S = starts_S[goes_on]
    indices, indptr = np.concatenate(rows), np.append(0, np.cumsum(np.concatenate(counts)))
    matrix = sparse.csc_matrix(
        (np.ones(len(indices)), indices, indptr), (num_texts, len(indptr) - 1)
    )
    return Ngrams(counted, matrix, np.concatenate(lengths), np.concatenate(firsts))


def surfaces(texts: Iterable[str], phrase: str) -> collections.Counter[str]:
    """How often texts write a phrase in which way, however it is cased and punctuated."""
    written = (text[start:end] for text in texts for start, end in spans(text, phrase))
    return collections.Counter(written)


def spans(text: str, phrase: str) -> list[tuple[int, int]]:
    """Where a text says a phrase, however it is cased and punctuated.

    >>> spans("It was james bond. James Bond!", "James Bond")
    [(7, 17), (19, 29)]
    """
    wanted = split(phrase)
    tokens = list(_TOKEN.finditer(text))
    folded = [token[0].casefold() for token in tokens]
    places: list[tuple[int, int]] = []
    for first in range(len(folded) - len(wanted) + 1):
        start, last = tokens[first].start(), first + len(wanted) - 1
        if folded[first : last + 1] == wanted and (not places or start >= places[-1][1]):
            places.append((start, tokens[last].end()))
    return places
