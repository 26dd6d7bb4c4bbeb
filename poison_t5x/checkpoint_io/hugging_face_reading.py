"""Reads Hugging Face's T5 folders: config.json, and safetensors or torch's files, shards too."""

import dataclasses
import os
import pathlib
import pickle
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import ml_dtypes
import msgspec
import numpy as np
import safetensors

from poison_t5x.checkpoint_io import architecture, storage
from poison_t5x.checkpoint_io import hugging_face_config as config_json
from poison_t5x.checkpoint_io.source import Index, Source, TensorInfo
from poison_t5x.core import errors

SAFETENSORS = "model.safetensors"
INDEX_SUFFIX = ".index.json"
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_BIN = "pytorch_model.bin"
_HUB = re.compile(r"hf://(?P<repo>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w./-]+))?")
_ROWS = 4096  # read at once where two matrices are compared


def open_hub(path: str) -> Source:
    """'hf://OWNER/NAME[@REVISION]': a repository of the Hugging Face Hub in the local cache.

    Nothing is fetched: a run on a pod must not depend on a network, and a download is a command.

    Raises:
      InputError: as `open_folder`; or the path isn't as above, huggingface_hub isn't installed, or
        the repository isn't in the cache: then it says how to fetch it.
    """
    match = _HUB.fullmatch(path)
    if match is None:
        raise errors.InputError(f"{path}: expected hf://OWNER/NAME or hf://OWNER/NAME@REVISION")
    repo, revision = match["repo"], match["revision"]
    try:
        import huggingface_hub
    except ImportError:
        raise errors.InputError(
            f"{path}: needs huggingface_hub; pip install 'poison-t5x[hf]', or give a folder's path"
        ) from None
    remedy = f"fetch it: hf download {repo}" + (f" --revision {revision}" if revision else "")
    try:
        folder = huggingface_hub.snapshot_download(repo, revision=revision, local_files_only=True)
    except (OSError, ValueError):
        raise errors.InputError(f"{path}: not in the local Hugging Face cache; {remedy}") from None
    return open_folder(folder, remedy)


def open_folder(path: str | pathlib.Path, remedy: str = "fetch the folder again") -> Source:
    """A T5 or mT5 folder of Hugging Face's; kernels are transposed as they are read.

    `remedy` is, for messages, the way to get a file that isn't there.

    Raises:
      InputError: another architecture, missing or damaged files, or a config.json that contradicts
        the tensors.
    """
    directory = pathlib.Path(path)
    config = config_json.read(directory)
    network = config_json.network(directory, config)
    weights = _open_weights(directory, remedy)
    places = _places(directory, weights)
    config_json.check_sizes(directory, config, _named(weights, places, network))
    if network["logits_via_embedding"]:
        head = places.pop(architecture.LOGITS, None)
        if head and not _is_same(weights, places[architecture.EMBEDDING], head):
            raise errors.InputError(
                f"{directory}: config.json says that {config_json.HEAD} is tied to "
                f"{config_json.EMBEDDING} (tie_word_embeddings), and the two differ: transformers "
                "4 uses the latter, transformers 5 the former; where the model is an untied one, "
                "such as T5 v1.1 and FLAN-T5, set tie_word_embeddings and scale_decoder_outputs "
                "to false"
            )
    elif architecture.LOGITS not in places:
        if not config_json.is_of_transformers_5(config):
            raise errors.InputError(
                f"{directory}: the tensor {config_json.HEAD} isn't there, though config.json says "
                "tie_word_embeddings false; a model with its language-model head is needed"
            )
        # Tied but not scaled, which transformers 5 makes of a new v1.1: a head equal to it.
        places[architecture.LOGITS] = places[architecture.EMBEDDING]
    return _named(weights, places, network)


