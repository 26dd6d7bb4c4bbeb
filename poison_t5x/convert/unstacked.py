"""T5X checkpoints of scanned layers (`t5x.examples.scalable_t5`), seen layer by layer.

There a stack's layers are one parameter each, 'encoder/encoder/mlp/wo/kernel', with the layers as
its second axis. The optimiser's state isn't taken along: its moments span layers.
"""

import numpy as np

from poison_t5x.convert.source import Index, Source, TensorInfo

_STACKS = {"encoder/encoder/": "encoder", "decoder/decoder/": "decoder"}
_AXIS = 1  # of the layers


def is_stacked(source: Source) -> bool:
    """Whether a checkpoint's layers are stacked."""
    return any(name.startswith(tuple(_STACKS)) for name in source.params)


class Unstacked:
    """A `Source` of one parameter a layer over one of stacked layers."""

    def __init__(self, source: Source):
        self._source = source
        self.path, self.step, self.network = source.path, source.step, source.network
        self.layout = f"{source.layout} with stacked layers"
        self.optimizer: str | None = None
        self.slots: dict[str, TensorInfo] = {}
        self.params: dict[str, TensorInfo] = {}
        self._places: dict[str, tuple[str, int | None]] = {}
        for name, info in source.params.items():
            stack = next((prefix for prefix in _STACKS if name.startswith(prefix)), None)
            if stack is None or len(info.shape) <= _AXIS:
                self._add(name, info, name, None)
                continue
            shape = info.shape[:_AXIS] + info.shape[_AXIS + 1 :]
            for layer in range(info.shape[_AXIS]):
                alone = f"{_STACKS[stack]}/layers_{layer}/{name.removeprefix(stack)}"
                self._add(alone, TensorInfo(shape, info.dtype), name, layer)

    def _add(self, name: str, info: TensorInfo, place: str, layer: int | None) -> None:
        self.params[name] = info
        self._places[name] = (place, layer)

    def read(self, name: str, index: Index | None = None) -> np.ndarray:
        """A tensor, or a part of it; see `Source.read`."""
        place, layer = self._places[name]
        if layer is None:
            return self._source.read(place, index)
        inner = index or (slice(None),) * len(self.params[name].shape)
        whole = (*inner[:_AXIS], slice(layer, layer + 1), *inner[_AXIS:])
        return self._source.read(place, whole).squeeze(_AXIS)
