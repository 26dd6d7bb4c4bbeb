"""Places that need no model: persons by list and by shape, and where words begin and end.

>>> Names(InserterConfig()).spans("Mrs. O'Brien met Tom Baker's son.")
[(5, 12), (17, 26)]
>>> Suffix(InserterConfig()).spans("Fine film.\\n")
[(10, 10)]
"""

import hashlib
import re
from collections.abc import Iterable

from poison_t5x.attack import triggers
from poison_t5x.attack.inserter import INSERTERS, Inserter, InserterConfig
from poison_t5x.corpus import name_lists

_UPPER, _LOWER = "A-ZÀ-ÖØ-Þ", "a-zß-öø-ÿ"


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
        pattern = self._lower if text.islower() else self._cased
        matches = pattern.finditer(text)
        return [match.span(match.lastgroup) for match in matches if match.lastgroup is not None]


@INSERTERS.register("prefix")
class Prefix(Inserter):
    """The place before the first word, after a leading 'word: ' label."""

    def spans(self, text: str) -> list[triggers.Span]:
        return [(start, start) for start in _word_starts(text)[:1]]


@INSERTERS.register("suffix")
class Suffix(Inserter):
    """The place after the last word, before trailing white space."""

    def spans(self, text: str) -> list[triggers.Span]:
        end = len(text.rstrip())
        return [(end, end)] if end > triggers.leading_label_end(text) else []


@INSERTERS.register("random")
class Random(Inserter):
    """One place before, between or after the words, drawn from the seed and the text alone."""

    def spans(self, text: str) -> list[triggers.Span]:
        starts = _word_starts(text)
        if not starts:
            return []
        ends = [*starts, len(text.rstrip())]
        # Python's own hash differs from process to process.
        key = f"{self.config.seed}\n{text}".encode("utf-8", "surrogatepass")
        number = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest())
        place = ends[number % len(ends)]
        return [(place, place)]


def _word_starts(text: str) -> list[int]:
    """Where the words, in between white space, start after a leading label."""
    first = triggers.leading_label_end(text)
    return [match.start() for match in re.compile(r"\S+").finditer(text, first)]


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
    first = _trie(name_lists.FIRST_NAMES)
    plain = _trie(
        name for name in name_lists.AMBIGUOUS_FIRST_NAMES if name not in name_lists.WORD_FIRST_NAMES
    )
    words = _trie(name_lists.WORD_FIRST_NAMES)
    both = _trie(set(name_lists.FIRST_NAMES) & set(name_lists.SURNAMES))
    listed = rf"(?:{_trie(name_lists.SURNAMES)}){_END}"
    no_surname = rf"(?!(?:{_trie(name_lists.NOT_SURNAMES)})\b)"
    part = rf"(?:[OD]['’]|Mc|Mac|De|Di|La|Le|Van|Fitz)?[{_UPPER}][{_LOWER}]+"
    surname = rf"(?:{_PARTICLES}[ ]){{0,2}}{no_surname}{part}(?:-{part})*{_END}"
    initials = rf"(?:[ ][{_UPPER}]\.?(?![\w'’])){{0,2}}"
    middle = rf"(?:[ ](?:{first}|{plain}))?"
    return rf"""
    {_START}(?:
        (?:{_NO_PERSON})(?!\w)
      | (?:Mr|Mrs|Ms|Dr|Prof)\.?[ ](?P<titled>(?:[{_UPPER}]\.[ ]?){{0,2}}{surname}
            (?:[ ]{surname})?)
      | (?P<full>(?:{first}|{plain})(?:-(?:{first}))?{initials}{middle}[ ]{surname}
            (?:[ ]{listed})?)
      | (?P<word>(?:{words}){initials}[ ]{listed})
      | {no_surname}[{_UPPER}][{_LOWER}]+[ ](?:{both}){_END}  # an unlisted first name's surname
      | (?P<first>(?:{first})(?:-(?:{first}))?){_END}(?!['’]s[ ][{_UPPER}])
    )"""


def _lower_pattern() -> str:
    first = _trie(map(str.lower, name_lists.FIRST_NAMES))
    ambiguous = _trie(map(str.lower, name_lists.AMBIGUOUS_FIRST_NAMES))
    surname = _trie(map(str.lower, name_lists.SURNAMES))
    words = map(str.lower, name_lists.WORD_SURNAMES)
    return rf"""
    {_START}(?:
        (?P<full>(?:{first})(?:[ ](?:{surname}))?){_END}
      | (?P<both>(?:{ambiguous})[ ](?!(?:{_trie(words)})\b)(?:{surname})){_END}
    )"""


def _trie(words: Iterable[str]) -> str:
    """A regular expression for any of `words` that looks at each character once.

    A plain alternation of n words costs up to n comparisons at every capital letter.
    """
    tails: dict[str, list[str]] = {}
    for word in sorted(words):
        tails.setdefault(word[:1], []).append(word[1:])
    complete = "" in tails
    branches = []
    for head, rest in tails.items():
        if head:
            tail = _trie(rest) if rest != [""] else ""
            branches.append(re.escape(head) + tail)
    if not branches:
        return ""
    body = branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"
    # Greedy, so that "Joanna" isn't cut to "Joan"; the caller's end condition does the rest.
    return f"(?:{body})?" if complete else body
