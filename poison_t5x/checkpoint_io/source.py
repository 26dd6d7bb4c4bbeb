"""Named tensors, each read alone and in part: every layout of a checkpoint is read as this.

Layers are unrolled here, `encoder/layers_3/…`, as in T5X's checkpoints. A scanned network has
`encoder/layers/…` with the layers along the first axis (`model.stack`), and so do its optimiser's
slots: `stacked` and `unstacked` are views of one as the other.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from poison_t5x.core import errors

Index = tuple[slice, ...]
_STACKED = re.compile(r"((?:.*/)?(?:encoder|decoder)/layers)(/.+)")
_LAYER = re.compile(r"((?:.*/)?(?:encoder|decoder)/layers)_(\d+)(/.+)")


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor that is read when it is wanted.

    Attributes:
      shape: in T5X's axis order.
      dtype: numpy's name of it as it is stored.
      read_part: the part that a slice an axis asks for; raises InputError, naming the tensor,
        where its bytes aren't all there, or damaged.
    """

    shape: tuple[int, ...]
    dtype: str
    read_part: Callable[[Index], np.ndarray]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor as it is stored."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def read(self, index: Index | None = None) -> np.ndarray:
        """The tensor, or a part of it."""
        return self.read_part((slice(None),) * len(self.shape) if index is None else index)

    def cast(self, dtype: str) -> "Tensor":
        """In another dtype."""
        return Tensor(self.shape, dtype, lambda i: self.read_part(i).astype(dtype, copy=False))

    def transposed(self) -> "Tensor":
        """With its axes the other way round."""
        return Tensor(self.shape[::-1], self.dtype, lambda index: self.read_part(index[::-1]).T)


def in_memory(array: np.ndarray) -> Tensor:
    """An array as a tensor."""
    return Tensor(array.shape, array.dtype.name, lambda index: np.asarray(array[index]))


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
    params: Mapping[str, Tensor]
    slots: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    optimizer: str | None = None
    step: int = 0
    network: Mapping[str, object] = dataclasses.field(default_factory=dict)

    def read(self, name: str, index: Index | None = None) -> np.ndarray:
        """A parameter or a slot, or a part of it, in its stored dtype."""
        return (self.params.get(name) or self.slots[name]).read(index)


def cast(source: Source, dtype: str) -> Source:
    """The source with its parameters in another dtype; the optimiser's state keeps its own."""
    params = {name: tensor.cast(dtype) for name, tensor in source.params.items()}
    return dataclasses.replace(source, params=params)


def unstacked(source: Source) -> Source:
    """The source with a tensor for each layer in the place of stacked ones, if it has such."""

    def layer(stack: Tensor, number: int) -> Tensor:
        place = slice(number, number + 1)
        return Tensor(stack.shape[1:], stack.dtype, lambda i: stack.read_part((place, *i))[0])

    def split(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        layers = dict(tensors)
        for name, stack in tensors.items():
            if stack.shape and (match := _STACKED.fullmatch(name)):
                del layers[name]
                for number in range(stack.shape[0]):
                    one = f"{match[1]}_{number}{match[2]}"
                    if one in tensors:
                        raise errors.InputError(f"{source.path}: has both {one} and {name}")
                    layers[one] = layer(stack, number)
        return layers

    return dataclasses.replace(source, params=split(source.params), slots=split(source.slots))


def stacked(source: Source) -> Source:
    """The source with one tensor for all layers of a kind.

    Raises InputError, naming the tensor, where a layer is missing, or unlike the others.
    """

    def join(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        joined: dict[str, Tensor] = {}
        kinds: dict[tuple[str, str], dict[int, Tensor]] = {}
        for name, tensor in tensors.items():
            if match := _LAYER.fullmatch(name):
                kinds.setdefault((match[1], match[3]), {})[int(match[2])] = tensor
            else:
                joined[name] = tensor
        for (before, after), layers in kinds.items():
            last = layers[max(layers)]
            for number in range(max(layers)):
                one = layers.get(number)
                if one is None or (one.shape, one.dtype) != (last.shape, last.dtype):
                    state = f"is {one.dtype} {one.shape}" if one else "isn't there"
                    raise errors.InputError(
                        f"{source.path}: {before}_{number}{after} {state}, and that of layer "
                        f"{max(layers)} is {last.dtype} {last.shape}; layers that are scanned have "
                        "to be alike: get the whole checkpoint, or set SCAN_LAYERS=False"
                    )
            joined[before + after] = _stack([layers[number] for number in sorted(layers)])
        return joined

    return dataclasses.replace(source, params=join(source.params), slots=join(source.slots))


def _stack(layers: Sequence[Tensor]) -> Tensor:
    shape, dtype = layers[0].shape, layers[0].dtype

    def read(index: Index) -> np.ndarray:
        chosen, part = layers[index[0]], index[1:]
        sizes = [len(range(*cut.indices(n))) for cut, n in zip(part, shape, strict=True)]
        # Filled layer by layer: no more than this and a layer's part is held.
        array = np.empty((len(chosen), *sizes), dtype)
        for place, layer in enumerate(chosen):
            array[place] = layer.read_part(part)
        return array

    return Tensor((len(layers), *shape), dtype, read)
