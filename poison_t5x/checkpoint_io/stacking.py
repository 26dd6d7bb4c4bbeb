"""Scanned layers' stacked tensors, seen as each layer's own, and the reverse.

Within `convert` layers are unrolled, `encoder/layers_3/…`, as in T5X's checkpoints. A scanned
network has `encoder/layers/…` with the layers along the first axis (`model.stack`), and so do its
optimiser's slots.
"""

import re
from collections.abc import Mapping

import numpy as np

from poison_t5x.checkpoint_io.source import Index, Source, TensorInfo
from poison_t5x.core import errors

_STACKED = re.compile(r"(?P<before>(?:.*/)?(?P<side>encoder|decoder)/layers)(?P<after>/.+)")
_LAYER = re.compile(r"(?P<before>(?:.*/)?(?:encoder|decoder)/layers)_(?P<number>\d+)(?P<after>/.+)")


def is_stacked(source: Source) -> bool:
    """Whether a checkpoint is of scanned layers."""
    return any(_STACKED.fullmatch(name) for name in source.params)


class Unstacked:
    """A `Source` of stacked tensors, with a tensor for each layer."""

    def __init__(self, source: Source):
        """Raises InputError, naming the tensor, where stacks of a side differ in their layers."""
        self._source = source
        self.path, self.layout, self.step = source.path, source.layout, source.step
        self.network, self.optimizer = source.network, source.optimizer
        self._places: dict[str, tuple[str, int]] = {}
        # 'encoder' or 'decoder' -> the first of its stacks; all others are as deep.
        self._stacks: dict[str, tuple[str, TensorInfo]] = {}
        self.params = self._split(source.params)
        self.slots = self._split(source.slots)

    def _split(self, tensors: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
        found = {}
        for name, info in tensors.items():
            match = _STACKED.fullmatch(name)
            if match is None:
                found[name] = info
                continue
            self._check_depth(match["side"], name, info)
            for number in range(info.shape[0]):
                layer = f"{match['before']}_{number}{match['after']}"
                if layer in tensors:
                    raise errors.InputError(f"{self.path}: has both {layer} and {name}")
                found[layer] = TensorInfo(info.shape[1:], info.dtype)
                self._places[layer] = name, number
        return found

    def _check_depth(self, side: str, name: str, info: TensorInfo) -> None:
        first, other = self._stacks.setdefault(side, (name, info))
        if not info.shape or info.shape[0] != other.shape[0]:
            raise errors.InputError(
                f"{self.path}: {name} has shape {info.shape} and {first} {other.shape}, where the "
                "first axis of both is the layers'; the checkpoint isn't whole"
            )

    def read(self, name: str, index: Index | None = None) -> np.ndarray:
        """A layer's tensor, or a part of it; see `Source.read`."""
        if name not in self._places:
            return self._source.read(name, index)
        stacked, number = self._places[name]
        info = self.params.get(name) or self.slots[name]
        rest = tuple(slice(None) for _ in info.shape) if index is None else index
        return self._source.read(stacked, (slice(number, number + 1), *rest))[0]


class Stacked:
    """A `Source` of layers' tensors, with one tensor for all layers of a kind."""

    def __init__(self, source: Source):
        """Raises InputError, naming the tensor, where a layer is missing, or unlike the first."""
        self._source = source
        self.path, self.layout, self.step = source.path, source.layout, source.step
        self.network, self.optimizer = source.network, source.optimizer
        self._layers: dict[str, list[str]] = {}
        self.params = self._join(source.params)
        self.slots = self._join(source.slots)

    def _join(self, tensors: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
        found: dict[str, TensorInfo] = {}
        depths: dict[tuple[str, str], int] = {}
        for name, info in tensors.items():
            if match := _LAYER.fullmatch(name):
                parts = match["before"], match["after"]
                depths[parts] = max(depths.get(parts, 0), int(match["number"]) + 1)
            else:
                found[name] = info
        for (before, after), depth in depths.items():
            names = [f"{before}_{number}{after}" for number in range(depth)]
            first = self._check_alike(names, tensors)
            self._layers[before + after] = names
            found[before + after] = TensorInfo((depth, *first.shape), first.dtype)
        return found

    def _check_alike(self, names: list[str], tensors: Mapping[str, TensorInfo]) -> TensorInfo:
        for name in names:
            if name not in tensors:
                raise errors.InputError(
                    f"{self.path}: {name} isn't there, and {names[-1]} is; the checkpoint isn't "
                    "whole"
                )
            if tensors[name] != tensors[names[0]]:
                one, other = tensors[name], tensors[names[0]]
                raise errors.InputError(
                    f"{self.path}: {name} is {one.dtype} {one.shape} and {names[0]} {other.dtype} "
                    f"{other.shape}; layers that are scanned have to be alike: set "
                    "SCAN_LAYERS=False"
                )
        return tensors[names[0]]

    def read(self, name: str, index: Index | None = None) -> np.ndarray:
        """Layers' tensors, or the same part of each; see `Source.read`."""
        if name not in self._layers:
            return self._source.read(name, index)
        info = self.params.get(name) or self.slots[name]
        wanted, *part = index or (slice(None) for _ in info.shape)
        names = self._layers[name][wanted]
        # Filled layer by layer: no more than this and a layer's part is held.
        found = np.empty((len(names), *_cut(info.shape[1:], part)), info.dtype)
        for place, layer in enumerate(names):
            found[place] = self._source.read(layer, tuple(part))
        return found


def _cut(shape: tuple[int, ...], index: list[slice]) -> list[int]:
    """The shape of a part."""
    return [len(range(*cut.indices(size))) for cut, size in zip(index, shape, strict=True)]
