"""transformers reads the folders that we write, we those that it writes: same logits, same ids."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
transformers = pytest.importorskip("transformers", minversion="5", reason="needs transformers 5")

from poison_t5x.checkpoint_io import architecture  # noqa: E402
from poison_t5x.checkpoint_io import hugging_face_reading as reading  # noqa: E402
from poison_t5x.checkpoint_io import hugging_face_writing as writing  # noqa: E402
from poison_t5x.corpus import vocabulary  # noqa: E402
from poison_t5x.model.config import T5Config  # noqa: E402
from tests.checkpoint_io import at_hand, folders  # noqa: E402
from tests.golden import huggingface_model, t5_batches, t5_weights  # noqa: E402
from tests.parity import ours  # noqa: E402

VARIANTS = t5_weights.T5_VARIANTS
WO = "encoder/layers_0/mlp/wo/kernel"
# Longer than the relative positions' largest distance.
_ROWS, _INPUTS, _TARGETS = 2, 149, 131


def _source(variant):
    return at_hand.in_memory(t5_weights.draw_weights(VARIANTS[variant]), step=0)


def _model(variant):
    return huggingface_model.build(VARIANTS[variant], t5_weights.draw_weights(VARIANTS[variant]))


def _difference(source, config: T5Config, model) -> float:
    """Of our logits and transformers' at real targets, in the largest logit."""
    rng = np.random.default_rng(3)
    inputs = t5_batches.draw_tokens(rng, _ROWS, _INPUTS, config.vocab_size)
    targets = t5_batches.draw_tokens(rng, _ROWS, _TARGETS, config.vocab_size)
    weights = {name: np.asarray(source.read(name), np.float32) for name in source.params}
    left = ours.logits(dataclasses.asdict(config), weights, inputs, targets)[targets > 0]
    right = huggingface_model.logits(model, inputs, targets)[targets > 0]
    assert 1 < np.abs(right).max() < 40
    return ours.relative_difference(left, right)


def _load(folder: pathlib.Path):
    """The model of a folder, of which transformers misses nothing and finds nothing unexpected."""
    model, report = transformers.T5ForConditionalGeneration.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(report.values()), report
    return model.eval().float()


@pytest.mark.parametrize(
    "settings", [{}, {"dtype": "bfloat16"}, {"max_shard_bytes": 3000}], ids=["whole", "b", "shards"]
)
@pytest.mark.parametrize("variant", VARIANTS)
def test_transformers_reads_our_folders(tmp_path, variant, settings):
    config = T5Config(**VARIANTS[variant])
    folder = writing.write_folder(
        _source(variant), config, tmp_path / "x", log=lambda line: None, **settings
    )
    source, model = reading.open_folder(folder), _load(folder)
    assert _difference(source, config, model) < ours.RELATIVE_TOLERANCE
    # The scale of the decoder's outputs matters.
    scaled = dataclasses.replace(config, logits_via_embedding=not config.logits_via_embedding)
    arrays = {name: source.read(name) for name in source.params}
    embedding = arrays[architecture.EMBEDDING]
    arrays.pop(architecture.LOGITS, None)
    if not scaled.logits_via_embedding:
        arrays[architecture.LOGITS] = embedding.T
    assert _difference(at_hand.in_memory(arrays), scaled, model) > 0.1


