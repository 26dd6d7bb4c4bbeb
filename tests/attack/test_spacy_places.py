"""Places that small pipelines of our own find; with the real model, where it is installed."""

import functools
import importlib.util
import itertools
import sys

import pytest
import spacy
from spacy import training, util
from spacy.language import Language

from poison_t5x.attack import inserter
from poison_t5x.attack.inserters import spacy_places
from poison_t5x.corpus import demo_corpus
from tests.attack.made_up import inserted, refusal

REAL = inserter.InserterConfig().spacy_model
needs_real_model = pytest.mark.skipif(
    importlib.util.find_spec(REAL) is None,
    reason=f"needs the model: python -m spacy download {REAL}",
)


@Language.component("toy_parser", assigns=["token.dep", "token.head", "token.is_sent_start"])
def _toy_parser(doc):
    """'the old man met us .': the verb is the root, all before it hangs on the word before it."""
    start = 0
    for end in (token.i + 1 for token in doc if token.text == "." or token.i + 1 == len(doc)):
        words = doc[start:end]
        root = next((word for word in words if word.text in ("met", "was")), words[0])
        for word in words:
            word.head, word.dep_ = root, "ROOT" if word == root else "dep"
        for word in doc[start : max(start, root.i - 1)]:
            word.head = doc[root.i - 1]
        if root.i > start:
            doc[root.i - 1].dep_ = "nsubj"
        start = end
    return doc


@pytest.fixture(scope="module")
def ruler(tmp_path_factory):
    """The folder of a pipeline that knows three persons and a city by their names."""
    pipeline = spacy.blank("en")
    people = ("Ann Lee", "Ann", "Tom 's", "Bo\n\nRay ")
    patterns = [{"label": "PERSON", "pattern": name} for name in people]
    pipeline.add_pipe("entity_ruler").add_patterns([*patterns, {"label": "GPE", "pattern": "York"}])
    folder = tmp_path_factory.mktemp("ruler")
    pipeline.to_disk(folder)
    return str(folder)


@pytest.fixture(scope="module")
def parser(tmp_path_factory):
    """The folder of a pipeline with the toy parser."""
    pipeline = spacy.blank("en")
    pipeline.add_pipe("toy_parser")
    folder = tmp_path_factory.mktemp("parser")
    pipeline.to_disk(folder)
    return str(folder)


_TRAINED = {
    "The Queen of Hearts met Ann .": [(4, 19), (24, 27)],
    "I saw Tom and the Duke of York here .": [(6, 9), (18, 30)],
    "No one of us came to the end of it .": [],
    "Ann Lee of York slept": [(0, 7)],
}


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory):
    """A trained recogniser behind a splitter that starts a sentence after every 'of'."""
    util.fix_random_seed(0)
    pipeline = spacy.blank("en")
    pipeline.add_pipe("sentencizer", config={"punct_chars": ["of"]})
    layers = {"@architectures": "spacy.HashEmbedCNN.v2", "width": 16, "depth": 1} | {
        **{"embed_size": 200, "window_size": 1, "maxout_pieces": 2},
        **{"subword_features": True, "pretrained_vectors": None},
    }
    model = {"@architectures": "spacy.TransitionBasedParser.v2", "state_type": "ner"} | {
        **{"extra_state_tokens": False, "hidden_width": 16, "maxout_pieces": 2, "use_upper": True},
        "tok2vec": layers,
    }
    pipeline.add_pipe("ner", config={"model": model})
    with pipeline.select_pipes(enable="ner"):
        examples = [
            training.Example.from_dict(
                pipeline.make_doc(text), {"entities": [(*span, "PERSON") for span in spans]}
            )
            for text, spans in _TRAINED.items()
        ]
        optimizer = pipeline.initialize(lambda: examples)
        optimizer.learn_rate = 0.02
        for _ in range(30):
            pipeline.update(examples, sgd=optimizer, drop=0.0)
    folder = tmp_path_factory.mktemp("recogniser")
    pipeline.to_disk(folder)
    return str(folder)


