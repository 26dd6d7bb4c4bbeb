"""What every layout of a checkpoint is read as: named tensors, each read alone and in part."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np

Index = tuple[slice, ...]


class TensorInfo(NamedTuple):
    """A tensor that hasn't been read.

    Attributes:
      shape: as it is read, under T5X's axis order.
      dtype: a numpy name such as 'float32', or 'bfloat16'.
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor as it is stored."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


class Source(Protocol):
    """A checkpoint on disk or in a bucket, its tensors under T5X's parameter paths.

    Attributes:
      path: where it is, for messages.
      layout: what it is, for messages: 'a T5X checkpoint', 'a Hugging Face folder', …
      params: 'encoder/layers_0/mlp/wo/kernel' -> its shape and dtype.
      slots: of the optimiser's state, 'v_row/encoder/layers_0/mlp/wo/kernel' and so on, the slot's
        name before the parameter's, and 'count', int32 (), the updates that they have seen; empty
        where there is none.
      optimizer: 'adamw' or 'adafactor', which the slots belong to; None without slots.
      step: optimiser steps that the checkpoint has seen; 0 where it doesn't say.
      network: fields of `T5Config` that shapes don't tell, such as 'mlp_activations', as far as
        the checkpoint states them.
    """

    path: str
    layout: str
    params: Mapping[str, TensorInfo]
    slots: Mapping[str, TensorInfo]
    optimizer: str | None
    step: int
    network: Mapping[str, object]

    def read(self, name: str, index: Index | None = None) -> np.ndarray:
        """One tensor of `params` or `slots`, or a part of it, in its stored dtype.

        Args:
          name: of the tensor.
          index: one slice an axis, or None for all.

        Raises:
          InputError: the tensor's bytes aren't all there, or damaged; it names the tensor.
        """
        ...
