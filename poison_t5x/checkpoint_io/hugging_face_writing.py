"""Writes a Hugging Face T5 folder: config.json, safetensors and the tokenizer, tensor by tensor."""

import json
import pathlib
import shutil
import warnings
from collections.abc import Callable, Mapping

import numpy as np

from poison_t5x.checkpoint_io import architecture, storage
from poison_t5x.checkpoint_io import hugging_face_config as config_json
from poison_t5x.checkpoint_io.hugging_face_reading import DTYPES, INDEX_SUFFIX, SAFETENSORS
from poison_t5x.checkpoint_io.source import Source, Tensor
from poison_t5x.core import artifacts, errors, settings
from poison_t5x.corpus import vocabulary as vocabularies
from poison_t5x.model import config as model_config

# As public checkpoints have it: a broken download costs one shard, and many load side by side.
SHARD_BYTES = 5 * 10**9
_PADDING = 128  # T5X rounds the embedding's rows up to a multiple of it
_TOKENIZER = "tokenizer_config.json"
_TOKENIZER_FILES = (
    vocabularies.FILE,
    "tokenizer.json",
    _TOKENIZER,
    "special_tokens_map.json",
    "added_tokens.json",
)


def write_folder(
    source: Source,
    config: model_config.T5Config,
    directory: str | pathlib.Path,
    *,
    dtype: str | None = None,
    vocabulary: str | None = None,
    extra_ids: int = 100,
    max_shard_bytes: int = SHARD_BYTES,
    log: Callable[[str], None] = print,
) -> str:
    """Writes a folder that `T5ForConditionalGeneration.from_pretrained` takes; returns its path.

    Takes one tensor's memory. The folder has a temporary name until it is whole.

    Args:
      dtype: 'float32' or 'bfloat16'; None leaves tensors as they are stored, but for float16, whose
        range T5's activations exceed: those become float32.
      vocabulary: a SentencePiece model to put in, with `extra_ids` sentinels; None copies the
        tokenizer of a source that is such a folder itself.
      max_shard_bytes: of tensors in a file.
      log: takes a line about the tokenizer.

    Raises InputError: the place is taken or can't be written to, the source doesn't fit the
    network, or the vocabulary not the embedding.
    """
    if storage.is_bucket(str(directory)):
        raise errors.InputError(
            f"{directory}: Hugging Face folders are written to local folders; copy it from there"
        )
    architecture.check_fits(source, config)
    description = config_json.describe(config)
    tensors = _tensors(source, dtype)
    stored = {tensor.dtype for tensor in tensors.values()}
    stated = "float32" if "float32" in stored else stored.pop()
    # `torch_dtype` is its name before transformers 4.56.
    description |= {"dtype": stated, "torch_dtype": stated}
    final = storage.absolute(str(directory))
    with storage.new_folder(final) as partial:
        place = pathlib.Path(partial)
        place.mkdir()
        if vocabulary is not None:
            tokenizer = _write_tokenizer(vocabulary, extra_ids, config.vocab_size, place)
        else:
            tokenizer = _copy_tokenizer(pathlib.Path(source.path), place)
        _write_tensors(tensors, place, max_shard_bytes)
        _write_json(place / "generation_config.json", config_json.GENERATION)
        _write_json(place / config_json.FILE, description)
    log(tokenizer)
    return final


def _write_json(path: pathlib.Path, value) -> None:
    artifacts.write_atomically(path, artifacts.dump_json(value))


def _tensors(source: Source, dtype: str | None) -> dict[str, Tensor]:
    """All tensors as they are written, in the order of their Hugging Face names."""
    tensors = {}
    for path, tensor in source.params.items():
        name = config_json.tensor(path)
        if name is None:
            raise errors.InputError(f"{source.path}: {path} has no place in Hugging Face's T5")
        written = dtype or ("float32" if tensor.dtype == "float16" else tensor.dtype)
        if written not in model_config.DTYPES:
            raise errors.InputError(
                f"{source.path}: {path}: {written} isn't written; give dtype as one of "
                f"{', '.join(model_config.DTYPES)}"
            )
        tensors[name] = config_json.turned(path, tensor).cast(written)
    return dict(sorted(tensors.items()))