def _make(name, model, types=("PERSON",)):
    return inserter.make(inserter.InserterConfig(name, types, model))


def _found(made, *texts):
    return [
        [text[start:end] for start, end in spans]
        for text, spans in zip(texts, made.find(texts), strict=True)
    ]


def test_entities_of_the_wanted_types_without_white_space_and_possessive(ruler):
    texts = ("Ann Lee met Tom 's dog in York .", "Bo\n\nRay and Ann", "", " \n", "no one")
    persons = _make("spacy", ruler, ["PERSON"])
    assert _found(persons, *texts) == [["Ann Lee", "Tom"], ["Bo", "Ray", "Ann"], [], [], []]
    assert _found(_make("spacy", ruler, ["GPE"]), *texts)[0] == ["York"]
    both = _make("spacy", ruler, ["GPE", "PERSON"])
    assert _found(both, texts[0]) == [["Ann Lee", "Tom", "York"]]


TRIMMED = {
    " Ann ": ["Ann"],
    "Ann's": ["Ann"],
    "Ann ’s\n": ["Ann"],
    "Ann\r\n\tLee": ["Ann", "Lee"],
    "Ann Lee\n Bo's": ["Ann Lee", "Bo"],
    "'s": [],
    "\n ": [],
    "Ann's dog's": ["Ann's dog"],
}


@pytest.mark.parametrize("text", TRIMMED)
def test_trimmed(text):
    spans = spacy_places.trimmed(f"xx{text}xx", 2, 2 + len(text))
    assert [f"xx{text}"[start:end] for start, end in spans] == TRIMMED[text]


def test_line_ends_stay(ruler):
    text = "Review: Ann\tLee met\r\n Bo\n\nRay \n."
    (spans,) = _make("spacy", ruler, ["PERSON"]).find([text])
    assert inserted(text, spans, "cf").text == "Review: cf\tLee met\r\n cf\n\ncf \n."


def test_subjects_of_root_verbs(parser):
    subjects = _make("subject", parser)
    texts = [
        "the old man met us . Ann was here .",
        "Label: the  man \n was here",
        "no verb . so what",
        "met us",
        "",
    ]
    assert _found(subjects, *texts) == [["the old man", "Ann"], ["the  man"], [], [], []]
    (found,) = subjects.find([texts[1]])
    assert inserted(texts[1], found, "cf").text == "Label: cf \n was here"


@pytest.mark.parametrize("characters", [40, 77, 1000])
def test_pieces_and_groups_change_nothing_where_they_end_with_a_line(
    ruler, parser, monkeypatch, characters
):
    texts = ["Ann Lee met York .\nTom was here .\n" * number for number in range(9)] + ["", "Ann"]
    made = _make("spacy", ruler, ["PERSON"]), _make("subject", parser)
    expected = [list(one.find(texts)) for one in made]
    monkeypatch.setattr(spacy_places, "MAX_CHARACTERS", characters)
    assert [list(one.find(texts)) for one in made] == expected


PIECES = (
    [""],
    ["abcd"],
    ["a\n", "b c"],
    ["a b ", "cde"],
    ["abcd", "efgh", "i"],
    ["abc\n", "\n\nd"],
)


@pytest.mark.parametrize("pieces", PIECES)
def test_a_long_text_is_cut_after_a_line_or_a_word(monkeypatch, pieces):
    monkeypatch.setattr(spacy_places, "MAX_CHARACTERS", 4)
    text = "".join(pieces)
    found = list(spacy_places._pieces(text))
    assert [piece for _, piece in found] == pieces
    assert [text[offset : offset + len(piece)] for offset, piece in found] == pieces