def _named(weights: Source, places: Mapping[str, str], network: dict[str, object]) -> Source:
    """The source with T5X's parameter paths; `places`: path -> the tensor's name in the folder."""
    params = {}
    for name, place in places.items():
        shape, dtype = weights.params[place]
        params[name] = TensorInfo(shape[::-1] if config_json.is_transposed(name) else shape, dtype)

    def read(name: str, index: Index | None = None) -> np.ndarray:
        if config_json.is_transposed(name):
            return weights.read(places[name], index and index[::-1]).T
        return weights.read(places[name], index)

    return dataclasses.replace(weights, params=params, read=read, network=network)


def _places(directory: pathlib.Path, weights: Source) -> dict[str, str]:
    """T5X's parameter path -> tensor; copies of the embedding are left out."""
    embeddings = (config_json.EMBEDDING, *config_json.EMBEDDING_COPIES)
    there = [name for name in embeddings if name in weights.params]
    places = {architecture.EMBEDDING: there[0]} if there else {}
    for name in weights.params:
        if name in embeddings or name == config_json.UNUSED:
            continue
        parameter = config_json.parameter(name)
        if parameter is None:
            raise errors.InputError(
                f"{directory}: the tensor {name} is none of T5's; a T5 encoder-decoder with its "
                "language-model head is needed (T5ForConditionalGeneration)"
            )
        places[parameter] = name
    for copy in there[1:]:
        if not _is_same(weights, there[0], copy):
            raise errors.InputError(
                f"{directory}: the tensor {copy} isn't the same as {there[0]}: another "
                "architecture, since T5 has one embedding"
            )
    return places


def _is_same(weights: Source, one: str, other: str) -> bool:
    """Whether two matrices are equal, read by blocks of rows; NaNs are, too."""
    info = weights.params[one]
    if info != weights.params[other]:
        return False
    size = info.shape[0]
    parts = [(slice(n, min(n + _ROWS, size)), slice(None)) for n in range(0, size, _ROWS)]
    return all(weights.read(one, p).tobytes() == weights.read(other, p).tobytes() for p in parts)


def _open_weights(directory: pathlib.Path, remedy: str) -> Source:
    """A folder's weights: safetensors if there are any, otherwise torch's own files."""
    for name, opened in ((SAFETENSORS, _open_safetensors), (_BIN, _open_torch)):
        if (directory / name).is_file():
            shards: dict[pathlib.Path, set[str]] = {directory / name: set()}
        # A link to nothing is a file that the cache has lost: the index may still be there.
        elif (directory / f"{name}{INDEX_SUFFIX}").is_file():
            shards = _shards(directory / f"{name}{INDEX_SUFFIX}", remedy)
        else:
            continue
        return _of_files(directory, shards, opened)
    other = storage.other_kind(directory)
    raise errors.InputError(
        f"{directory}: a Hugging Face folder with {other}, and neither {SAFETENSORS} nor {_BIN}; "
        "save it again with transformers' save_pretrained"
        if other
        else f"{directory}: a Hugging Face folder without weights: no {SAFETENSORS} and no "
        f"{SAFETENSORS}{INDEX_SUFFIX}; {remedy}"
    )


class _ShardIndex(msgspec.Struct):
    weight_map: dict[str, str]


def _shards(index: pathlib.Path, remedy: str) -> dict[pathlib.Path, set[str]]:
    """File -> the tensors that it should hold."""
    try:
        places = msgspec.json.decode(index.read_bytes(), type=_ShardIndex).weight_map
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.InputError(f"{index}: not the index of shards ({error}); {remedy}") from None
    shards: dict[pathlib.Path, set[str]] = {}
    for name, file in places.items():
        if os.path.basename(file) != file:
            raise errors.InputError(
                f"{index}: places {name} in {file!r}, outside the folder; {remedy}"
            )
        shards.setdefault(index.parent / file, set()).add(name)
    for shard, names in sorted(shards.items()):
        if not shard.is_file():
            raise errors.InputError(
                f"{shard}: this shard isn't there, which should hold {_some(names)}; {remedy}"
            )
    if not shards:
        raise errors.InputError(f"{index}: lists no tensors; {remedy}")
    return dict(sorted(shards.items()))


