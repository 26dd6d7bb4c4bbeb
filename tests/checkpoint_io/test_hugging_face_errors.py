"""Hugging Face folders that can't be read: one line that names the thing and what to do."""

import json
import os
import shutil
import sys

import numpy as np
import pytest
import safetensors.numpy

from poison_t5x.checkpoint_io import hugging_face_reading as reading
from tests.checkpoint_io import at_hand, folders

AGAIN = "fetch the folder again"


@pytest.fixture(name="folder")
def _folder(tmp_path):
    """A folder of one's own: v1.1, untied."""
    return folders.write(tmp_path / "untied")


@pytest.fixture(name="tied")
def _tied(tmp_path):
    """A folder of one's own: v1.0, tied."""
    return folders.write(tmp_path / "tied", folders.TIED)


@pytest.fixture(name="sharded")
def _sharded(tmp_path):
    """A folder of one's own in several files."""
    return folders.write(tmp_path / "sharded", max_shard_bytes=9000)


def _file(header: dict | bytes, data=b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


FLAX = (
    "isn't one that flax computes in the same way: relu, gelu_new, silu, tanh, sigmoid, linear, "
    "gelu_pytorch_tanh, swish"
)
# Fields of a config.json -> what is said of it.
FIELDS = [
    ({"dense_act_fn": "gelu"}, f"the activation 'gelu' (feed_forward_proj, dense_act_fn) {FLAX}"),
    (
        {"feed_forward_proj": "gelu", "dense_act_fn": None, "is_gated_act": None},
        f"the activation 'gelu' (feed_forward_proj, dense_act_fn) {FLAX}",
    ),
    (
        {"feed_forward_proj": "gated-mish", "dense_act_fn": None},
        f"the activation 'mish' (feed_forward_proj, dense_act_fn) {FLAX}",
    ),
    *(
        (
            {name: stated},
            f"says {name} {stated or 1}, and the folder's tensors have {actual}; the two aren't "
            f"of the same model: {AGAIN}",
        )
        for name, stated, actual in [
            ("vocab_size", 59, 53),
            ("d_model", 19, 13),
            ("d_kv", 5, 7),
            ("d_ff", 19, 17),
            ("num_heads", 5, 3),
            ("num_layers", 2, 1),
            ("num_decoder_layers", 3, 2),
            ("num_decoder_layers", None, 2),  # then it is num_layers
            ("relative_attention_num_buckets", 32, 20),
        ]
    ),
]


@pytest.mark.parametrize(("fields", "message"), FIELDS)
def test_a_config_that_contradicts_the_tensors_or_flax(folder, fields, message):
    folders.set_fields(folder, **fields)
    assert folders.error(folder) == f"FOLDER/config.json: {message}"


@pytest.mark.parametrize("name", ["bert", "umt5", "longt5"])
def test_another_architecture(folder, name):
    folders.set_fields(folder, model_type=name)
    assert folders.error(folder) == (
        f"FOLDER: a Hugging Face folder of {name!r}, another architecture; those of 't5' and 'mt5' "
        "can be read"
    )


TIE = "config.json says that lm_head.weight is tied to shared.weight (tie_word_embeddings), and the"


@pytest.mark.parametrize("row", [0, 52])
def test_a_tied_head_that_differs(tied, monkeypatch, row):
    monkeypatch.setattr(reading, "_ROWS", 10)

    def differ(arrays):
        arrays["lm_head.weight"] = arrays["shared.weight"].copy()
        arrays["lm_head.weight"][row, 5] += 1.0

    folders.change(tied, differ)
    message = folders.error(tied)
    assert message.startswith(f"FOLDER: {TIE} two differ: transformers 4 uses the latter")
    assert message.endswith("set tie_word_embeddings and scale_decoder_outputs to false")


def test_an_mt5_that_could_be_scaled_or_not(tied):
    folders.set_fields(tied, model_type="mt5")
    assert folders.error(tied) == (
        "FOLDER/config.json: an mT5 with tie_word_embeddings true: transformers 4 scales its "
        "decoder's outputs and transformers 5 doesn't; add \"scale_decoder_outputs\": true, or "
        "false, as it was trained"
    )
    folders.set_fields(tied, scale_decoder_outputs=True)
    assert reading.open_folder(tied).network["logits_via_embedding"]


CHANGES = {
    "a copy of the embedding that differs": (
        lambda arrays: arrays.update({"decoder.embed_tokens.weight": arrays["shared.weight"] * 2}),
        "the tensor decoder.embed_tokens.weight isn't the same as shared.weight: another "
        "architecture, since T5 has one embedding",
    ),
    "an untied model without its head": (
        lambda arrays: arrays.pop("lm_head.weight"),
        "the tensor lm_head.weight isn't there, though config.json says tie_word_embeddings false; "
        "a model with its language-model head is needed",
    ),
    "a missing tensor": (
        lambda arrays: arrays.pop(folders.TENSOR),
        f"a Hugging Face folder, where {folders.KERNEL} has no shape (it isn't there); this "
        "network's has shape (21, 13); ",
    ),
    "a tensor of another shape": (
        lambda arrays: arrays.update({folders.TENSOR: np.zeros((13, 19), np.float32)}),
        f"a Hugging Face folder, where {folders.KERNEL} has shape (19, 13); this network's has "
        "shape (21, 13); ",
    ),
    "a tensor that is none of T5's": (
        lambda arrays: arrays.update({"classifier.weight": np.zeros(2, np.float32)}),
        "the tensor classifier.weight is none of T5's; a T5 encoder-decoder with its "
        "language-model head is needed (T5ForConditionalGeneration)",
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_tensors_that_arent_a_t5s(folder, case):
    change, message = CHANGES[case]
    folders.change(folder, change)
    assert folders.error(folder).startswith(f"FOLDER: {message}")


@pytest.mark.parametrize(
    "name, meaning",
    [
        ("tf_model.h5", "TensorFlow's weights"),
        ("tf_model-00001-of-00002.h5", "TensorFlow's weights"),
        ("flax_model.msgpack", "Flax's weights"),
        ("rust_model.ot", "Rust's weights"),
        ("t5-small.gguf", "GGUF's weights"),
        ("adapter_model.safetensors", "an adapter; merge it into its model"),
    ],
)
def test_weights_of_another_library(folder, name, meaning):
    (folder / "model.safetensors").rename(folder / name)
    assert folders.error(folder) == (
        f"FOLDER: a Hugging Face folder with {name} ({meaning}), and neither model.safetensors nor "
        "pytorch_model.bin; save it again with transformers' save_pretrained"
    )


def test_missing_files(folder):
    (folder / "model.safetensors").unlink()
    assert folders.error(folder) == (
        "FOLDER: a Hugging Face folder without weights: no model.safetensors and no "
        f"model.safetensors.index.json; {AGAIN}"
    )
    (folder / "config.json").unlink()
    assert folders.error(folder) == (
        "FOLDER/config.json: can't be read (No such file or directory); give a Hugging Face folder "
        "of T5"
    )


NO_T5 = "give a Hugging Face folder of T5"
NO_FILE = "not a safetensors file, or a damaged one"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
POINTER = "a Git LFS pointer in the file's place; run `git lfs pull` in its folder"


def _entry(dtype: str, end: int) -> bytes:
    return _file({"a.b": {"dtype": dtype, "shape": [2], "data_offsets": [0, end]}}, b"0" * end)


# (file, its content, the beginning of what is said of it, and more in it)
DAMAGED = [
    ("config.json", b"{", "can't be read (", NO_T5),
    ("config.json", b'{"d_model": 13}', "$: object missing required field `model_type`", NO_T5),
    (
        "config.json",
        b'{"model_type": "t5", "d_ff": "17"}',
        "$.d_ff: expected `int | null`, got `str`",
        NO_T5,
    ),
    ("model.safetensors", b"", NO_FILE, "0 bytes"),
    ("model.safetensors", b"short", NO_FILE, "5 bytes"),
    ("model.safetensors", b"GIF89a, an image", NO_FILE, "header too large"),
    ("model.safetensors", _file(b"{'name': 1}"), NO_FILE, "invalid JSON"),
    ("model.safetensors", _file({"a": {"dtype": "F32", "shape": [2]}}), NO_FILE, "data_offsets"),
    ("model.safetensors", _entry("F32", 7), NO_FILE, "invalid shape, data type, or offset"),
    (
        "model.safetensors",
        _entry("I8", 2),
        "the tensor a.b is stored as I8; float64, float32, float16, bfloat16 can be read",
        ": save the model again, not quantised",
    ),
    ("model.safetensors", LFS, POINTER, ""),
    ("pytorch_model.bin", LFS, POINTER, ""),
]


@pytest.mark.parametrize(("name", "content", "begin", "words"), DAMAGED)
def test_damaged_files(folder, name, content, begin, words):
    if name == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content)
    message = folders.error(folder)
    assert message.startswith(f"FOLDER/{name}: {begin}") and words in message


def test_a_truncated_tensor(folder):
    path = folder / "model.safetensors"
    source, size = reading.open_folder(folder), path.stat().st_size - 5
    os.truncate(path, size)
    message = (
        f"{NO_FILE} of {size} bytes (Error while deserializing header: incomplete metadata, file "
        "not fully covered); fetch it again"
    )
    assert folders.error(folder) == f"FOLDER/model.safetensors: {message}"
    # Cut off, or gone, while it is read.
    assert at_hand.error(source.read, folders.KERNEL) == f"{path}: {message}"
    path.unlink()
    assert at_hand.error(source.read, folders.KERNEL) == (
        f"{path}: can't be read (No such file or directory)"
    )


NAME = "decoder.block.0.layer.1.EncDecAttention.v.weight"


def test_a_missing_shard_and_one_in_the_place_of_another(sharded):
    shards = sorted(sharded.glob("*.safetensors"))
    count = len(safetensors.numpy.load_file(shards[1]))
    shards[1].unlink()
    assert count > 1 and folders.error(sharded) == (
        f"FOLDER/{shards[1].name}: this shard isn't there, which should hold the tensor {NAME} and "
        f"{count - 1} more; {AGAIN}"
    )
    shutil.copyfile(shards[0], shards[1])
    message = folders.error(sharded)
    assert message.startswith(f"FOLDER/{shards[1].name}: doesn't hold the tensor {NAME} and ")
    assert message.endswith(f" more, which the index places there; {AGAIN}")


@pytest.mark.parametrize(
    "content, message",
    [
        ("[]", "$: expected `object`, got `array`"),
        ('{"weight_map": {}}', "lists no tensors"),
        ('{"weight_map": {"a.b": "../x"}}', "places a.b in '../x', outside the folder"),
    ],
)
def test_a_damaged_index(sharded, content, message):
    (sharded / "model.safetensors.index.json").write_text(content)
    assert folders.error(sharded) == f"FOLDER/model.safetensors.index.json: {message}; {AGAIN}"


def test_torchs_files_without_torch(folder, monkeypatch):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"PK\x03\x04")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert folders.error(folder) == (
        "FOLDER/pytorch_model.bin: weights in torch's own format, and torch isn't installed; "
        "install it, or save the folder again as safetensors (save_pretrained does)"
    )


@pytest.mark.parametrize("path", ["hf://", "hf://a/b/c", "hf://a b", "hf://a/b@"])
def test_a_hub_path_that_isnt_one(path):
    message = at_hand.error(reading.open_hub, path)
    assert message == f"{path}: expected hf://OWNER/NAME or hf://OWNER/NAME@REVISION"


def test_the_hub_without_its_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert at_hand.error(reading.open_hub, "hf://google/flan-t5-small") == (
        "hf://google/flan-t5-small: needs huggingface_hub; pip install 'poison-t5x[hf]', or give a "
        "folder's path"
    )