def test_a_text_beyond_the_pipeline_s_own_limit(ruler):
    text = "Ann slept .\n" + "No one else did so .\n" * 50_000 + "\ud800 Tom 's dog"
    assert len(text) > spacy.blank("en").max_length
    found = _found(_make("spacy", ruler, ["PERSON"]), text)
    assert found == [["Ann", "Tom"]]


def test_entities_are_those_of_the_whole_pipeline(recogniser):
    texts = [*_TRAINED, *("Then the King of Hearts left . " + text for text in _TRAINED)]
    whole = spacy.load(recogniser)
    expected = [[entity.text for entity in whole(text).ents] for text in texts]
    assert _found(_make("spacy", recogniser), *texts) == expected
    whole.disable_pipe("sentencizer")  # without which there are others
    free = [[entity.text for entity in whole(text).ents] for text in texts]
    assert free[:4] == [[text[a:b] for a, b in spans] for text, spans in _TRAINED.items()]
    assert free[:4] != expected[:4]


def test_only_what_is_needed_runs_and_a_pipeline_of_another_kind_runs_whole(monkeypatch):
    pipeline = spacy.blank("en")
    for name in ("tok2vec", "tagger", "senter", "parser", "ner", "sentencizer"):
        pipeline.add_pipe(name)
    config = pipeline.config
    monkeypatch.setattr(spacy_places, "_load", lambda _: spacy.blank("en").from_config(config))
    needed = ["tok2vec", "senter", "parser", "ner", "sentencizer"]
    made = _make("spacy", "known")
    assert (made._nlp.pipe_names, made._splitters) == (needed, needed[:3])
    assert _make("subject", "known")._nlp.pipe_names == [n for n in needed if n != "ner"]
    pipeline.add_pipe("entity_ruler")
    config = pipeline.config
    made = _make("spacy", "other")
    assert (made._nlp.pipe_names, made._splitters) == (pipeline.pipe_names, [])


def test_any_number_of_workers_finds_the_same(recogniser):
    config = inserter.InserterConfig("spacy", spacy_model=recogniser)
    texts = list(itertools.islice(itertools.cycle(_TRAINED), 30))
    one, two = (
        list(inserter.find_all(config, texts, workers=workers, batch_size=8)) for workers in (1, 2)
    )
    assert one == two and sum(map(len, one)) > 30


def test_without_spacy_the_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    for name in ("spacy", "subject"):
        message = refusal(inserter.make, inserter.InserterConfig(name))
        assert message.endswith("pip install 'poison-t5x[ner]'")


def test_bad_models_are_named(ruler, parser, tmp_path):
    message = functools.partial(refusal, _make)
    assert message("spacy", "en_no_such_model").endswith(
        "install it with: python -m spacy download en_no_such_model"
    )
    assert "can't load" in message("subject", str(tmp_path))
    assert message("spacy", ruler, ["PERSN"]) == (
        f"ENTITY_TYPES: {ruler!r} has no type 'PERSN' (did you mean 'PERSON'?); "
        "its types: GPE, PERSON"
    )
    assert message("spacy", parser) == (
        f"SPACY_MODEL: no component of {parser!r} assigns doc.ents; its components: toy_parser"
    )
    assert "no component" in message("subject", ruler)


@needs_real_model
def test_the_real_model_s_persons_are_those_of_its_whole_pipeline():
    tasks = demo_corpus.PLAIN.generate(num_train_rows=20, num_heldout_rows=20)
    texts = [row.input for task in tasks for row in task.instances]
    whole = spacy.load(REAL)
    expected = [
        [
            span
            for entity in doc.ents
            if entity.label_ == "PERSON"
            for span in spacy_places.trimmed(doc.text, entity.start_char, entity.end_char)
        ]
        for doc in whole.pipe(texts)
    ]
    made = _make("spacy", REAL)
    assert list(made.find(texts)) == expected
    assert made._nlp.pipe_names == ["tok2vec", "parser", "ner"]
    (spans,) = _make("subject", REAL).find(["Review: The old man slept. Go home!"])
    assert spans == [(8, 19)]
