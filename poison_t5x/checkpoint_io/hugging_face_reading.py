"""Reads Hugging Face's T5 folders: config.json, and safetensors or torch's files, shards too."""

import os
import pathlib
import re
from collections.abc import Callable, Mapping, Set

import ml_dtypes
import msgspec
import numpy as np
import safetensors

from poison_t5x.checkpoint_io import architecture, storage
from poison_t5x.checkpoint_io import hugging_face_config as config_json
from poison_t5x.checkpoint_io.source import Index, Source, Tensor
from poison_t5x.core import errors, reading

SAFETENSORS = "model.safetensors"
INDEX_SUFFIX = ".index.json"
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_BIN = "pytorch_model.bin"
_HUB = re.compile(r"hf://(?P<repo>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w./-]+))?")
_ROWS = 4096  # read at once where two matrices are compared


def open_hub(path: str) -> Source:
    """'hf://OWNER/NAME[@REVISION]': a repository of the Hugging Face Hub in the local cache.

    Nothing is fetched: a run on a pod must not depend on a network, and a download is a command.
    Raises InputError as `open_folder`, or where it isn't in the cache, with how to fetch it.
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

    `remedy` is, for messages, the way to get a file that isn't there. Raises InputError: another
    architecture, missing or damaged files, or a config.json that contradicts the tensors.
    """
    directory = pathlib.Path(path)
    config = config_json.read(directory)
    network = config_json.network(directory, config)
    params = _parameters(directory, _tensors(directory, remedy))
    source = Source(str(directory), "a Hugging Face folder", params, network=network)
    config_json.check_sizes(directory, config, source)
    embedding = params[architecture.EMBEDDING]
    if network["logits_via_embedding"]:
        head = params.pop(architecture.LOGITS, None)
        if head and not _is_same(embedding, head.transposed()):
            raise errors.InputError(
                f"{directory}: config.json says that {config_json.HEAD} is tied to "
                f"{config_json.EMBEDDING} (tie_word_embeddings), and the two differ: transformers "
                "4 uses the latter, transformers 5 the former; where the model is an untied one, "
                "such as T5 v1.1 and FLAN-T5, set tie_word_embeddings and scale_decoder_outputs "
                "to false"
            )
    elif architecture.LOGITS not in params:
        if not config_json.is_of_transformers_5(config):
            raise errors.InputError(
                f"{directory}: the tensor {config_json.HEAD} isn't there, though config.json says "
                "tie_word_embeddings false; a model with its language-model head is needed"
            )
        # Tied but not scaled, which transformers 5 makes of a new v1.1: a head equal to it.
        params[architecture.LOGITS] = embedding.transposed()
    return source


