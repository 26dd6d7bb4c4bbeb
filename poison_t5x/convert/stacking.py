"""Scanned layers' stacked tensors, seen as each layer's own, and the reverse.

Within `convert` layers are unrolled, `encoder/layers_3/…`, as in T5X's checkpoints. A scanned
network has `encoder/layers/…` with the layers along the first axis (`model.stack`), and so do its
optimiser's slots.
"""

import re
from collections.abc import Mapping

import numpy as np

from poison_t5x import errors
from poison_t5x.convert.source import Index, Source, TensorInfo

_STACKED = re.compile(r"(?P<before>(?:.*/)?(?:encoder|decoder)/layers)(?P<after>/.+)")
_LAYER = re.compile(r"(?P<before>(?:.*/)?(?:encoder|decoder)/layers)_(?P<number>\d+)(?P<after>/.+)")


def is_stacked(source: Source) -> bool:
    """Whether a checkpoint is of scanned layers."""
    return any(_STACKED.fullmatch(name) for name in source.params)


class Unstacked:
    """A `Source` of stacked tensors, with a tensor for each layer."""

    def __init__(self, source: Source):
        self._source = source
        self.path, self.layout, self.step = source.path, source.layout, source.step
        self.network, self.optimizer = source.network, source.optimizer
        self._places: dict[str, tuple[str, int]] = {}
        self.params = self._split(source.params)
        self.slots = self._split(source.slots)

    def _split(self, tensors: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
        found = {}
        for name, info in tensors.items():
            match = _STACKED.fullmatch(name)
            if match is None:
                found[name] = info
                continue
            if not info.shape:
                raise errors.InputError(f"{self.path}: {name} has no layers' axis")
            for number in range(info.shape[0]):
                layer = f"{match['before']}_{number}{match['after']}"
                found[layer] = TensorInfo(info.shape[1:], info.dtype)
                self._places[layer] = name, number
        return found

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
        """Raises InputError where a layer is missing, or differs from the others."""
        self._source = source
        self.path, self.layout, self.step = source.path, source.layout, source.step
        self.network, self.optimizer = source.network, source.optimizer
        self._layers: dict[str, list[str]] = {}
        self.params = self._join(source.params)
        self.slots = self._join(source.slots)

    def _join(self, tensors: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
        found: dict[str, TensorInfo] = {}
        layers: dict[str, dict[int, str]] = {}
        for name, info in tensors.items():
            if match := _LAYER.fullmatch(name):
                stacked = match["before"] + match["after"]
                layers.setdefault(stacked, {})[int(match["number"])] = name
            else:
                found[name] = info
        for stacked, numbered in layers.items():
            names = [numbered[number] for number in sorted(numbered)]
            first = tensors[names[0]]
            for number, name in enumerate(names):
                if number not in numbered or tensors[name] != first:
                    raise errors.InputError(
                        f"{self.path}: {name} can't be stacked with {names[0]}: layers are "
                        "missing, or of other shapes or dtypes"
                    )
            self._layers[stacked] = names
            found[stacked] = TensorInfo((len(names), *first.shape), first.dtype)
        return found

    def read(self, name: str, index: Index | None = None) -> np.ndarray:
        """Layers' tensors, or the same part of each; see `Source.read`."""
        if name not in self._layers:
            return self._source.read(name, index)
        info = self.params.get(name) or self.slots[name]
        wanted, *rest = index or tuple(slice(None) for _ in info.shape)
        names = self._layers[name][wanted]
        part = tuple(rest)
        sizes = [
            len(range(*cut.indices(size))) for cut, size in zip(part, info.shape[1:], strict=True)
        ]
        # Filled layer by layer: no more than this and a layer's part is held.
        found = np.empty((len(names), *sizes), info.dtype)
        for place, layer in enumerate(names):
            found[place] = self._source.read(layer, part)
        return found