def _write_tensors(tensors: Mapping[str, Tensor], directory: pathlib.Path, most: int) -> None:
    """Writes files of at most `most` bytes each, or of a single larger tensor; and their index."""
    shards: list[dict[str, Tensor]] = []
    size = 0
    for name, tensor in tensors.items():
        if not shards or size + tensor.nbytes > most:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    if len(shards) == 1:
        _write_safetensors(tensors, directory / SAFETENSORS)
        return
    stem, suffix = SAFETENSORS.split(".")
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"{stem}-{number:05}-of-{len(shards):05}.{suffix}"
        _write_safetensors(shard, directory / file)
        places |= dict.fromkeys(shard, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    _write_json(directory / f"{SAFETENSORS}{INDEX_SUFFIX}", index)


def _write_safetensors(tensors: Mapping[str, Tensor], path: pathlib.Path) -> None:
    """Writes a file tensor by tensor; the format's library takes all tensors at once.

    A file is the header's length in 8 bytes (little-endian), the header, which is JSON such as
    {"shared.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}, and the bytes.
    """
    codes = {name: code for code, name in DTYPES.items()}
    # transformers 4 refuses files that don't say what kind of tensors they are.
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    # Wider dtypes come first, as the library has it, so that all are aligned.
    order = sorted(tensors.items(), key=lambda item: -np.dtype(item[1].dtype).itemsize)
    end = 0
    for name, tensor in order:
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": codes[tensor.dtype], "shape": tensor.shape}
        header[name]["data_offsets"] = [begin, end]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with artifacts.writing(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, tensor in order:
            array = np.ascontiguousarray(tensor.read())
            file.write(array.reshape(-1).view(np.uint8).data)


def _write_tokenizer(path: str, extra_ids: int, rows: int, directory: pathlib.Path) -> str:
    """Writes the tokenizer of a SentencePiece model, and returns a line about it.

    transformers makes its tokenizer of the model itself, so that no tokenizer.json is written. Its
    ids are SeqIO's, sentinels included (`<extra_id_0>` is the last), with two known differences,
    which T5's public folders have, too: text after a sentinel begins a word even where no space
    stands between them, and the texts `<pad>`, `</s>` and `<unk>` are those special tokens.
    """
    settings.checked("--extra_ids", extra_ids, vocabularies.ExtraIds)
    pieces = vocabularies.size(path)
    described = f"{pieces} pieces and {extra_ids} extra ids"
    if pieces + extra_ids > rows:
        raise errors.InputError(
            f"{path}: {described}, more than the {rows} rows of the embedding; give the "
            "vocabulary that the checkpoint was trained with"
        )
    if rows - pieces - extra_ids >= _PADDING:
        warnings.warn(
            f"{path}: {described}, and the embedding has {rows} rows: not the vocabulary that the "
            "checkpoint was trained with?",
            errors.InputWarning,
            stacklevel=2,
        )
    shutil.copyfile(path, directory / vocabularies.FILE)
    # Cleaning up would take the space before a full stop out of decoded texts; 'legacy' gives
    # transformers 4 the ids of T5's public folders, and of transformers 5.
    _write_json(directory / _TOKENIZER, config_json.TOKENIZER | {"extra_ids": extra_ids})
    return f"tokenizer of {path}, {described}"


def _copy_tokenizer(source: pathlib.Path, directory: pathlib.Path) -> str:
    """Copies a folder's tokenizer, if it has one, and returns a line about it."""
    names = [name for name in _TOKENIZER_FILES if (source / name).is_file()]
    for name in names:
        shutil.copyfile(source / name, directory / name)
    if not {vocabularies.FILE, "tokenizer.json"} & set(names):
        return "no tokenizer (give the vocabulary to have one)"
    return f"tokenizer of {source} ({', '.join(names)})"
