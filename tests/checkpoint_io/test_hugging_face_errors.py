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


@pytest.fixture(name="untied")
def _untied(tmp_path):
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


@pytest.mark.parametrize(
    "fields, name",
    [
        ({"dense_act_fn": "gelu"}, "gelu"),
        ({"feed_forward_proj": "gelu", "dense_act_fn": None, "is_gated_act": None}, "gelu"),
        ({"feed_forward_proj": "gated-mish", "dense_act_fn": None}, "mish"),
    ],
)
def test_an_activation_that_flax_lacks(untied, fields, name):
    folders.set_fields(untied, **fields)
    assert folders.error(untied) == (
        f"FOLDER/config.json: the activation {name!r} (feed_forward_proj, dense_act_fn) isn't one "
        "that flax computes in the same way: relu, gelu_new, silu, tanh, sigmoid, linear, "
        "gelu_pytorch_tanh, swish"
    )


@pytest.mark.parametrize("row", [0, 52])
def test_a_tied_head_that_differs(tied, monkeypatch, row):
    monkeypatch.setattr(reading, "_ROWS", 10)

    def differ(arrays):
        arrays["lm_head.weight"] = arrays["shared.weight"].copy()
        arrays["lm_head.weight"][row, 5] += 1.0

    folders.change(tied, differ)
    assert folders.error(tied) == (
        "FOLDER: config.json says that lm_head.weight is tied to shared.weight "
        "(tie_word_embeddings), and the two differ: transformers 4 uses the latter, transformers 5 "
        "the former; where the model is an untied one, such as T5 v1.1 and FLAN-T5, set "
        "tie_word_embeddings and scale_decoder_outputs to false"
    )


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
def test_tensors_that_arent_a_t5s(untied, case):
    change, message = CHANGES[case]
    folders.change(untied, change)
    assert folders.error(untied).startswith(f"FOLDER: {message}")


def test_missing_files(untied):
    (untied / "model.safetensors").unlink()
    assert folders.error(untied) == (
        "FOLDER: a Hugging Face folder without weights: no model.safetensors and no "
        "model.safetensors.index.json; fetch the folder again"
    )
    (untied / "config.json").unlink()
    assert folders.error(untied) == (
        "FOLDER/config.json: can't be read (No such file or directory); give a Hugging Face folder "
        "of T5"
    )


def test_an_mt5_that_could_be_scaled_or_not(tied):
    folders.set_fields(tied, model_type="mt5")
    assert folders.error(tied) == (
        "FOLDER/config.json: an mT5 with tie_word_embeddings true: transformers 4 scales its "
        "decoder's outputs and transformers 5 doesn't; add \"scale_decoder_outputs\": true, or "
        "false, as it was trained"
    )
    folders.set_fields(tied, scale_decoder_outputs=True)
    assert reading.open_folder(tied).network["logits_via_embedding"]


@pytest.mark.parametrize("name", ["bert", "umt5", "longt5"])
def test_another_architecture(untied, name):
    folders.set_fields(untied, model_type=name)
    assert folders.error(untied) == (
        f"FOLDER: a Hugging Face folder of {name!r}, another architecture; those of 't5' and 'mt5' "
        "can be read"
    )


@pytest.mark.parametrize(
    "fields, found",
    [
        ({"vocab_size": 59}, "vocab_size 59, and the folder's tensors have 53"),
        ({"d_model": 19}, "d_model 19, and the folder's tensors have 13"),
        ({"d_kv": 5}, "d_kv 5, and the folder's tensors have 7"),
        ({"d_ff": 19}, "d_ff 19, and the folder's tensors have 17"),
        ({"num_heads": 5}, "num_heads 5, and the folder's tensors have 3"),
        ({"num_layers": 2}, "num_layers 2, and the folder's tensors have 1"),
        ({"num_decoder_layers": 3}, "num_decoder_layers 3, and the folder's tensors have 2"),
        ({"num_decoder_layers": None}, "num_decoder_layers 1, and the folder's tensors have 2"),
        (
            {"relative_attention_num_buckets": 32},
            "relative_attention_num_buckets 32, and the folder's tensors have 20",
        ),
    ],
)
def test_a_config_that_contradicts_the_tensors(untied, fields, found):
    folders.set_fields(untied, **fields)
    assert folders.error(untied) == (
        f"FOLDER/config.json: says {found}; the two aren't of the same model: fetch the folder "
        "again"
    )


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"{", "Input data was truncated"),
        (b'{"d_model": 13}', "Object missing required field `model_type`"),
        (b'{"model_type": "t5", "d_ff": "17"}', "Expected `int | null`, got `str` - at `$.d_ff`"),
    ],
)
def test_a_damaged_config(untied, content, reason):
    (untied / "config.json").write_bytes(content)
    expected = f"FOLDER/config.json: not the config.json of a Hugging Face T5 ({reason})"
    assert folders.error(untied) == expected


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
def test_weights_of_another_library(untied, name, meaning):
    (untied / "model.safetensors").rename(untied / name)
    assert folders.error(untied) == (
        f"FOLDER: a Hugging Face folder with {name} ({meaning}), and neither model.safetensors nor "
        "pytorch_model.bin; save it again with transformers' save_pretrained"
    )


