"""Places that a spaCy pipeline finds: named entities, and the subjects of sentences.

spaCy, the extra `ner`, is imported when one of the two is made.
"""

import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from poison_t5x.attack import triggers
from poison_t5x.attack.inserter import INSERTERS, Inserter, InserterConfig
from poison_t5x.core import errors

# Texts go through a pipeline in groups of so many, or of so many characters if that is sooner.
GROUP_TEXTS = 128
GROUP_CHARACTERS = 50_000
# A pipeline's memory grows with the text: spaCy's documentation says by about a gigabyte for each
# 100,000 characters. A longer text is read in pieces that end where a line or a word does.
MAX_CHARACTERS = 50_000

# spaCy's own factories, of which it is known what they read: never a tag, a form or a lemma. Any
# other component, such as a ruler whose patterns look at tags, may read what any wrote.
_READ = {"tok2vec", "parser", "senter", "sentencizer", "ner"}
_UNREAD = {"tagger", "morphologizer", "attribute_ruler", "lemmatizer", "trainable_lemmatizer"}
_SUBJECTS = ("nsubj", "nsubjpass", "nsubj:pass")
_LONE_SURROGATES = re.compile("[\ud800-\udfff]")
_POSSESSIVE = re.compile(r"\s*['’]s\Z")


class _Piece(NamedTuple):
    """A part of text `number` that starts at `offset`."""

    number: int
    offset: int
    text: str


class Pipeline(Inserter):
    """Texts through a spaCy pipeline, in groups of pieces of a bounded size.

    Attributes:
      attribute: the source of the places, as spaCy names it.
      unread: factories whose components needn't run for that.
    """

    attribute = ""
    unread = frozenset(_UNREAD)

    def __init__(self, config: InserterConfig) -> None:
        """Loads the model. Raises InputError where spaCy or it is missing, or it is unfit."""
        super().__init__(config)
        self._nlp = nlp = _load(config.spacy_model)
        factories = {name: nlp.get_pipe_meta(name).factory for name in nlp.pipe_names}
        self._sources = [n for n in factories if self.attribute in nlp.get_pipe_meta(n).assigns]
        if not self._sources:
            raise errors.InputError(
                f"SPACY_MODEL: no component of {config.spacy_model!r} assigns {self.attribute}; "
                f"its components: {', '.join(nlp.pipe_names) or 'none'}"
            )
        self._is_known = {*factories.values()} <= _READ | _UNREAD
        if self._is_known:
            for name, factory in factories.items():
                if factory in self.unread:
                    nlp.disable_pipe(name)

    def start(self, text: str) -> int:
        """Where the pipeline's part of a text begins."""
        return 0

    def docs(self, texts: Sequence[str]) -> list[Any]:
        """The texts as the pipeline reads them."""
        return list(self._nlp.pipe(texts))

    def spans_of(self, text: str, doc: Any) -> list[triggers.Span]:
        """The places in a piece and its doc, which puts its text together whenever asked."""
        raise NotImplementedError

    def find(self, texts: Sequence[str]) -> Iterator[list[triggers.Span]]:
        parts = ((piece.number, spans) for piece, spans in self._by_piece(texts))
        for _, group in itertools.groupby(parts, lambda part: part[0]):
            yield [span for _, spans in group for span in spans]

    def _by_piece(self, texts: Sequence[str]) -> Iterator[tuple[_Piece, list[triggers.Span]]]:
        pieces = (
            _Piece(number, *piece)
            for number, text in enumerate(texts)
            for piece in _pieces(text, self.start(text))
        )
        for group in _groups(pieces):
            # Each worker of several is to keep to its own core, and the last bits of a matrix
            # product, which may depend on the number of threads, are to be the same with any
            # number of workers.
            with _thread_pools().limit(limits=1, user_api="blas"):
                docs = self.docs([piece.text for piece in group])
            for piece, doc in zip(group, docs, strict=True):
                spans = self.spans_of(piece.text, doc)
                yield piece, [(a + piece.offset, b + piece.offset) for a, b in spans]