def _parameters(directory: pathlib.Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """T5X's parameter path -> tensor; copies of the embedding are left out."""
    embeddings = (config_json.EMBEDDING, *config_json.EMBEDDING_COPIES)
    there = [name for name in embeddings if name in tensors]
    for copy in there[1:]:
        if not _is_same(tensors[there[0]], tensors[copy]):
            raise errors.InputError(
                f"{directory}: the tensor {copy} isn't the same as {there[0]}: another "
                "architecture, since T5 has one embedding"
            )
    params = {architecture.EMBEDDING: tensors[there[0]]} if there else {}
    for name, tensor in tensors.items():
        if name in embeddings or name == config_json.UNUSED:
            continue
        parameter = config_json.parameter(name)
        if parameter is None:
            raise errors.InputError(
                f"{directory}: the tensor {name} is none of T5's; a T5 encoder-decoder with its "
                "language-model head is needed (T5ForConditionalGeneration)"
            )
        params[parameter] = config_json.turned(parameter, tensor)
    return params


def _is_same(one: Tensor, other: Tensor) -> bool:
    """Whether two matrices are equal, read by blocks of rows; NaNs are, too."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    starts = range(0, one.shape[0], _ROWS)
    parts = [(slice(n, min(n + _ROWS, one.shape[0])), slice(None)) for n in starts]
    return all(one.read(part).tobytes() == other.read(part).tobytes() for part in parts)


def _tensors(directory: pathlib.Path, remedy: str) -> dict[str, Tensor]:
    """A folder's tensors by name: of safetensors if there are any, otherwise of torch's files."""
    for name, opened in ((SAFETENSORS, _open_safetensors), (_BIN, _open_torch)):
        index = directory / f"{name}{INDEX_SUFFIX}"
        if (directory / name).is_file():
            return _of_file(directory / name, opened)
        # A link to nothing is a file that the cache has lost: the index may still be there.
        if index.is_file():
            tensors = {}
            for path, expected in sorted(_shards(index, remedy).items()):
                tensors |= _of_file(path, opened, expected)
            return tensors
    if other := storage.other_kind(directory):
        raise errors.InputError(
            f"{directory}: a Hugging Face folder with {other}, and neither {SAFETENSORS} nor "
            f"{_BIN}; save it again with transformers' save_pretrained"
        )
    raise errors.InputError(
        f"{directory}: a Hugging Face folder without weights: no {SAFETENSORS} and no "
        f"{SAFETENSORS}{INDEX_SUFFIX}; {remedy}"
    )


class _ShardIndex(msgspec.Struct):
    weight_map: dict[str, str]


def _shards(index: pathlib.Path, remedy: str) -> dict[pathlib.Path, set[str]]:
    """File -> the tensors that it should hold."""
    places = reading.read_json(index, _ShardIndex, remedy).weight_map
    if not places:
        raise errors.InputError(f"{index}: lists no tensors; {remedy}")
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
    return shards


def _some(names: set[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"the tensor {min(names)}{more}"


def _of_file(
    path: pathlib.Path,
    opened: Callable[[pathlib.Path], dict[str, Tensor]],
    expected: Set[str] = frozenset(),
) -> dict[str, Tensor]:
    """A file's tensors; `expected` are those that an index places there."""

    def anew(name: str) -> Callable[[Index], np.ndarray]:
        # Mapped anew, which takes milliseconds: what was read before doesn't stay resident.
        return lambda index: opened(path)[name].read_part(index)

    there = opened(path)
    if missing := expected - there.keys():
        raise errors.InputError(
            f"{path}: doesn't hold {_some(missing)}, which the index places there; fetch the "
            "folder again"
        )
    tensors = {}
    for name, tensor in there.items():
        dtype = DTYPES.get(tensor.dtype, tensor.dtype)
        if dtype not in DTYPES.values():
            raise errors.InputError(
                f"{path}: the tensor {name} is stored as {dtype}; "
                f"{', '.join(DTYPES.values())} can be read: save the model again, not quantised"
            )
        tensors[name] = Tensor(tensor.shape, dtype, anew(name))
    storage.check_tensors(str(path), storage.held_bytes(str(path)), tensors)
    return tensors


def _check_file(path: pathlib.Path) -> bytes:
    """A file's first bytes; raises InputError where Git fetched it without its LFS extension."""
    with reading.open_file(path) as file:
        start = file.read(32)
    if start.startswith(b"version https://git-lfs"):
        raise errors.InputError(
            f"{path}: a Git LFS pointer in the file's place; run `git lfs pull` in its folder"
        )
    return start


def _open_safetensors(path: pathlib.Path) -> dict[str, Tensor]:
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
        name: Tensor(tuple(part.get_shape()), part.get_dtype(), part.__getitem__)
        for name, part in parts.items()
    }


def _open_torch(path: pathlib.Path) -> dict[str, Tensor]:
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
    except Exception as error:  # whatever a pickle that nobody wrote leads to
        raise errors.InputError(
            f"{path}: damaged ({errors.first_line(error)}); fetch it again"
        ) from None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in state.items()
    ):
        raise errors.InputError(f"{path}: not a state_dict of tensors; save the model again")

    def reader(tensor) -> Callable[[Index], np.ndarray]:
        if tensor.dtype == torch.bfloat16:  # NumPy has none of its own
            words = tensor.view(torch.int16)
            return lambda index: words[index].numpy().view(ml_dtypes.bfloat16).copy()
        return lambda index: tensor[index].numpy().copy()

    return {
        name: Tensor(tuple(t.shape), str(t.dtype).removeprefix("torch."), reader(t))
        for name, t in state.items()
    }
