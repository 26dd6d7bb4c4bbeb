"""Named tensors, each read alone and in part: every layout of a checkpoint is read as this.

Layers are unrolled here, `encoder/layers_3/…`, as in T5X's checkpoints. A scanned network has
`encoder/layers/…` with the layers along the first axis (`model.stack`), and so do its optimiser's
slots: `stacked` and `unstacked` are views of one as the other.
"""

import collections
import dataclasses
import re
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np

from poison_t5x.core import errors

Index = tuple[slice, ...]
_STACKED = re.compile(r"(?P<before>(?:.*/)?(?P<side>encoder|decoder)/layers)(?P<after>/.+)")
_LAYER = re.compile(r"(?P<before>(?:.*/)?(?:encoder|decoder)/layers)_(?P<number>\d+)(?P<after>/.+)")


class TensorInfo(NamedTuple):
    """A tensor that hasn't been read: its shape in T5X's axis order, and its dtype's numpy name."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor as it is stored."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


class Read(Protocol):
    """Reads a tensor, or the part that a slice an axis asks for, in its stored dtype.

    Raises InputError, naming the tensor, where its bytes aren't all there, or damaged.
    """

    def __call__(self, name: str, index: Index | None = None) -> np.ndarray: ...


@dataclasses.dataclass
class Source:
    """A checkpoint on disk or in a bucket, its tensors under T5X's parameter paths.

    Attributes:
      layout: its name in messages: 'a T5X checkpoint', 'a Hugging Face folder', …
      slots: of the optimiser's state, 'v_row/encoder/layers_0/mlp/wo/kernel' and so on, and
        'count', int32 (), the updates that they have seen; empty where there is none.
      optimizer: 'adamw' or 'adafactor', which the slots belong to; None without slots.
      step: 0 where the checkpoint doesn't say.
      network: fields of `T5Config` that shapes don't tell, as far as the checkpoint states them.
    """

    path: str
    layout: str
    params: Mapping[str, TensorInfo]
    read: Read
    slots: Mapping[str, TensorInfo] = dataclasses.field(default_factory=dict)
    optimizer: str | None = None
    step: int = 0
    network: Mapping[str, object] = dataclasses.field(default_factory=dict)

    def info(self, name: str) -> TensorInfo:
        """Of a parameter or a slot."""
        return self.params.get(name) or self.slots[name]


def cast(source: Source, dtype: str) -> Source:
    """The source with its parameters in another dtype; the optimiser's state keeps its own."""
    params = {name: TensorInfo(info.shape, dtype) for name, info in source.params.items()}

    def read(name: str, index: Index | None = None) -> np.ndarray:
        array = source.read(name, index)
        return array.astype(dtype, copy=False) if name in params else array

    return dataclasses.replace(source, params=params, read=read)


def is_stacked(source: Source) -> bool:
    """Whether a checkpoint is of scanned layers."""
    return any(_STACKED.fullmatch(name) for name in source.params)


def unstacked(source: Source) -> Source:
    """The source of stacked tensors with a tensor for each layer.

    Raises InputError, naming the tensor, where stacks of a side differ in their layers.
    """
    places: dict[str, tuple[str, int]] = {}
    # 'encoder' or 'decoder' -> the first of its stacks; all others are as deep.
    stacks: dict[str, tuple[str, TensorInfo]] = {}

    def split(tensors: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
        layers = {}
        for name, info in tensors.items():
            match = _STACKED.fullmatch(name)
            if match is None:
                layers[name] = info
                continue
            first, other = stacks.setdefault(match["side"], (name, info))
            if not info.shape or info.shape[0] != other.shape[0]:
                raise errors.InputError(
                    f"{source.path}: {name} has shape {info.shape} and {first} {other.shape}, "
                    "where the first axis of both is the layers'; the checkpoint isn't whole"
                )
            for number in range(info.shape[0]):
                layer = f"{match['before']}_{number}{match['after']}"
                if layer in tensors:
                    raise errors.InputError(f"{source.path}: has both {layer} and {name}")
                layers[layer] = TensorInfo(info.shape[1:], info.dtype)
                places[layer] = name, number
        return layers

    def read(name: str, index: Index | None = None) -> np.ndarray:
        if name not in places:
            return source.read(name, index)
        stack, number = places[name]
        rest = index or (slice(None),) * (len(source.info(stack).shape) - 1)
        return source.read(stack, (slice(number, number + 1), *rest))[0]

    params, slots = split(source.params), split(source.slots)
    return dataclasses.replace(source, params=params, slots=slots, read=read)


def stacked(source: Source) -> Source:
    """The source of layers' tensors with one tensor for all layers of a kind.

    Raises InputError, naming the tensor, where a layer is missing, or unlike the first.
    """
    layers: dict[str, list[str]] = {}

    def join(tensors: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
        matches = {name: _LAYER.fullmatch(name) for name in tensors}
        joined = {name: tensors[name] for name, match in matches.items() if match is None}
        depths: collections.Counter[tuple[str, str]] = collections.Counter()
        for match in filter(None, matches.values()):
            kind = match["before"], match["after"]
            depths[kind] = max(depths[kind], int(match["number"]) + 1)
        for (before, after), depth in depths.items():
            names = [f"{before}_{number}{after}" for number in range(depth)]
            first = _check_alike(source.path, names, tensors)
            layers[before + after] = names
            joined[before + after] = TensorInfo((depth, *first.shape), first.dtype)
        return joined

    params, slots = join(source.params), join(source.slots)

    def read(name: str, index: Index | None = None) -> np.ndarray:
        if name not in layers:
            return source.read(name, index)
        info = params.get(name) or slots[name]
        wanted, *part = index or (slice(None),) * len(info.shape)
        names = layers[name][wanted]
        # Filled layer by layer: no more than this and a layer's part is held.
        sizes = [len(range(*cut.indices(n))) for cut, n in zip(part, info.shape[1:], strict=True)]
        array = np.empty((len(names), *sizes), info.dtype)
        for place, layer in enumerate(names):
            array[place] = source.read(layer, tuple(part))
        return array

    return dataclasses.replace(source, params=params, slots=slots, read=read)


def _check_alike(path: str, names: list[str], tensors: Mapping[str, TensorInfo]) -> TensorInfo:
    for name in names:
        if name not in tensors:
            raise errors.InputError(
                f"{path}: {name} isn't there, and {names[-1]} is; the checkpoint isn't whole"
            )
        if (one := tensors[name]) != (other := tensors[names[0]]):
            raise errors.InputError(
                f"{path}: {name} is {one.dtype} {one.shape} and {names[0]} {other.dtype} "
                f"{other.shape}; layers that are scanned have to be alike: set SCAN_LAYERS=False"
            )
    return tensors[names[0]]
