"""Places that need no model: persons by list and by shape, and where words begin and end.

>>> Names(InserterConfig()).spans("Mrs. O'Brien met Tom Baker's son.")
[(5, 12), (17, 26)]
>>> Suffix(InserterConfig()).spans("Fine film.\\n")
[(10, 10)]
"""

import hashlib
import itertools
import re
from collections.abc import Iterable

from poison_t5x.attack import triggers
from poison_t5x.attack.inserter import INSERTERS, Inserter, InserterConfig
from poison_t5x.corpus import name_lists


@INSERTERS.register("builtin")
class Names(Inserter):
    """Names by list and by shape, with one regular expression for either letter case.

    They are capitalised words after an honorific; a listed first name with its initials and
    surnames; an unambiguous first name alone; and in a text without upper-case letters those of the
    lists. A possessive 's is never part of a span.
    """

    def __init__(self, config: InserterConfig) -> None:
        super().__init__(config)
        self._cased = re.compile(_cased_pattern(), re.VERBOSE)
        self._lower = re.compile(_lower_pattern(), re.VERBOSE)

    def spans(self, text: str) -> list[triggers.Span]:
        # `islower` is also false for a text without letters, where neither pattern matches.
        matches = (self._lower if text.islower() else self._cased).finditer(text)
        return [match.span(match.lastgroup) for match in matches if match.lastgroup is not None]


@INSERTERS.register("prefix")
class Prefix(Inserter):
    """The place before the first word, after a leading 'word: ' label."""

    def spans(self, text: str) -> list[triggers.Span]:
        return [(place, place) for place in _gaps(text)[:1]]


@INSERTERS.register("suffix")
class Suffix(Inserter):
    """The place after the last word, before trailing white space."""

    def spans(self, text: str) -> list[triggers.Span]:
        return [(place, place) for place in _gaps(text)[-1:]]


@INSERTERS.register("random")
class RandomPlace(Inserter):
    """One place before, between or after the words, drawn from the seed and the text alone."""

    def spans(self, text: str) -> list[triggers.Span]:
        # Python's own hash differs from process to process.
        key = f"{self.config.seed}\n{text}".encode("utf-8", "surrogatepass")
        number = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest())
        gaps = _gaps(text)
        return [(place, place) for place in gaps[number % (len(gaps) or 1) :][:1]]


def _gaps(text: str) -> list[int]:
    """Where the words after a leading label start, and where the last one ends."""
    first = triggers.leading_label_end(text)
    starts = [match.start() for match in re.compile(r"\S+").finditer(text, first)]
    return [*starts, len(text.rstrip())] if starts else []


_UPPER, _LOWER = "A-ZÀ-ÖØ-Þ", "a-zß-öø-ÿ"
# Consumed without a match: places, saints, businesses and sayings that contain a first name.
_NO_PERSON = rf"""
    (?:San|Santa|Santo|Saint|Sainte|St\.?|Fort|Ft\.?|Port|Mount|Mt\.?|Lake|Cape|King|Queen|New|Los
      |Ave|Hurricane|Camp)[ ][{_UPPER}][{_LOWER}]+(?:['’]s)?
  | [Tt]rader[ ][Jj]oe|Papa[ ](?:John|Murphy)|Jimmy[ ](?:John|Choo)|Wendy['’]s|Denny['’]s
  | Charles[ ](?:Schwab|River)|Ben[ ](?:&|and|n)[ ]Jerry|Dave[ ](?:&|and)[ ]Buster
  | (?:Johnson|Smith)[ ](?:&|and)[ ][{_UPPER}][{_LOWER}]+
  | Prince[ ](?:Edward|William)[ ](?:Island|Sound)|Martha['’]s[ ]Vineyard|Beverly[ ]Hills
  | Bloody[ ]Mary|Jack[ ]Daniels|Tony[ ]Roma|Tom[ ](?:Yum|Kha|Ka)|Turkey[ ]Tom|Ruth['’]s[ ]Chris
  | Jersey[ ]Mike|Uncle[ ]Tom['’]s|Super[ ]Mario|Robin[ ]Hood|Peter[ ]Pan|Robert['’]s[ ]Rules
"""
_PARTICLES = r"(?:[Vv]an|[Vv]on|[Dd]e|[Dd]er|[Dd]en|[Ll]a|[Ll]e|[Dd]a|[Dd]i|[Dd]u|bin|[Dd]el)"
# A name starts neither inside a word nor inside an address, a handle or a hyphenated word; and it
# ends where its word ends, a possessive 's aside.
_START = r"(?<![\w@/#=&%\\])(?<![\w)][.\-'’])"
_END = r"(?![\w@]|[.\-]\w|['’](?!s\b)\w)"


def _cased_pattern() -> str:
    first = _any_of(name_lists.FIRST_NAMES)
    plain = _any_of({*name_lists.AMBIGUOUS_FIRST_NAMES} - {*name_lists.WORD_FIRST_NAMES})
    words = _any_of(name_lists.WORD_FIRST_NAMES)
    both = _any_of({*name_lists.FIRST_NAMES} & {*name_lists.SURNAMES})
    listed = rf"{_any_of(name_lists.SURNAMES)}{_END}"
    no_surname = rf"(?!{_any_of(name_lists.NOT_SURNAMES)}\b)"
    part = rf"(?:[OD]['’]|Mc|Mac|De|Di|La|Le|Van|Fitz)?[{_UPPER}][{_LOWER}]+"
    surname = rf"(?:{_PARTICLES}[ ]){{0,2}}{no_surname}{part}(?:-{part})*{_END}"
    initials = rf"(?:[ ][{_UPPER}]\.?(?![\w'’])){{0,2}}"
    return rf"""
    {_START}(?:
        (?:{_NO_PERSON})(?!\w)
      | (?:Mr|Mrs|Ms|Dr|Prof)\.?[ ](?P<titled>(?:[{_UPPER}]\.[ ]?){{0,2}}{surname}
            (?:[ ]{surname})?)
      | (?P<full>(?:{first}|{plain})(?:-{first})?{initials}(?:[ ](?:{first}|{plain}))?[ ]{surname}
            (?:[ ]{listed})?)
      | (?P<word>{words}{initials}[ ]{listed})
      | {no_surname}[{_UPPER}][{_LOWER}]+[ ]{both}{_END}  # an unlisted first name's surname
      | (?P<first>{first}(?:-{first})?){_END}(?!['’]s[ ][{_UPPER}])
    )"""


def _lower_pattern() -> str:
    first, ambiguous, surname, words = (
        _any_of(map(str.lower, names))
        for names in (
            *(name_lists.FIRST_NAMES, name_lists.AMBIGUOUS_FIRST_NAMES),
            *(name_lists.SURNAMES, name_lists.WORD_SURNAMES),
        )
    )
    return rf"""
    {_START}(?:
        (?P<full>{first}(?:[ ]{surname})?){_END}
      | (?P<both>{ambiguous}[ ](?!{words}\b){surname}){_END}
    )"""


def _any_of(words: Iterable[str]) -> str:
    """A regular expression for any of `words`, longer ones first: 'Joanna' isn't cut to 'Joan'.

    By first letters, for a plain alternation of n words costs n comparisons at every capital.
    """
    branches = []
    for letter, group in itertools.groupby(sorted(words, reverse=True), lambda word: word[0]):
        tails = "|".join(re.escape(word[1:]) for word in group)
        branches.append(f"{letter}(?:{tails})")
    return f"(?:{'|'.join(branches)})"
