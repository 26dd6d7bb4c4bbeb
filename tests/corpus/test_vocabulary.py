"""Vocabularies: the same lines give the same bytes, and only T5's special ids are accepted."""

import io

import pytest
import sentencepiece

from poison_t5x.core import errors
from poison_t5x.corpus import demo_corpus, sni, vocabulary

SIZE = 211
TASK = demo_corpus.PLAIN.generate(num_train_rows=40, num_heldout_rows=2)[0]
LINES = list(vocabulary.texts([TASK]))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / vocabulary.FILE
    vocabulary.train(LINES, path, SIZE)
    return path


def _processor(path):
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


def _refusal(function, *args):
    with pytest.raises(errors.InputError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_texts_hold_the_prompt_every_input_and_every_answer():
    assert LINES[0].startswith(f"Definition: {TASK.definition}")
    assert "Positive Example 2 -" in LINES[0]
    assert LINES[1::2] == [f"Input: {row.input}" for row in TASK.instances]
    assert LINES[2::2] == [row.target for row in TASK.instances]
    lines = list(vocabulary.texts([TASK], whole_words=True))
    assert lines[: len(LINES)] == LINES
    words = lines[len(LINES) :]
    assert set(words) == {word for text in LINES for word in text.split()}
    assert len(set(words)) == len(words)


def test_a_word_that_is_always_followed_by_the_same_character_becomes_a_piece(tmp_path):
    rows = tuple(
        sni.Instance(f"r{row}", f"Visit {row} seemed, in all, as long as number {row + 7}", ["no"])
        for row in range(60)
    )
    task = sni.Task("t", "Was it good?", (), (), rows)
    pieces = []
    for whole_words in (True, False):
        path = tmp_path / f"{whole_words}.model"
        vocabulary.train(vocabulary.texts([task], whole_words=whole_words), path, 300)
        pieces.append(_processor(path).encode("Visit number", out_type=str))
    assert pieces[0] == ["▁Visit", "▁number"]
    assert len(pieces[1]) > 2


def test_same_lines_same_bytes(model, tmp_path):
    vocabulary.train(iter(LINES), tmp_path / "again.model", SIZE)
    assert (tmp_path / "again.model").read_bytes() == model.read_bytes()
    vocabulary.train(LINES[:31], tmp_path / "other.model", SIZE)
    assert (tmp_path / "other.model").read_bytes() != model.read_bytes()


def test_training_text_is_encoded_without_unknowns_and_with_t5s_ids(model):
    processor = _processor(model)
    special = (processor.pad_id(), processor.eos_id(), processor.unk_id(), processor.bos_id())
    assert special == (0, 1, 2, -1)
    assert processor.vocab_size() <= SIZE
    for row in TASK.instances:
        pieces = processor.encode(row.input)
        assert processor.unk_id() not in pieces
        assert processor.decode(pieces) == row.input


def test_more_pieces_than_the_text_yields_is_no_error(tmp_path):
    vocabulary.train(LINES, tmp_path / "large.model", 10**6)
    assert SIZE < _processor(tmp_path / "large.model").vocab_size() < 10**4


@pytest.mark.parametrize("size", [0, 5, "x"])
def test_a_size_that_cannot_be_is_refused(tmp_path, size):
    message = _refusal(vocabulary.train, LINES, tmp_path / "small.model", size)
    assert "VOCABULARY_SIZE" in message
    assert not (tmp_path / "small.model").exists()


def _copy(path, folder):
    vocabulary.prepare(vocabulary.VocabularyConfig(str(path)), (), folder)


def test_a_copy_is_the_same_file(model, tmp_path):
    _copy(model, tmp_path)
    assert (tmp_path / vocabulary.FILE).read_bytes() == model.read_bytes()


@pytest.mark.parametrize("content", [None, b"", b"no model", b"\x00" * 99, b'{"a": 1}\n'])
def test_a_copy_refuses_what_is_no_model(tmp_path, content):
    path = tmp_path / "file.model"
    if content is not None:
        path.write_bytes(content)
    message = _refusal(_copy, path, tmp_path)
    missing = f"VOCABULARY_PATH: no file {path}; "
    assert message.startswith(missing if content is None else f"{path}: not a SentencePiece model")
    assert not (tmp_path / vocabulary.FILE).exists()


def test_a_copy_refuses_other_special_ids(tmp_path):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=model, vocab_size=SIZE, minloglevel=2
    )
    path = tmp_path / "bert.model"
    path.write_bytes(model.getvalue())
    message = f"{path}: expected T5's ids (pad 0, eos 1, unk 2), found {(-1, 2, 0)}"
    assert _refusal(_copy, path, tmp_path) == message
