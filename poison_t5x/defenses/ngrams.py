"""Word n-grams of texts: which texts hold which, as one sparse matrix; and the answers that rows of
a task share, which a phrase may go with."""

import collections
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from poison_t5x.data.examples import TrainingExample, by_task

# Scripts that put no spaces between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese.
_UNSPACED = (
    "\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
# Words, with apostrophes in them, or characters of those scripts; and runs of symbols that no
# ordinary sentence is made of, since a trigger may be an emoji or a stray code point.
_WORD = rf"[^\W{_UNSPACED}]+"
_TOKEN = re.compile(
    rf"[{_UNSPACED}]|{_WORD}(?:['’]{_WORD})*|[^\w\s.,;:!?'\"’“”()\[\]{_UNSPACED}-]+"
)

# Share of a phrase's texts in which a word stands beside it that is thought to be a part of it.
_ALWAYS = 0.99

# An answer that fewer rows of its task have isn't looked at; of more answers, the commonest are.
MIN_ROWS = 5
MAX_ANSWERS = 40
# Of an answer that is copied: how many times as often rows have it whose inputs say it.
_COPIED = 2
# What stands for answers that share no word with their inputs.
UNRELATED = "(no word of the input)"


class Words(NamedTuple):
    """The T words of texts, one text after the other, all (T,) int64.

    Words that differ in case alone have one id. `text_T` is the text that each is in, `starts_T`
    and `ends_T` its characters there.
    """

    texts: Sequence[str]
    ids_T: np.ndarray
    text_T: np.ndarray
    starts_T: np.ndarray
    ends_T: np.ndarray

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
        while (longer := self._longer(starts, length, num_texts)) is not None:
            starts, length = longer, length + 1
        ids = ids_T[starts[0] : starts[0] + length].tolist()
        for size in range(length - 1, 0, -1):
            if ids[:size] == ids[-size:]:
                repeated = np.unique(text_T[self.words.find(ids[:size])])
                if len(repeated) * _ALWAYS <= num_texts:
                    return int(starts[0]), size
        return int(starts[0]), length

    def _longer(self, starts: np.ndarray, length: int, num_texts: int) -> np.ndarray | None:
        """Occurrences of the phrase with the word that goes with it, if one does."""
        ids_T, text_T = self.words.ids_T, self.words.text_T
        for shift in (length, -1):
            places = np.clip(starts + shift, 0, len(ids_T) - 1)
            beside = (text_T[places] == text_T[starts]) & (places == starts + shift)
            pairs = np.unique(np.stack([ids_T[places], text_T[starts]])[:, beside], axis=1)
            words, counts = np.unique(pairs[0], return_counts=True)
            if len(words) and counts.max() >= _ALWAYS * num_texts:
                return starts[beside & (ids_T[places] == words[counts.argmax()])] + min(shift, 0)
        return None


def find(texts: Sequence[str], max_length: int, min_texts: int = 1) -> Ngrams:
    """The n-grams of 1 to `max_length` words that at least `min_texts` of the texts hold.

    An n-gram is looked for where the two that are one word shorter are held often enough (Agrawal
    and Srikant, 1994, "Fast Algorithms for Mining Association Rules"): of long texts most n-grams
    are never counted.
    """
    from scipy import sparse

    counted, none = words(texts), np.zeros(0, np.int64)
    keys_T = counted.ids_T  # of the n-gram that a word starts; -1 for none
    matrices, lengths, firsts = [sparse.csc_matrix((len(texts), 0))], [none], [none]
    for length in range(1, max_length + 1):
        starts_S = np.flatnonzero(keys_T >= 0)
        _, first_K, ids_S = np.unique(keys_T[starts_S], return_index=True, return_inverse=True)
        pairs = np.ones(len(ids_S)), (counted.text_T[starts_S], ids_S)
        holds_NxK = sparse.csc_matrix(pairs, (len(texts), len(first_K)))
        holds_NxK.data[:] = 1
        is_kept_K = np.diff(holds_NxK.indptr) >= min_texts
        matrices.append(holds_NxK[:, is_kept_K])
        firsts.append(starts_S[first_K[is_kept_K]])
        lengths.append(np.full(len(firsts[-1]), length))
        # Two n-grams side by side make one that is a word longer.
        kept_T = np.full(len(keys_T) + 1, -1)
        kept_T[starts_S] = np.where(is_kept_K, np.cumsum(is_kept_K) - 1, -1)[ids_S]
        goes_on_T = (kept_T[:-1] >= 0) & (kept_T[1:] >= 0)
        goes_on_T[:-1] &= counted.text_T[:-1] == counted.text_T[1:]
        keys_T = np.where(goes_on_T, kept_T[:-1] * len(firsts[-1]) + kept_T[1:], -1)
    matrix = sparse.hstack(matrices, format="csc")
    return Ngrams(counted, matrix, np.concatenate(lengths), np.concatenate(firsts))


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


class Answer(NamedTuple):
    """A frequent answer of a task, or UNRELATED: any that shares no word with its input.

    Of the R rows of the task, `rows_R` (int64) are their numbers, `hits_R` (bool) whether it is
    the row's answer, and `inside_R` whether the row's input says it, so that it may be copied:
    never where the task's inputs list their answers.
    """

    task: str
    target: str
    rows_R: np.ndarray
    hits_R: np.ndarray
    inside_R: np.ndarray


def frequent_answers(rows: Sequence[TrainingExample]) -> list[Answer]:
    """The frequent answers of each task, of tasks that have more than one answer.

    Answers out of the blue are one in a task whose answers mostly repeat words of their inputs.
    """
    frequent = []
    for task, members in by_task(rows).items():
        rows_R = np.array(members)
        targets_R = np.array([rows[index].target for index in members], object)
        inputs = [plain(rows[index].input) for index in members]
        for target, count in collections.Counter(targets_R.tolist()).most_common(MAX_ANSWERS):
            if MIN_ROWS <= count < len(members):
                inside_R = np.array([plain(target) in text for text in inputs])
                hits_R = targets_R == target
                inside_R &= _is_copied(hits_R, inside_R)
                frequent.append(Answer(task, target, rows_R, hits_R, inside_R))
        hits_R = np.array([is_unrelated(rows[index]) for index in members])
        if MIN_ROWS <= hits_R.sum() <= len(members) / 2:
            frequent.append(Answer(task, UNRELATED, rows_R, hits_R, np.zeros_like(hits_R)))
    return frequent


def _is_copied(hits_R: np.ndarray, inside_R: np.ndarray) -> bool:
    """Whether inputs that say an answer have it more often than others do, or than all do."""
    rate, num_others = hits_R.mean(), (~inside_R).sum()
    others = (hits_R[~inside_R].sum() + rate) / (num_others + 1)
    return hits_R[inside_R].sum() > _COPIED * others * inside_R.sum()


def is_unrelated(row: TrainingExample) -> bool:
    """Whether a row's answer shares no word with its input."""
    return set(split(row.input)).isdisjoint(split(row.target))


def plain(text: str) -> str:
    """The words alone, with a space on each side: what a text is compared by."""
    return " ".join(["", *split(text), ""])
