"""Reading Hugging Face's T5 folders: each tensor under its path, whatever the folder's form."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poison_t5x.checkpoint_io import architecture
from poison_t5x.checkpoint_io import hugging_face_config as config_json
from poison_t5x.checkpoint_io import hugging_face_reading as reading
from tests.checkpoint_io import at_hand, folders

CONFIGS = {
    "v1_0": folders.TIED,
    "v1_1": folders.UNTIED,
    "v1_0_untied": dataclasses.replace(folders.TIED, logits_via_embedding=False),
    "v1_1_tied": dataclasses.replace(folders.UNTIED, logits_via_embedding=True),
}


@pytest.fixture(name="untied")
def _untied(tmp_path):
    """A folder of one's own: v1.1, untied."""
    return folders.write(tmp_path / "untied")


@pytest.fixture(name="tied")
def _tied(tmp_path):
    """A folder of one's own: v1.0, tied."""
    return folders.write(tmp_path / "tied", folders.TIED)


@pytest.mark.parametrize("name, path", [
    ("shared.weight", "token_embedder/embedding"),
    ("lm_head.weight", "decoder/logits_dense/kernel"),
    ("encoder.final_layer_norm.weight", "encoder/encoder_norm/scale"),
    ("encoder.block.0.layer.0.SelfAttention.q.weight", "encoder/layers_0/attention/query/kernel"),
    ("encoder.block.10.layer.1.layer_norm.weight", "encoder/layers_10/pre_mlp_layer_norm/scale"),
    ("decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
     "decoder/relpos_bias/rel_embedding"),
    ("decoder.block.2.layer.0.SelfAttention.k.weight",
     "decoder/layers_2/self_attention/key/kernel"),
    ("decoder.block.2.layer.1.layer_norm.weight",
     "decoder/layers_2/pre_cross_attention_layer_norm/scale"),
    (folders.TENSOR, folders.KERNEL),
    ("decoder.block.1.layer.2.DenseReluDense.wi_0.weight", "decoder/layers_1/mlp/wi_0/kernel"),
])  # fmt: skip
def test_names(name, path):
    assert config_json.parameter(name) == path
    assert config_json.tensor(path) == name


@pytest.mark.parametrize("config", CONFIGS)
def test_every_parameter_has_a_name_of_its_own(config):
    paths = architecture.shapes(CONFIGS[config])
    tensors = [config_json.tensor(path) for path in paths]
    assert None not in tensors and len(set(tensors)) == len(paths)
    assert [config_json.parameter(name) for name in tensors] == list(paths)


@pytest.mark.parametrize(
    "name",
    [
        "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight",
        "encoder.block.01.layer.0.SelfAttention.q.weight",
        "encoder.block.0.layer.1.EncDecAttention.q.weight",
        "encoder.block.0.layer.0.SelfAttention.q.bias",
        "transformer.shared.weight",
    ],
)
def test_other_names_are_none_of_t5s(name):
    assert config_json.parameter(name) is None
    assert config_json.tensor(name) is None


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("max_shard_bytes", [10**9, 3000])
def test_written_is_read_bit_for_bit(tmp_path, config, max_shard_bytes):
    folder = folders.write(tmp_path / "x", CONFIGS[config], max_shard_bytes=max_shard_bytes)
    assert len(list(folder.glob("*.safetensors"))) > 1 or max_shard_bytes == 10**9
    source = reading.open_folder(folder)
    assert architecture.network_config(source) == CONFIGS[config]
    assert (source.path, source.layout) == (str(folder), "a Hugging Face folder")
    at_hand.assert_same(source, folders.random_source(CONFIGS[config]))


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_a_part_is_the_whole_sliced(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "parts"
    if not folder.exists():
        folders.write(folder)
    source = reading.open_folder(folder)
    name = data.draw(st.sampled_from(sorted(source.params)))
    index = data.draw(at_hand.slices(source.params[name].shape))
    np.testing.assert_array_equal(source.read(name, index), source.read(name)[index])


@pytest.mark.parametrize(
    "fields, activations",
    [
        ({}, ("gelu", "linear")),
        ({"dense_act_fn": None, "is_gated_act": None}, ("gelu", "linear")),
        ({"feed_forward_proj": "gated-silu", "dense_act_fn": "silu"}, ("silu", "linear")),
        ({"feed_forward_proj": "gated-relu", "dense_act_fn": None}, ("relu", "linear")),
        ({"dense_act_fn": "swish"}, ("silu", "linear")),
    ],
)
def test_activations(untied, fields, activations):
    folders.set_fields(untied, **fields)
    config = architecture.network_config(reading.open_folder(untied))
    assert config.mlp_activations == activations


V5 = {"tie_word_embeddings": True, "transformers_version": "5.24.0"}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        V5 | {"scale_decoder_outputs": False},
        V5 | {"model_type": "mt5"},
        {"model_type": "mt5", "tie_word_embeddings": None, "transformers_version": "4.57.6"},
    ],
)
def test_an_untied_head(untied, fields):
    folders.set_fields(untied, **fields)
    at_hand.assert_same(reading.open_folder(untied), folders.random_source())


@pytest.mark.parametrize("fields", [{}, {"tie_word_embeddings": None}, V5])
def test_a_tied_head(tied, fields):
    folders.set_fields(tied, **fields)
    source = reading.open_folder(tied)
    assert source.network["logits_via_embedding"]
    at_hand.assert_same(source, folders.random_source(folders.TIED))


@pytest.mark.parametrize(
    "fields",
    [
        V5 | {"scale_decoder_outputs": False},
        # Only transformers 5 writes it, whether or not a version is said.
        {"tie_word_embeddings": True, "scale_decoder_outputs": False},
        V5 | {"model_type": "mt5"},
    ],
)
def test_a_head_that_is_tied_but_not_scaled_is_the_embedding(tied, fields):
    folders.set_fields(tied, **fields)
    source = reading.open_folder(tied)
    assert not architecture.network_config(source).logits_via_embedding
    embedding = folders.random_source(folders.TIED).read(architecture.EMBEDDING)
    np.testing.assert_array_equal(source.read(architecture.LOGITS), embedding.T)
    np.testing.assert_array_equal(source.read(architecture.EMBEDDING), embedding)


def test_copies_of_a_tied_embedding_are_passed_over(tied, monkeypatch):
    monkeypatch.setattr(reading, "_ROWS", 10)

    def copy(arrays):
        for name in (*config_json.EMBEDDING_COPIES, "lm_head.weight"):
            arrays[name] = arrays["shared.weight"]
        arrays[config_json.UNUSED] = np.ones((20, 3), np.float32)

    folders.change(tied, copy)
    at_hand.assert_same(reading.open_folder(tied), folders.random_source(folders.TIED))
    folders.change(tied, lambda arrays: arrays.pop("shared.weight"))
    at_hand.assert_same(reading.open_folder(tied), folders.random_source(folders.TIED))