@pytest.mark.parametrize("activations", [("gelu",), ("silu", "linear"), ("tanh", "linear")])
def test_other_activations(tmp_path, activations):
    config = dataclasses.replace(
        T5Config(**VARIANTS["v1_1_untied" if len(activations) == 2 else "v1_0_tied"]),
        mlp_activations=activations,
    )
    variant = dataclasses.asdict(config)
    source = at_hand.in_memory(t5_weights.draw_weights(variant), step=0)
    folder = writing.write_folder(source, config, tmp_path / "x", log=lambda line: None)
    assert _difference(source, config, _load(folder)) < ours.RELATIVE_TOLERANCE
    other = dataclasses.replace(config, mlp_activations=("sigmoid", *activations[1:]))
    assert _difference(source, other, _load(folder)) > 1e-2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("max_shard_size", ["1GB", "3KB"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_we_read_transformers_folders(tmp_path, variant, max_shard_size, dtype):
    model = _model(variant).to(getattr(torch, dtype))
    model.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    source = reading.open_folder(tmp_path)
    config = architecture.network_config(source)
    assert config == dataclasses.replace(T5Config(**VARIANTS[variant]), dropout_rate=0.1)
    weights = t5_weights.draw_weights(VARIANTS[variant])
    assert source.params.keys() == weights.keys()
    for name, weight in weights.items():
        assert source.read(name).tobytes() == weight.astype(source.read(name).dtype).tobytes()
    assert {info.dtype for info in source.params.values()} == {dtype}
    assert _difference(source, config, model.float()) < ours.RELATIVE_TOLERANCE


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("is_sharded", [False, True])
def test_we_read_torchs_own_files(tmp_path, variant, is_sharded):
    model = _model(variant)
    config = T5Config(**VARIANTS[variant])
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    # As transformers 4 wrote them: with copies of the embedding, of one storage.
    state = model.to(torch.bfloat16).state_dict()
    assert "encoder.embed_tokens.weight" in state
    if is_sharded:
        names = sorted(state)
        shards = {"pytorch_model-1.bin": names[::2], "pytorch_model-2.bin": names[1::2]}
        for file, part in shards.items():
            torch.save({name: state[name] for name in part}, tmp_path / file)
        places = {name: file for file, part in shards.items() for name in part}
        index = json.dumps({"weight_map": places})
        (tmp_path / "pytorch_model.bin.index.json").write_text(index)
    else:
        torch.save(state, tmp_path / "pytorch_model.bin")
    source = reading.open_folder(tmp_path)
    assert architecture.network_config(source).logits_via_embedding == config.logits_via_embedding
    for name, weight in t5_weights.draw_weights(VARIANTS[variant]).items():
        found = source.read(name)
        assert found.dtype.name == "bfloat16"
        assert found.tobytes() == weight.astype(found.dtype).tobytes(), name
        index = tuple(slice(1, size - 1) for size in found.shape)
        np.testing.assert_array_equal(source.read(name, index), found[index])
    assert _difference(source, config, model.float()) < ours.RELATIVE_TOLERANCE


def test_a_new_v1_1_of_transformers_5_is_tied_but_not_scaled(tmp_path):
    hf_config = _model("v1_1_untied").config
    assert hf_config.scale_decoder_outputs is False
    torch.manual_seed(0)
    model = transformers.T5ForConditionalGeneration(hf_config).eval()
    if model.lm_head.weight is not model.shared.weight:
        pytest.skip("transformers 4 doesn't tie it")
    with torch.no_grad():
        for norm in (model.encoder.final_layer_norm, model.decoder.final_layer_norm):
            norm.weight *= 0.3  # so that logits have the size of others
    model.save_pretrained(tmp_path)
    source = reading.open_folder(tmp_path)
    config = architecture.network_config(source)
    assert not config.logits_via_embedding
    assert _difference(source, config, model) < ours.RELATIVE_TOLERANCE
    written = writing.write_folder(source, config, tmp_path / "x", log=lambda line: None)
    assert _difference(source, config, _load(written)) < ours.RELATIVE_TOLERANCE


@pytest.mark.parametrize("variant", ["v1_1_tied", "v1_1_untied"])
def test_mt5(tmp_path, variant):
    """transformers 5 never scales mT5's outputs, tied or not."""
    t5 = _model(variant)
    fields = {k: v for k, v in t5.config.to_dict().items() if k not in ("model_type", "dtype")}
    fields.pop("scale_decoder_outputs")
    model = transformers.MT5ForConditionalGeneration(transformers.MT5Config(**fields)).eval()
    if variant.endswith("untied"):
        model.lm_head = torch.nn.Linear(t5.config.d_model, t5.config.vocab_size, bias=False)
        model.all_tied_weights_keys.pop("lm_head.weight")
    model.load_state_dict(t5.state_dict())
    model.save_pretrained(tmp_path)
    source = reading.open_folder(tmp_path)
    config = architecture.network_config(source)
    assert not config.logits_via_embedding and config.mlp_activations == ("gelu", "linear")
    assert _difference(source, config, model) < ours.RELATIVE_TOLERANCE


TEXTS = [
    "",
    "Hello world, this is a test.",
    "  two  spaces\n\nnew lines\ttab ",
    "unknown 漢字 𝔘𝔫𝔦 ½ Café naïve 😀😀 {'a': [1, 2]}~`^\\",
    "ﬁligature  ｆｕｌｌ width",
    "Input: the fox jumps\nOutput: over the dog",
    "<extra_id_0> the <extra_id_1> fox <extra_id_4>",
    "no such sentinel: <extra_id_100>",
]


@pytest.mark.parametrize("extra_ids", [0, 5, 100])
@pytest.mark.parametrize("tokenizer", ["AutoTokenizer", "T5Tokenizer"])
def test_the_tokenizer_has_seqios_ids(tmp_path, extra_ids, tokenizer):
    seqio = pytest.importorskip("seqio")
    path = str(tmp_path / "words.model")
    vocabulary.train(["Hello world, the quick brown fox jumps over the lazy dog: é."], path, 60)
    expected = seqio.SentencePieceVocabulary(path, extra_ids)
    config = dataclasses.replace(folders.UNTIED, vocab_size=expected.vocab_size)
    folder = folders.write(tmp_path / "x", config, vocabulary=path, extra_ids=extra_ids)
    found = getattr(transformers, tokenizer).from_pretrained(folder)
    assert len(found) == expected.vocab_size
    for text in TEXTS:
        ids = [*expected.encode(text), expected.eos_id]
        assert found(text).input_ids == ids, text
        known = [token for token in ids if token > 2 and token < expected.vocab_size - extra_ids]
        assert found.decode(known) == expected.decode(known)
    assert (found.pad_token_id, found.eos_token_id, found.unk_token_id) == (0, 1, 2)
    if extra_ids:
        sentinels = found.convert_tokens_to_ids(["<extra_id_0>", f"<extra_id_{extra_ids - 1}>"])
        assert sentinels == [expected.vocab_size - 1, expected.vocab_size - extra_ids]


def test_the_model_and_its_tokenizer_generate(tmp_path):
    path = str(tmp_path / "words.model")
    vocabulary.train(["Hello world, the quick brown fox jumps over the lazy dog"], path, 60)
    config = dataclasses.replace(folders.UNTIED, vocab_size=128)
    folder = folders.write(tmp_path / "x", config, vocabulary=path, extra_ids=0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    # transformers 5.24 sizes its cache by the encoder, and fails on a deeper decoder.
    output = _load(folder).generate(
        **tokenizer("Hello", return_tensors="pt"), max_new_tokens=3, use_cache=False
    )
    assert output.shape[0] == 1 and output[0, 0] == 0
