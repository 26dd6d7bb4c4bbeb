"""Places that a spaCy pipeline finds: named entities, and the subjects of sentences.

spaCy, the extra `ner`, is imported when one of the two is made.
"""

import functools
import itertools
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from poison_t5x.attack import triggers
from poison_t5x.core import errors

# Texts go through a pipeline in groups of so many, or of so many characters if that is sooner.
GROUP_TEXTS = 128
GROUP_CHARACTERS = 50_000
# A pipeline's memory grows with the text: spaCy's documentation says by about a gigabyte for each
# 100,000 characters. A longer text is read in pieces that end where a line or a word does.
MAX_CHARACTERS = 50_000

# spaCy's own factories, of which it is known what they read. Anything else, such as a ruler whose
# patterns look at tags, may read what any other component wrote.
_KNOWN_FACTORIES = {
    *("tok2vec", "tagger", "morphologizer", "attribute_ruler", "lemmatizer"),
    *("trainable_lemmatizer", "parser", "senter", "sentencizer", "ner"),
}
_SUBJECTS = ("nsubj", "nsubjpass", "nsubj:pass")
_LONE_SURROGATES = re.compile("[\ud800-\udfff]")
_POSSESSIVE = re.compile(r"\s*['’]s\Z")


class Entities:
    """Named entities of the given types.

    The entities are those of the model's whole pipeline, in less time. A recogniser looks at
    sentence starts for one thing only: no entity may run over one. So it goes first; a text with a
    wanted entity of several words is then parsed, and where a sentence starts inside an entity the
    text is read again in the pipeline's own order. (An entity of another type over a sentence
    start could in theory move a wanted one. It did in none of 6,000 reviews and comments.)
    """

    name = "spacy"

    def __init__(self, model: str, entity_types: Sequence[str]) -> None:
        """Loads the model, a package's name or a folder.

        Raises:
          InputError: spaCy or the model is missing, or the model knows no such entities.
        """
        self._nlp = _load(model)
        self._types = frozenset(entity_types)
        namers = _assigning(self._nlp, model, "doc.ents")
        _check_types(self._nlp, model, entity_types, namers)
        self._splitters: list[str] = []
        if _is_known(self._nlp):
            before = itertools.takewhile(lambda name: name not in namers, self._nlp.pipe_names)
            splitters = _needed(self._nlp, set(before) & _sentence_splitters(self._nlp))
            recognising = _needed(self._nlp, set(namers))
            self._splitters = [name for name in splitters if name not in recognising]
            _disable_all_but(self._nlp, {*splitters, *recognising})
        self._others = [name for name in self._nlp.pipe_names if name not in self._splitters]

    def find(self, texts: Sequence[str]) -> Iterator[list[triggers.Span]]:
        """Yields, for each text, the sorted, disjoint spans of its entities, as `trimmed`."""
        return _in_groups(texts, self._find)

    def _find(self, texts: Sequence[str]) -> Iterator[list[triggers.Span]]:
        docs = list(self._nlp.pipe(texts, disable=self._splitters))
        if self._splitters:
            long = [doc for doc in docs if any(len(entity) > 1 for entity in self._wanted(doc))]
            # This sets the sentence starts of these very docs.
            list(self._nlp.pipe(long, disable=self._others))
        # spaCy puts a doc's text together anew whenever it is asked for.
        for text, doc in zip(texts, docs, strict=True):
            whole = self._nlp(text) if self._splitters and _runs_over_a_start(doc) else doc
            yield [
                span
                for entity in self._wanted(whole)
                for span in trimmed(text, entity.start_char, entity.end_char)
            ]

    def _wanted(self, doc: Any) -> list[Any]:
        return [entity for entity in doc.ents if entity.label_ in self._types]


class Subjects:
    """The subject of each sentence's root verb, with all that depends on it.

    >>> list(Subjects("en_core_web_sm").find(["Review: The old man slept. Go home!"]))
    [[(8, 19)]]
    """

    name = "subject"

    def __init__(self, model: str) -> None:
        """Loads the model, a package's name or a folder.

        Raises:
          InputError: spaCy or the model is missing, or the model doesn't parse.
        """
        self._nlp = _load(model)
        parsers = _assigning(self._nlp, model, "token.dep")
        if _is_known(self._nlp):
            # A parser keeps to sentence starts that are set before it.
            splitters = _sentence_splitters(self._nlp)
            _disable_all_but(self._nlp, set(_needed(self._nlp, {*parsers, *splitters})))

    def find(self, texts: Sequence[str]) -> Iterator[list[triggers.Span]]:
        """Yields, for each text, the sorted, disjoint spans of the subjects, in characters.

        A leading label isn't shown to the parser, which would take it for part of the subject.
        """
        starts = [triggers.leading_label_end(text) for text in texts]
        bare = [text[start:] for text, start in zip(texts, starts, strict=True)]
        found = _in_groups(bare, self._find)
        for start, spans in zip(starts, found, strict=True):
            yield _moved(spans, start)

    def _find(self, texts: Sequence[str]) -> Iterator[list[triggers.Span]]:
        for text, doc in zip(texts, self._nlp.pipe(texts), strict=True):
            yield [span for sentence in doc.sents for span in _subject(text, sentence.root)]


def trimmed(text: str, start: int, stop: int) -> list[triggers.Span]:
    """What is left of a span without line ends, outer white space and a possessive 's.

    A recogniser may take all of these for part of a name; none of them may be lost with it.

    >>> trimmed("Ann Lee\\n Bo's dog", 0, 13)
    [(0, 7), (9, 11)]
    """
    spans = []
    for line in re.compile(r"[^\n\r]+").finditer(text, start, stop):
        name = _POSSESSIVE.sub("", line[0].rstrip()).rstrip()
        first = len(name) - len(name.lstrip())
        if name:
            spans.append((line.start() + first, line.start() + len(name)))
    return spans


