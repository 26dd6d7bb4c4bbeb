"""Reads Hugging Face's T5 folders: config.json, and safetensors or torch's files."""

import pathlib
from collections.abc import Mapping

import numpy as np

from poison_t5x.checkpoint_io import architecture
from poison_t5x.checkpoint_io.hugging_face import (
    config_json,
    hub,
    names,
    safetensors_file,
    weights,
)
from poison_t5x.checkpoint_io.source import Index, TensorInfo
from poison_t5x.core import errors


class HuggingFaceFolder:
    """A `Source` (see there) over a folder's tensors. Kernels are transposed as they are read."""

    layout = "a Hugging Face folder"
    optimizer: str | None = None
    step = 0

    def __init__(
        self,
        path: str,
        tensors: weights.Weights,
        places: Mapping[str, str],
        network: Mapping[str, object],
    ):
        """Args: places: T5X's parameter path -> the tensor's name in the folder."""
        self.path, self.network = path, network
        self.slots: dict[str, TensorInfo] = {}
        self._weights, self._places = tensors, places
        self.params = {path: self._info(path) for path in places}

    def _info(self, name: str) -> TensorInfo:
        info = self._weights.tensors[self._places[name]]
        shape = info.shape[::-1] if names.is_transposed(name) else info.shape
        return TensorInfo(shape, info.dtype)

    def read(self, name: str, index: Index | None = None) -> np.ndarray:
        """A tensor, or a part of it; see `Source.read`."""
        place = self._places[name]
        if not names.is_transposed(name):
            return self._weights.read(place, index)
        return self._weights.read(place, None if index is None else index[::-1]).T


def open_folder(
    path: str | pathlib.Path, remedy: str = "fetch the folder again"
) -> HuggingFaceFolder:
    """A T5 or mT5 folder of Hugging Face's.

    Args:
      path: the folder.
      remedy: what to do where a file isn't there, for the message.

    Raises:
      InputError: another architecture, missing or damaged files, or a config.json that contradicts
        the tensors.
    """
    directory = pathlib.Path(path)
    config = config_json.read(directory)
    network = config_json.network(directory, config)
    tensors = weights.open_weights(directory, remedy)
    places = _places(directory, tensors)
    config_json.check_sizes(
        directory, config, {names.tensor(path): tensors.tensors[n] for path, n in places.items()}
    )
    is_scaled = config_json.is_scaled(directory, config)
    network["logits_via_embedding"] = is_scaled
    if is_scaled:
        _check_tied(directory, tensors, places)
        places.pop(architecture.LOGITS, None)
    elif architecture.LOGITS not in places:
        if not config.is_of_transformers_5:
            raise errors.InputError(
                f"{directory}: the tensor {names.HEAD} isn't there, though config.json says "
                "tie_word_embeddings false; a model with its language-model head is needed"
            )
        # Tied but not scaled, which transformers 5 makes of a new v1.1: a head equal to it.
        places[architecture.LOGITS] = places[architecture.EMBEDDING]
    return HuggingFaceFolder(str(path), tensors, places, network)


def open_hub(path: str) -> HuggingFaceFolder:
    """A repository in the local Hugging Face cache: 'hf://OWNER/NAME[@REVISION]'."""
    snapshot = hub.find(path)
    return open_folder(snapshot.folder, f"fetch it: {snapshot.download}")


def _places(directory: pathlib.Path, tensors: weights.Weights) -> dict[str, str]:
    """T5X's parameter path -> tensor; copies of the embedding are left out."""
    embeddings = (names.EMBEDDING, *names.EMBEDDING_COPIES)
    there = [name for name in embeddings if name in tensors.tensors]
    places = {architecture.EMBEDDING: there[0]} if there else {}
    for name in tensors.tensors:
        if name in embeddings or name == names.UNUSED:
            continue
        parameter = names.parameter(name)
        if parameter is None:
            raise errors.InputError(
                f"{directory}: the tensor {name} is none of T5's; a T5 encoder-decoder with its "
                "language-model head is needed (T5ForConditionalGeneration)"
            )
        places[parameter] = name
    for copy in there[1:]:
        if not _is_same(tensors, there[0], copy):
            raise errors.InputError(
                f"{directory}: the tensor {copy} isn't the same as {there[0]}: another "
                "architecture, since T5 has one embedding"
            )
    return places


def _check_tied(
    directory: pathlib.Path, tensors: weights.Weights, places: Mapping[str, str]
) -> None:
    """Raises InputError where a model whose outputs are scaled has a head of its own."""
    embedding, head = (places.get(n) for n in (architecture.EMBEDDING, architecture.LOGITS))
    if embedding and head and not _is_same(tensors, embedding, head):
        raise errors.InputError(
            f"{directory}: config.json says that {names.HEAD} is tied to {names.EMBEDDING} "
            "(tie_word_embeddings), and the two differ: transformers 4 uses the latter, "
            "transformers 5 the former; where the model is an untied one, such as T5 v1.1 and "
            "FLAN-T5, set tie_word_embeddings and scale_decoder_outputs to false"
        )


def _is_same(tensors: weights.Weights, one: str, other: str) -> bool:
    """Whether two matrices are equal, read by blocks of rows."""
    info = tensors.tensors[one]
    if one == other or info != tensors.tensors[other]:
        return one == other
    columns = (slice(None),) * (len(info.shape) - 1)
    row_bytes = info.nbytes // max(info.shape[0], 1)
    for low, high in safetensors_file.blocks(0, info.shape[0], row_bytes):
        index = (slice(low, high), *columns)
        left, right = tensors.read(one, index), tensors.read(other, index)
        # As bytes, by which NaNs are equal, too.
        if left.tobytes() != right.tobytes():
            return False
    return True
