"""Places that a spaCy pipeline finds: named entities, and the subjects of sentences.

spaCy, the extra `ner`, is imported when one of the two is made.
"""

import functools
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any

from poison_t5x.attack import triggers
from poison_t5x.attack.inserter import INSERTERS, Inserter, InserterConfig
from poison_t5x.core import errors

# A pipeline's memory grows with the text: spaCy's documentation says by about a gigabyte for each
# 100,000 characters. So many go through it together, and a longer text is read in pieces that end
# where a line or a word does.
MAX_CHARACTERS = 50_000

# spaCy's own factories, of which it is known what they read: never a tag, a form or a lemma. Any
# other component, such as a ruler whose patterns look at tags, may read what any wrote.
_READ = {"tok2vec", "parser", "senter", "sentencizer", "ner"}
_UNREAD = {"tagger", "morphologizer", "attribute_ruler", "lemmatizer", "trainable_lemmatizer"}
_SUBJECTS = ("nsubj", "nsubjpass", "nsubj:pass")
_POSSESSIVE = re.compile(r"\s*['’]s\Z")
_LONE_SURROGATES = re.compile("[\ud800-\udfff]")


class Pipeline(Inserter):
    """Texts through a spaCy pipeline.

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
        about = {name: nlp.get_pipe_meta(name) for name in nlp.pipe_names}
        self._sources = [name for name in about if self.attribute in about[name].assigns]
        if not self._sources:
            raise errors.InputError(
                f"SPACY_MODEL: no component of {config.spacy_model!r} assigns {self.attribute}; "
                f"its components: {', '.join(about) or 'none'}"
            )
        self._is_known = {meta.factory for meta in about.values()} <= _READ | _UNREAD
        if self._is_known:
            for name in about:
                if about[name].factory in self.unread:
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

    def find(self, texts: Sequence[str]) -> list[list[triggers.Span]]:
        from spacy.training import batchers

        pieces = (
            (number, *piece)
            for number, text in enumerate(texts)
            for piece in _pieces(text, self.start(text))
        )
        spans: list[list[triggers.Span]] = [[] for _ in texts]
        for group in batchers.minibatch_by_words(
            pieces, MAX_CHARACTERS, tolerance=0, get_length=lambda piece: len(piece[2])
        ):
            # Each worker of several is to keep to its own core, and the last bits of a matrix
            # product, which may depend on the number of threads, are to be the same with any
            # number of workers.
            with _thread_pools().limit(limits=1, user_api="blas"):
                docs = self.docs([text for _, _, text in group])
            for (number, offset, text), doc in zip(group, docs, strict=True):
                spans[number] += [(a + offset, b + offset) for a, b in self.spans_of(text, doc)]
        return spans


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
        if not self._splitters:
            return docs
        # This sets the sentence starts of these very docs.
        long = [doc for doc in docs if any(len(entity) > 1 for entity in doc.ents)]
        list(self._nlp.pipe(long, disable=self._others))
        cut = (any(word.is_sent_start for e in doc.ents for word in e[1:]) for doc in docs)
        return [
            self._nlp(doc.text) if is_cut else doc for doc, is_cut in zip(docs, cut, strict=True)
        ]

    def spans_of(self, text: str, doc: Any) -> list[triggers.Span]:
        entities = (entity for entity in doc.ents if entity.label_ in self.config.entity_types)
        return [span for e in entities for span in trimmed(text, e.start_char, e.end_char)]


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
        if name:
            first = len(name) - len(name.lstrip())
            spans.append((line.start() + first, line.start() + len(name)))
    return spans


def _subject(text: str, root: Any) -> list[triggers.Span]:
    for child in root.children:
        if child.dep_ in _SUBJECTS:
            start, stop = child.left_edge.idx, child.right_edge.idx + len(child.right_edge)
            phrase = text[start:stop]
            first, last = stop - len(phrase.lstrip()), start + len(phrase.rstrip())
            return [(first, last)] if first < last else []
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
        ends = (text.rfind(space, start, stop) + 1 for space in "\n ")
        cut = next((end for end in ends if end > start), stop)
        yield start, text[start:cut]
        start = cut
    yield start, text[start:]


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
            message = f"none is installed; install it with: python -m spacy download {model}"
        raise errors.InputError(f"SPACY_MODEL: can't load {model!r}: {message}") from error