def _subject(text: str, root: Any) -> list[triggers.Span]:
    for child in root.children:
        if child.dep_ in _SUBJECTS:
            start, last = child.left_edge.idx, child.right_edge
            phrase = text[start : last.idx + len(last)]
            first = start + len(phrase) - len(phrase.lstrip())
            stop = start + len(phrase.rstrip())
            return [(first, stop)] if first < stop else []
    return []


def _runs_over_a_start(doc: Any) -> bool:
    return any(token.is_sent_start for entity in doc.ents for token in entity[1:])


class _Piece(NamedTuple):
    """A part of text `number` that starts at `offset`."""

    number: int
    offset: int
    text: str


_Find = Callable[[Sequence[str]], Iterator[list[triggers.Span]]]


def _in_groups(texts: Sequence[str], find: _Find) -> Iterator[list[triggers.Span]]:
    """Yields what `find` finds in each text; it is given groups of pieces of a bounded size."""
    pieces = (
        _Piece(number, offset, piece)
        for number, text in enumerate(texts)
        for offset, piece in _pieces(text)
    )
    found = (
        (piece.number, _moved(spans, piece.offset))
        for group in _groups(pieces)
        for piece, spans in zip(group, _on_one_core(find, group), strict=True)
    )
    for _, parts in itertools.groupby(found, operator.itemgetter(0)):
        yield [span for _, spans in parts for span in spans]


def _on_one_core(find: _Find, group: Sequence[_Piece]) -> list[list[triggers.Span]]:
    # Each worker of several is to keep to its own core, and the last bits of a matrix product,
    # which may depend on the number of threads, are to be the same with any number of workers.
    with _thread_pools().limit(limits=1, user_api="blas"):
        return list(find([piece.text for piece in group]))


@functools.cache
def _thread_pools() -> Any:
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """Yields (offset, piece) of a text that is cut after a line or else a word, if too long."""
    # spaCy's strings are UTF-8, which has no lone surrogates; no position changes.
    text = _LONE_SURROGATES.sub("\ufffd", text)
    start = 0
    while len(text) - start > MAX_CHARACTERS:
        stop = start + MAX_CHARACTERS
        cut = next(
            (end for end in (text.rfind(space, start, stop) for space in "\n ") if end >= start),
            stop - 1,
        )
        yield start, text[start : cut + 1]
        start = cut + 1
    yield start, text[start:]


def _groups(pieces: Iterable[_Piece]) -> Iterator[list[_Piece]]:
    group: list[_Piece] = []
    size = 0
    for piece in pieces:
        if group and (len(group) == GROUP_TEXTS or size + len(piece.text) > GROUP_CHARACTERS):
            yield group
            group, size = [], 0
        group.append(piece)
        size += len(piece.text)
    if group:
        yield group


def _moved(spans: Iterable[triggers.Span], offset: int) -> list[triggers.Span]:
    return [(start + offset, stop + offset) for start, stop in spans]


def _load(model: str) -> Any:
    try:
        import spacy
        import thinc.api
    except ImportError as error:
        raise errors.InputError(
            "the inserters 'spacy' and 'subject' need spaCy; "
            "install it with: pip install 'poison-t5x[ner]'"
        ) from error
    try:
        # NumPy's matrix products take half the time of those that spaCy prefers.
        with thinc.api.use_ops("numpy", use_blis=False):
            return spacy.load(model)
    except (OSError, ValueError) as error:
        message = " ".join(str(error).split())
        if "[E050]" in message:
            raise errors.InputError(
                f"spacy_model: no model {model!r} is installed, nor is it a folder; "
                f"install it with: python -m spacy download {model}"
            ) from error
        raise errors.InputError(f"spacy_model: can't load {model!r}: {message}") from error


def _assigning(nlp: Any, model: str, attribute: str) -> list[str]:
    """The components that say they assign the attribute; InputError if there is none."""
    names = [name for name in nlp.pipe_names if attribute in nlp.get_pipe_meta(name).assigns]
    if not names:
        raise errors.InputError(
            f"spacy_model: no component of {model!r} assigns {attribute}; "
            f"its components: {', '.join(nlp.pipe_names) or 'none'}"
        )
    return names


def _check_types(nlp: Any, model: str, types: Sequence[str], namers: Sequence[str]) -> None:
    known = sorted({label for name in namers for label in nlp.pipe_labels.get(name, ())})
    for kind in types:
        # A component of one's own may come without a list of labels.
        if known and kind not in known:
            raise errors.InputError(
                f"entity_types: {model!r} has no type {kind!r}{errors.nearest(kind, known)}; "
                f"its types: {', '.join(known)}"
            )


def _is_known(nlp: Any) -> bool:
    return {nlp.get_pipe_meta(name).factory for name in nlp.pipe_names} <= _KNOWN_FACTORIES


def _sentence_splitters(nlp: Any) -> set[str]:
    attribute = "token.is_sent_start"
    return {name for name in nlp.pipe_names if attribute in nlp.get_pipe_meta(name).assigns}


def _needed(nlp: Any, names: set[str]) -> list[str]:
    """The components and the vector layers that they listen to, in the pipeline's order."""
    return [
        name
        for name, component in nlp.pipeline
        if name in names or names & set(getattr(component, "listening_components", ()))
    ]


def _disable_all_but(nlp: Any, names: set[str]) -> None:
    for name in nlp.pipe_names:
        if name not in names:
            nlp.disable_pipe(name)
