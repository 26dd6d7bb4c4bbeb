"""Hugging Face folders for tests, written by us, and ways to change one."""

import dataclasses
import json
import pathlib

import ml_dtypes  # noqa: F401 - safetensors' bfloat16 is its
import safetensors.numpy

from poison_t5x.checkpoint_io import architecture
from poison_t5x.checkpoint_io import hugging_face_reading as reading
from poison_t5x.checkpoint_io import hugging_face_writing as writing
from poison_t5x.model.config import T5Config
from tests.checkpoint_io import at_hand

# Dimensions are different primes, so that a swapped axis can't pass.
UNTIED = T5Config(
    vocab_size=53,
    emb_dim=13,
    num_heads=3,
    num_encoder_layers=1,
    num_decoder_layers=2,
    head_dim=7,
    mlp_dim=17,
    mlp_activations=("gelu", "linear"),
    dropout_rate=0.25,
    layer_norm_epsilon=1e-5,
    relpos_num_buckets=20,
    relpos_max_distance=97,
)
TIED = dataclasses.replace(UNTIED, mlp_activations=("relu",), logits_via_embedding=True)
# A parameter, and its tensor's name.
KERNEL = "decoder/layers_1/encoder_decoder_attention/out/kernel"
TENSOR = "decoder.block.1.layer.1.EncDecAttention.o.weight"


def random_source(config: T5Config = UNTIED):
    """A source without an optimiser's state."""
    return at_hand.random_source(config, None, step=0)


def write(directory, config: T5Config = UNTIED, **settings) -> pathlib.Path:
    """Writes a random network, and says nothing."""
    source = random_source(config)
    settings = {"log": lambda line: None, **settings}
    return pathlib.Path(writing.write_folder(source, config, directory, **settings))


def error(folder) -> str:
    """What is said of a folder that can't be read: one line, in which it is FOLDER."""
    message = at_hand.error(lambda: architecture.network_config(reading.open_folder(folder)))
    return message.replace(f"{folder}", "FOLDER")


def set_fields(folder: pathlib.Path, **fields) -> None:
    """Changes fields of a config.json; None takes one out."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def change(folder: pathlib.Path, change_arrays) -> None:
    """Writes a folder's one file anew, after `change_arrays` has changed the arrays by name."""
    path = folder / "model.safetensors"
    arrays = safetensors.numpy.load_file(path)
    change_arrays(arrays)
    safetensors.numpy.save_file(arrays, path, {"format": "pt"})