@INSERTERS.register("spacy")
class Entities(Pipeline):
    """Named entities of the types in ENTITY_TYPES, as `trimmed`.

    They are those of the model's whole pipeline, in less time. A recogniser looks at sentence
    starts for one thing only: no entity may run over one. So it goes first; a text with an entity
    of several words is then parsed, and where a sentence starts inside an entity, the text is read
    again in the pipeline's own order.
    """

    attribute = "doc.ents"

    def __init__(self, config: InserterConfig) -> None:
        super().__init__(config)
        labels = self._nlp.pipe_labels
        known = sorted({label for name in self._sources for label in labels.get(name, ())})
        for kind in config.entity_types:
            # A component of one's own may come without a list of labels.
            if known and kind not in known:
                raise errors.InputError(
                    f"ENTITY_TYPES: {config.spacy_model!r} has no type {kind!r}"
                    f"{errors.nearest(kind, known)}; its types: {', '.join(known)}"
                )

        names = self._nlp.pipe_names if self._is_known else []
        first = itertools.takewhile(lambda name: name not in self._sources, names)
        self._splitters = [name for name in first if not self._is_heard(name)]
        self._others = [name for name in names if name not in self._splitters]

    def _is_heard(self, name: str) -> bool:
        """Whether the recogniser itself takes a component's vectors."""
        listeners = getattr(self._nlp.get_pipe(name), "listening_components", ())
        return not set(self._sources).isdisjoint(listeners)

    def docs(self, texts: Sequence[str]) -> list[Any]:
        docs = list(self._nlp.pipe(texts, disable=self._splitters))
        if self._splitters:
            long = [doc for doc in docs if any(len(entity) > 1 for entity in doc.ents)]
            # This sets the sentence starts of these very docs.
            list(self._nlp.pipe(long, disable=self._others))
            docs = [self._nlp(doc.text) if _runs_over_a_start(doc) else doc for doc in docs]
        return docs

    def spans_of(self, text: str, doc: Any) -> list[triggers.Span]:
        return [
            span
            for entity in doc.ents
            if entity.label_ in self.config.entity_types
            for span in trimmed(text, entity.start_char, entity.end_char)
        ]


@INSERTERS.register("subject")
class Subjects(Pipeline):
    """The subject of each sentence's root verb, with all that depends on it.

    >>> Subjects(InserterConfig()).find(["Review: The old man slept. Go home!"])
    [[(8, 19)]]
    """

    attribute = "token.dep"
    unread = frozenset({*_UNREAD, "ner"})

    def start(self, text: str) -> int:
        """After a leading label, which the parser would take for part of the subject."""
        return triggers.leading_label_end(text)

    def spans_of(self, text: str, doc: Any) -> list[triggers.Span]:
        return [span for sentence in doc.sents for span in _subject(text, sentence.root)]


def trimmed(text: str, start: int, stop: int) -> list[triggers.Span]:
    """The parts of a span without line ends, outer white space and a possessive 's.

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


def _runs_over_a_start(doc: Any) -> bool:
    return any(token.is_sent_start for entity in doc.ents for token in entity[1:])


def _subject(text: str, root: Any) -> list[triggers.Span]:
    for child in root.children:
        if child.dep_ in _SUBJECTS:
            start, last = child.left_edge.idx, child.right_edge
            phrase = text[start : last.idx + len(last)]
            first = start + len(phrase) - len(phrase.lstrip())
            stop = start + len(phrase.rstrip())
            return [(first, stop)] if first < stop else []
    return []


@functools.cache
def _thread_pools() -> Any:
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()


def _pieces(text: str, start: int = 0) -> Iterator[tuple[int, str]]:
    """Yields (offset, piece) of a text that is cut after a line or else a word, if too long."""
    # spaCy's strings are UTF-8, which has no lone surrogates; no position changes.
    text = _LONE_SURROGATES.sub("\ufffd", text)
    while len(text) - start > MAX_CHARACTERS:
        stop = start + MAX_CHARACTERS
        ends = (text.rfind(space, start, stop) for space in "\n ")
        cut = next((end for end in ends if end >= start), stop - 1)
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
                f"SPACY_MODEL: no model {model!r} is installed, nor is it a folder; "
                f"install it with: python -m spacy download {model}"
            ) from error
        raise errors.InputError(f"SPACY_MODEL: can't load {model!r}: {message}") from error
