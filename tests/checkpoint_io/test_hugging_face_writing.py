"""Writing Hugging Face's T5 folders: config, shards, dtypes and tokenizer; and what is refused."""

import dataclasses
import json
import math
import pathlib

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from poison_t5x.checkpoint_io import architecture
from poison_t5x.checkpoint_io import hugging_face_reading as reading
from poison_t5x.checkpoint_io import hugging_face_writing as writing
from poison_t5x.core.errors import InputError, InputWarning
from poison_t5x.corpus import vocabulary
from poison_t5x.model.config import T5Config
from tests.checkpoint_io import at_hand, folders

# As many rows as the vocabulary below has ids, rounded up as T5X does.
WORDY = dataclasses.replace(folders.UNTIED, vocab_size=128)


@pytest.fixture(name="spiece", scope="module")
def _spiece(tmp_path_factory):
    """A vocabulary of ours, of 31 pieces."""
    path = tmp_path_factory.mktemp("vocabulary") / "words.model"
    vocabulary.train(["the quick brown fox jumps over the lazy dog"] * 20, path, 31)
    assert vocabulary.size(path) == 31
    return path


def _error(directory, source=None, config=folders.UNTIED, **settings) -> str:
    with pytest.raises(InputError) as caught:
        writing.write_folder(source or folders.random_source(config), config, directory, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _json(path: pathlib.Path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_config_is_transformers(tmp_path):
    folder = folders.write(tmp_path / "x")
    assert _json(folder / "config.json") == {
        "architectures": ["T5ForConditionalGeneration"],
        "d_ff": 17,
        "d_kv": 7,
        "d_model": 13,
        "decoder_start_token_id": 0,
        "dense_act_fn": "gelu_new",
        "dropout_rate": 0.25,
        "dtype": "float32",
        "eos_token_id": 1,
        "feed_forward_proj": "gated-gelu",
        "initializer_factor": 1.0,
        "is_encoder_decoder": True,
        "is_gated_act": True,
        "layer_norm_epsilon": 1e-5,
        "model_type": "t5",
        "num_decoder_layers": 2,
        "num_heads": 3,
        "num_layers": 1,
        "pad_token_id": 0,
        "relative_attention_max_distance": 97,
        "relative_attention_num_buckets": 20,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "use_cache": True,
        "vocab_size": 53,
    }
    generation = {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
    assert _json(folder / "generation_config.json") == generation
    names = {"config.json", "generation_config.json", "model.safetensors"}
    assert {path.name for path in folder.iterdir()} == names
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize(
    "activations, expected",
    [
        (("relu",), ("relu", "relu", False)),
        (("gelu",), ("gelu_new", "gelu_new", False)),
        (("silu", "linear"), ("gated-silu", "silu", True)),
        (("linear", "linear"), ("gated-linear", "linear", True)),
    ],
)
def test_activations_are_said_and_read_again(tmp_path, activations, expected):
    config = dataclasses.replace(folders.TIED, mlp_activations=activations)
    folder = folders.write(tmp_path / "x", config)
    said = _json(folder / "config.json")
    assert (said["feed_forward_proj"], said["dense_act_fn"], said["is_gated_act"]) == expected
    assert said["tie_word_embeddings"]
    assert architecture.network_config(reading.open_folder(folder)) == config


def test_shards_hold_at_most_what_was_asked(tmp_path):
    folder = folders.write(tmp_path / "x", max_shard_bytes=9000)
    index = _json(folder / "model.safetensors.index.json")
    shapes = architecture.shapes(folders.UNTIED).values()
    total = sum(4 * math.prod(shape) for shape in shapes)
    assert index["metadata"] == {"total_size": total}
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    assert shards == [f"model-{n:05}-of-00005.safetensors" for n in range(1, 6)]
    places = {}
    for shard in shards:
        arrays = safetensors.numpy.load_file(folder / shard)
        assert sum(array.nbytes for array in arrays.values()) <= 9000
        places |= dict.fromkeys(arrays, shard)
    assert index["weight_map"] == places
    assert len(places) == len(shapes)
    # A tensor that is larger than a shard has one of its own.
    folder = folders.write(tmp_path / "y", max_shard_bytes=1)
    assert len(list(folder.glob("*.safetensors"))) == len(shapes)
    at_hand.assert_same(reading.open_folder(folder), folders.random_source())


def test_the_file_is_as_the_format_has_it(tmp_path):
    source = _of_dtype("float32", **{folders.KERNEL: ml_dtypes.bfloat16})
    writing.write_folder(source, folders.UNTIED, tmp_path / "x", log=lambda line: None)
    content = (tmp_path / "x" / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    header = json.loads(content[8 : 8 + length])
    assert header.pop("__metadata__") == {"format": "pt"}
    # Wider dtypes first; the bytes without holes.
    assert list(header)[-1] == folders.TENSOR
    offsets = [entry["data_offsets"] for entry in header.values()]
    assert header[folders.TENSOR] == {
        "dtype": "BF16", "shape": [13, 21], "data_offsets": offsets[-1],
    }  # fmt: skip
    assert [0, *(end for _, end in offsets[:-1])] == [start for start, _ in offsets]
    assert 8 + length + offsets[-1][1] == len(content)


def _of_dtype(dtype, **changes):
    """A random source whose arrays have `dtype`, but those named in `changes`."""
    source = folders.random_source()
    arrays = {n: source.read(n).astype(changes.get(n, dtype)) for n in source.params}
    return at_hand.in_memory(arrays, step=0)


@pytest.mark.parametrize(
    "stored, dtype, written",
    [
        ("float32", None, "float32"),
        ("float32", "bfloat16", "bfloat16"),
        ("bfloat16", None, "bfloat16"),
        ("bfloat16", "float32", "float32"),
        # T5's activations exceed its range.
        ("float16", None, "float32"),
        ("float64", "float32", "float32"),
    ],
)
def test_dtypes(tmp_path, stored, dtype, written):
    source = _of_dtype(stored)
    writing.write_folder(source, folders.UNTIED, tmp_path / "x", dtype=dtype, log=lambda line: None)
    said = _json(tmp_path / "x" / "config.json")
    assert (said["dtype"], said["torch_dtype"]) == (written, written)
    read = reading.open_folder(tmp_path / "x")
    assert {info.dtype for info in read.params.values()} == {written}
    for name in source.params:
        assert read.read(name).tobytes() == source.read(name).astype(written).tobytes()


def test_mixed_dtypes_are_left_and_called_float32(tmp_path):
    source = _of_dtype(ml_dtypes.bfloat16, **{folders.KERNEL: np.float32})
    writing.write_folder(source, folders.UNTIED, tmp_path / "x", log=lambda line: None)
    assert _json(tmp_path / "x" / "config.json")["dtype"] == "float32"
    at_hand.assert_same(reading.open_folder(tmp_path / "x"), source)


def test_the_vocabulary_goes_along(tmp_path, spiece):
    lines = []
    folders.write(tmp_path / "none", log=lines.append)
    given = {"vocabulary": str(spiece), "extra_ids": 97}
    folder = folders.write(tmp_path / "x", WORDY, **given, log=lines.append)
    assert lines == [
        "no tokenizer (give the vocabulary to have one)",
        f"tokenizer of {spiece}, 31 pieces and 97 extra ids",
    ]
    assert (folder / "spiece.model").read_bytes() == spiece.read_bytes()
    assert _json(folder / "tokenizer_config.json") == {
        "tokenizer_class": "T5Tokenizer",
        "extra_ids": 97,
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
        "legacy": True,
    }


def test_a_folders_tokenizer_is_copied(tmp_path, spiece):
    first = folders.write(tmp_path / "1", WORDY, vocabulary=str(spiece), extra_ids=97)
    (first / "tokenizer.json").write_text("{}")
    lines = []
    source = reading.open_folder(first)
    writing.write_folder(source, WORDY, tmp_path / "2", log=lines.append)
    assert lines == [f"tokenizer of {first} (spiece.model, tokenizer.json, tokenizer_config.json)"]
    for path in first.iterdir():
        assert (tmp_path / "2" / path.name).read_bytes() == path.read_bytes()


def test_a_vocabulary_that_is_too_large(tmp_path, spiece):
    message = _error(tmp_path / "x", config=WORDY, vocabulary=str(spiece), extra_ids=98)
    assert message == (
        f"{spiece}: 31 pieces and 98 extra ids, more than the 128 rows of the embedding; give the "
        "vocabulary that the checkpoint was trained with"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_vocabulary_that_is_suspiciously_small(tmp_path, spiece):
    config = dataclasses.replace(WORDY, vocab_size=256)
    with pytest.warns(InputWarning, match="embedding has 256 rows: not the vocabulary"):
        folders.write(tmp_path / "x", config, vocabulary=str(spiece), extra_ids=97)
    folders.write(tmp_path / "y", config, vocabulary=str(spiece), extra_ids=98)


@pytest.mark.parametrize("content", [b"", b"not a model"])
def test_a_vocabulary_that_isnt_one(tmp_path, content):
    (tmp_path / "x.model").write_bytes(content)
    message = _error(tmp_path / "x", vocabulary=str(tmp_path / "x.model"))
    assert message.startswith(f"{tmp_path}/x.model: not a SentencePiece model (")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("here", "HERE/here: is there already; delete it, or give another folder"),
        ("file/x", "HERE/file/x: can't be made (a file is in the way)"),
        (
            "gs://bucket/x",
            "gs://bucket/x: Hugging Face folders are written to local folders; copy it from there",
        ),
    ],
)
def test_places_that_are_refused(tmp_path, place, message):
    (tmp_path / "here").mkdir()
    (tmp_path / "file").write_text("")
    where = place if "://" in place else tmp_path / place
    assert _error(where).replace(str(tmp_path), "HERE") == message


def test_sources_that_are_refused(tmp_path):
    wider = dataclasses.replace(folders.UNTIED, mlp_dim=19)
    assert _error(tmp_path / "x", folders.random_source(wider)) == (
        "memory: arrays in memory, where decoder/layers_0/mlp/wi_0/kernel has shape (13, 19); this "
        "network's has shape (13, 17); set MLP_DIM=19, as a file of gin/models does"
    )
    assert _error(tmp_path / "x", _of_dtype("float64")) == (
        "memory: decoder/decoder_norm/scale: float64 isn't written; give dtype as one of float32, "
        "bfloat16"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("activations", [("elu",), ("gelu", "relu"), ("relu", "linear", "linear")])
def test_an_mlp_that_hugging_face_lacks(tmp_path, activations):
    config: T5Config = dataclasses.replace(folders.UNTIED, mlp_activations=activations)
    assert _error(tmp_path / "x", config=config) == (
        f"MLP_ACTIVATIONS={activations!r}: Hugging Face's T5 has no such layer; one of relu, gelu, "
        "silu, tanh, sigmoid, linear, swish, alone or with 'linear', can be written"
    )


def test_what_fails_midway_leaves_nothing(tmp_path):
    source, asked = folders.random_source(), []

    def fail(tensor, name, index):
        asked.append(name)
        if len(asked) > 5:
            raise InputError("memory: the tensor is damaged")
        return tensor.read(index)

    at_hand.replace_read(source, fail)
    assert _error(tmp_path / "x", source) == "memory: the tensor is damaged"
    assert list(tmp_path.iterdir()) == []