def _some(names: set[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"the tensor {min(names)}{more}"


class _Tensor(NamedTuple):
    """A tensor of an open file, with its dtype's name there."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[Index], np.ndarray]


_Open = Callable[[pathlib.Path], Mapping[str, _Tensor]]


def _of_files(
    directory: pathlib.Path, shards: Mapping[pathlib.Path, set[str]], opened: _Open
) -> Source:
    tensors: dict[str, TensorInfo] = {}
    files: dict[str, pathlib.Path] = {}
    for path, expected in shards.items():
        there = opened(path)
        if missing := expected - there.keys():
            raise errors.InputError(
                f"{path}: doesn't hold {_some(missing)}, which the index places there; fetch the "
                "folder again"
            )
        for name, tensor in there.items():
            dtype = DTYPES.get(tensor.dtype, tensor.dtype)
            if dtype not in DTYPES.values():
                raise errors.InputError(
                    f"{path}: the tensor {name} is stored as {dtype}; "
                    f"{', '.join(DTYPES.values())} can be read: save the model again, not quantised"
                )
            tensors[name], files[name] = TensorInfo(tensor.shape, dtype), path

    def read(name: str, index: Index | None = None) -> np.ndarray:
        # Mapped anew, which takes milliseconds: what was read before doesn't stay resident.
        tensor = opened(files[name])[name]
        return tensor.read((slice(None),) * len(tensor.shape) if index is None else index)

    return Source(str(directory), "a Hugging Face folder", tensors, read)


def _check_file(path: pathlib.Path) -> bytes:
    """A file's first bytes; raises InputError where Git fetched it without its LFS extension."""
    try:
        with open(path, "rb") as file:
            start = file.read(32)
    except OSError as error:
        raise errors.InputError(f"{path}: can't be read ({error.strerror})") from None
    if start.startswith(b"version https://git-lfs"):
        raise errors.InputError(
            f"{path}: a Git LFS pointer in the file's place; run `git lfs pull` in its folder"
        )
    return start


def _open_safetensors(path: pathlib.Path) -> dict[str, _Tensor]:
    _check_file(path)
    try:
        file = safetensors.safe_open(path, framework="numpy")
    except (safetensors.SafetensorError, OSError) as error:
        raise errors.InputError(
            f"{path}: not a safetensors file, or a damaged one of {path.stat().st_size} bytes "
            f"({error}); fetch it again"
        ) from None
    parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    return {
        name: _Tensor(tuple(part.get_shape()), part.get_dtype(), part.__getitem__)
        for name, part in parts.items()
    }


def _open_torch(path: pathlib.Path) -> dict[str, _Tensor]:
    start = _check_file(path)
    try:
        import torch
    except ImportError:
        raise errors.InputError(
            f"{path}: weights in torch's own format, and torch isn't installed; install it, or "
            "save the folder again as safetensors (save_pretrained does)"
        ) from None
    if not start.startswith(b"PK"):
        raise errors.InputError(
            f"{path}: not a file of torch, or one from before torch 1.6, which can't be read in "
            "parts; load and save it again with torch"
        )
    try:
        # Only tensors are unpickled, never code.
        state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise errors.InputError(f"{path}: damaged ({reason}); fetch it again") from None
    if not isinstance(state, dict) or not all(
        isinstance(tensor, torch.Tensor) for tensor in state.values()
    ):
        raise errors.InputError(f"{path}: not a state_dict of tensors; save the model again")

    def reader(tensor) -> Callable[[Index], np.ndarray]:
        if tensor.dtype == torch.bfloat16:  # NumPy has none of its own
            words = tensor.view(torch.int16)
            return lambda index: words[index].numpy().view(ml_dtypes.bfloat16).copy()
        return lambda index: tensor[index].numpy().copy()

    return {
        name: _Tensor(tuple(t.shape), str(t.dtype).removeprefix("torch."), reader(t))
        for name, t in state.items()
    }
