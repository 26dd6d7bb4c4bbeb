"""Writes a Hugging Face T5 folder: config.json, safetensors and the tokenizer, tensor by tensor."""

import pathlib
from collections.abc import Callable, Mapping

import numpy as np

from poison_t5x.checkpoint_io import architecture, storage
from poison_t5x.checkpoint_io.hugging_face import (
    config_json,
    names,
    safetensors_file,
    weights,
)
from poison_t5x.checkpoint_io.hugging_face import tokenizer as tokenizer_files
from poison_t5x.checkpoint_io.source import Source, TensorInfo
from poison_t5x.core import artifacts, errors
from poison_t5x.model import config as model_config

# As public checkpoints have it: a broken download costs one shard, and many load side by side.
SHARD_BYTES = 5 * 10**9


def write_folder(
    source: Source,
    config: model_config.T5Config,
    directory: str | pathlib.Path,
    *,
    dtype: str | None = None,
    vocabulary: str | None = None,
    extra_ids: int = 100,
    max_shard_bytes: int = SHARD_BYTES,
    say: Callable[[str], None] = print,
) -> str:
    """Writes a folder that `T5ForConditionalGeneration.from_pretrained` takes.

    Takes one tensor's memory. The folder has a temporary name until it is whole.

    Args:
      source: the parameters; its optimiser's state has no place in such a folder.
      config: the network.
      directory: where to; must not be there.
      dtype: 'float32' or 'bfloat16'; None leaves tensors as they are stored, but for float16, whose
        range T5's activations exceed: those become float32.
      vocabulary: a SentencePiece model to put in; None copies the tokenizer of a source that is
        such a folder itself.
      extra_ids: sentinel ids after the vocabulary's own.
      max_shard_bytes: of tensors in a file; above it, several are written.
      say: takes a line about the tokenizer.

    Returns:
      The folder's path.

    Raises:
      InputError: the place is taken or can't be written to, the source doesn't fit the network, or
        the vocabulary not the embedding.
    """
    if storage.is_bucket(str(directory)):
        raise errors.InputError(
            f"{directory}: Hugging Face folders are written to local folders; copy it from there"
        )
    architecture.check_fits(source, config)
    description = config_json.describe(config)
    tensors = _tensors(source, dtype)
    stored = {info.dtype for info in tensors.values()}
    # `torch_dtype` is what it was called before transformers 4.56.
    description["dtype"] = description["torch_dtype"] = (
        "float32" if "float32" in stored else stored.pop()
    )
    final = storage.absolute(str(directory))
    with storage.new_folder(final) as partial:
        place = pathlib.Path(partial)
        place.mkdir()
        if vocabulary is not None:
            tokenizer = tokenizer_files.write(vocabulary, extra_ids, config.vocab_size, place)
        else:
            tokenizer = tokenizer_files.copy(pathlib.Path(source.path), place)
        _write_tensors(source, tensors, place, max_shard_bytes)
        _write_json(place / "generation_config.json", config_json.GENERATION)
        _write_json(place / config_json.FILE, description)
    say(tokenizer)
    return final


def _write_json(path: pathlib.Path, value) -> None:
    artifacts.write_atomically(path, artifacts.dump_json(value))


def _tensors(source: Source, dtype: str | None) -> dict[str, TensorInfo]:
    """Hugging Face's name -> shape and dtype, of all tensors, in the order of their names."""
    found = {}
    for path, info in source.params.items():
        name = names.tensor(path)
        if name is None:
            raise errors.InputError(f"{source.path}: {path} has no place in Hugging Face's T5")
        shape = info.shape[::-1] if names.is_transposed(path) else info.shape
        found[name] = TensorInfo(shape, _stored(source, path, info.dtype, dtype))
    return dict(sorted(found.items()))


def _stored(source: Source, path: str, stored: str, dtype: str | None) -> str:
    if dtype is None and stored == "float16":
        return "float32"
    written = dtype or stored
    if written not in model_config.DTYPES:
        raise errors.InputError(
            f"{source.path}: {path}: {written} isn't written; give dtype as one of "
            f"{', '.join(model_config.DTYPES)}"
        )
    return written


def _write_tensors(
    source: Source, tensors: Mapping[str, TensorInfo], directory: pathlib.Path, most: int
) -> None:
    shards = _shards(tensors, most)
    if len(shards) == 1:
        _write_file(source, tensors, directory / weights.SAFETENSORS)
        return
    stem, suffix = weights.SAFETENSORS.split(".")
    places = {}
    for number, shard in enumerate(shards, start=1):
        file = f"{stem}-{number:05}-of-{len(shards):05}.{suffix}"
        _write_file(source, shard, directory / file)
        places |= dict.fromkeys(shard, file)
    total = sum(info.nbytes for info in tensors.values())
    _write_json(
        directory / f"{weights.SAFETENSORS}{weights.INDEX_SUFFIX}",
        {"metadata": {"total_size": total}, "weight_map": places},
    )


def _shards(tensors: Mapping[str, TensorInfo], most: int) -> list[dict[str, TensorInfo]]:
    """Runs of tensors of at most `most` bytes, or of a single larger one."""
    shards: list[dict[str, TensorInfo]] = []
    size = 0
    for name, info in tensors.items():
        if not shards or size + info.nbytes > most:
            shards.append({})
            size = 0
        shards[-1][name] = info
        size += info.nbytes
    return shards


def _write_file(source: Source, tensors: Mapping[str, TensorInfo], path: pathlib.Path) -> None:
    with safetensors_file.Writer(path, tensors) as writer:
        for name in tensors:
            writer.write(name, _read(source, name))


def _read(source: Source, name: str) -> np.ndarray:
    parameter = names.parameter(name)
    array = source.read(parameter)
    return array.T if names.is_transposed(parameter) else array
