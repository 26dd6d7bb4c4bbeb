"""The tensors of a Hugging Face folder, in one file or in shards, under their names there."""

import os
import pathlib
from collections.abc import Mapping
from typing import Protocol

import msgspec
import numpy as np

from poison_t5x.checkpoint_io.hugging_face import pytorch_bin, safetensors_file
from poison_t5x.checkpoint_io.source import Index, TensorInfo
from poison_t5x.core import errors

SAFETENSORS = "model.safetensors"
_BIN = "pytorch_model.bin"
INDEX_SUFFIX = ".index.json"
# What else such a folder may hold, by a file that tells.
_OTHERS = {
    "adapter_model.*": "an adapter; merge it into its model",
    "tf_model*.h5*": "TensorFlow's weights",
    "flax_model*.msgpack*": "Flax's weights",
    "rust_model.ot": "Rust's weights",
    "*.gguf": "GGUF's weights",
    "onnx": "ONNX's weights",
    "*.onnx": "ONNX's weights",
}


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


class Weights(Protocol):
    """Tensors of one or more files.

    Attributes:
      tensors: name -> shape and dtype, as stored.
    """

    tensors: dict[str, TensorInfo]

    def read(self, name: str, index: Index | None = None) -> np.ndarray:
        """A tensor, or the part that `index` (a slice an axis) asks for, in its stored dtype."""
        ...


class _Safetensors:
    def __init__(self, files: Mapping[pathlib.Path, set[str] | None]):
        self._entries = {}
        for path, expected in files.items():
            header = safetensors_file.read_header(path)
            _check_shard(path, header, expected)
            self._entries |= {name: (path, entry) for name, entry in header.items()}
        self.tensors = {
            name: TensorInfo(entry.shape, entry.dtype.name)
            for name, (_, entry) in self._entries.items()
        }

    def read(self, name: str, index: Index | None = None) -> np.ndarray:
        return safetensors_file.read(*self._entries[name], index)


class _Bin:
    def __init__(self, files: Mapping[pathlib.Path, set[str] | None]):
        self._paths = {}
        self.tensors = {}
        for path, expected in files.items():
            tensors = pytorch_bin.tensors(path)
            _check_shard(path, tensors, expected)
            self.tensors |= tensors
            self._paths |= dict.fromkeys(tensors, path)

    def read(self, name: str, index: Index | None = None) -> np.ndarray:
        return pytorch_bin.read(self._paths[name], name, index)


def open_weights(directory: pathlib.Path, remedy: str) -> Weights:
    """Finds a folder's weights: safetensors if there are any, otherwise torch's own files.

    Args:
      remedy: what to do where a file isn't there, for the message.

    Raises:
      InputError: no weights that can be read, a missing shard, or a damaged file.
    """
    for name, kind in ((SAFETENSORS, _Safetensors), (_BIN, _Bin)):
        if (directory / name).is_file():
            return kind({directory / name: None})
        # A link to nothing is a file that the cache has lost: the index may still be there.
        if (directory / f"{name}{INDEX_SUFFIX}").is_file():
            return kind(_shards(directory, f"{name}{INDEX_SUFFIX}", remedy))
    for pattern, meaning in _OTHERS.items():
        if found := next((path.name for path in sorted(directory.glob(pattern))), None):
            raise errors.InputError(
                f"{directory}: a Hugging Face folder with {found} ({meaning}), and neither "
                f"{SAFETENSORS} nor {_BIN}; save it again with transformers' save_pretrained"
            )
    raise errors.InputError(
        f"{directory}: a Hugging Face folder without weights: no {SAFETENSORS} and no "
        f"{SAFETENSORS}{INDEX_SUFFIX}; {remedy}"
    )


def _shards(directory: pathlib.Path, index: str, remedy: str) -> dict[pathlib.Path, set[str]]:
    path = directory / index
    try:
        places = msgspec.json.decode(path.read_bytes(), type=_Index).weight_map
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.InputError(f"{path}: not the index of shards ({error}); {remedy}") from None
    shards: dict[pathlib.Path, set[str]] = {}
    for name, file in places.items():
        if os.path.basename(file) != file:
            raise errors.InputError(
                f"{path}: places {name} in {file!r}, outside the folder; {remedy}"
            )
        shards.setdefault(directory / file, set()).add(name)
    for shard, tensors in sorted(shards.items()):
        if not shard.is_file():
            raise errors.InputError(
                f"{shard}: this shard isn't there, which should hold {_some(tensors)}; {remedy}"
            )
    if not shards:
        raise errors.InputError(f"{path}: lists no tensors; {remedy}")
    return dict(sorted(shards.items()))


def _check_shard(path: pathlib.Path, found, expected: set[str] | None) -> None:
    if missing := (expected or set()) - set(found):
        raise errors.InputError(
            f"{path}: doesn't hold {_some(missing)}, which the index places there; fetch the "
            "folder again"
        )


def _some(tensors: set[str]) -> str:
    first = f"the tensor {min(tensors)}"
    return first if len(tensors) == 1 else f"{first} and {len(tensors) - 1} more"