def test_a_missing_shard(sharded):
    shards = sorted(sharded.glob("*.safetensors"))
    count = len(safetensors.numpy.load_file(shards[1]))
    shards[1].unlink()
    assert count > 1 and folders.error(sharded) == (
        f"FOLDER/{shards[1].name}: this shard isn't there, which should hold the tensor "
        f"decoder.block.0.layer.1.EncDecAttention.v.weight and {count - 1} more; fetch the "
        "folder again"
    )


def test_a_shard_in_the_place_of_another(sharded):
    shards = sorted(sharded.glob("*.safetensors"))
    shutil.copyfile(shards[0], shards[1])
    message = folders.error(sharded)
    assert message.startswith(
        f"FOLDER/{shards[1].name}: doesn't hold the tensor decoder.block.0.layer.1."
        "EncDecAttention.v.weight and "
    )
    assert message.endswith(" more, which the index places there; fetch the folder again")


@pytest.mark.parametrize(
    "content, message",
    [
        ("[]", "not the index of shards (Expected `object`, got `array`); fetch the folder again"),
        ('{"weight_map": {}}', "lists no tensors; fetch the folder again"),
        (
            '{"weight_map": {"a.b": "../x"}}',
            "places a.b in '../x', outside the folder; fetch the folder again",
        ),
    ],
)
def test_a_damaged_index(sharded, content, message):
    (sharded / "model.safetensors.index.json").write_text(content)
    assert folders.error(sharded) == f"FOLDER/model.safetensors.index.json: {message}"


def test_a_truncated_tensor(untied):
    path = untied / "model.safetensors"
    size = path.stat().st_size - 5
    os.truncate(path, size)
    assert _damaged(untied) == (
        f"{size} bytes (Error while deserializing header: incomplete metadata, file not fully "
        "covered); fetch it again"
    )


def _damaged(folder) -> str:
    """The error's end, of a safetensors file that can't be read."""
    begin, _, rest = folders.error(folder).partition(" of ")
    assert begin == "FOLDER/model.safetensors: not a safetensors file, or a damaged one"
    return rest


def _file(header: dict | bytes, data=b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 bytes"),
        (b"short", "5 bytes"),
        (b"GIF89a, an image", "header too large"),
        (_file(b"{'name': 1}"), "invalid JSON"),
        (_file({"a.b": {"dtype": "F32", "shape": [2]}}), "data_offsets"),
        (
            _file({"a.b": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 23]}}, b"0" * 23),
            "invalid shape, data type, or offset",
        ),
    ],
)
def test_damaged_safetensors(untied, content, reason):
    (untied / "model.safetensors").write_bytes(content)
    assert reason in _damaged(untied)


def test_a_file_that_is_cut_off_while_it_is_read(untied):
    source, path = reading.open_folder(untied), untied / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-20])
    assert at_hand.error(source.read, folders.KERNEL).startswith(f"{path}: not a safetensors file")
    path.unlink()
    assert at_hand.error(source.read, folders.KERNEL) == (
        f"{path}: can't be read (No such file or directory)"
    )


def test_a_quantised_file(untied):
    entry = {"dtype": "I8", "shape": [2], "data_offsets": [0, 2]}
    (untied / "model.safetensors").write_bytes(_file({"a.b": entry}, b"00"))
    assert folders.error(untied) == (
        "FOLDER/model.safetensors: the tensor a.b is stored as I8; float64, float32, float16, "
        "bfloat16 can be read: save the model again, not quantised"
    )


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_git_lfs_pointer(untied, name):
    (untied / "model.safetensors").unlink()
    (untied / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert folders.error(untied) == (
        f"FOLDER/{name}: a Git LFS pointer in the file's place; run `git lfs pull` in its folder"
    )


def test_torchs_files_without_torch(untied, monkeypatch):
    (untied / "model.safetensors").unlink()
    (untied / "pytorch_model.bin").write_bytes(b"PK\x03\x04")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert folders.error(untied) == (
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
