"""The tensors of torch's own files, pytorch_model.bin, one at a time; needs torch.

A file is mapped and unpickled anew for each tensor, which takes milliseconds, so that what was
read before doesn't stay resident.
"""

import pathlib
import pickle

import ml_dtypes
import numpy as np

from poison_t5x.checkpoint_io.hugging_face import safetensors_file
from poison_t5x.checkpoint_io.source import Index, TensorInfo
from poison_t5x.core import errors

_DTYPES = ("float32", "bfloat16", "float16", "float64")
_ZIP = b"PK"


def tensors(path: pathlib.Path) -> dict[str, TensorInfo]:
    """Name -> shape and dtype.

    Raises:
      InputError: torch isn't installed, or the file is damaged or holds other than floats.
    """
    found = {}
    for name, tensor in _load(path).items():
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype not in _DTYPES:
            raise errors.InputError(
                f"{path}: the tensor {name} is stored as {dtype}; {', '.join(_DTYPES)} can be "
                "read: save the model again, not quantised"
            )
        found[name] = TensorInfo(tuple(tensor.shape), dtype)
    return found


def read(path: pathlib.Path, name: str, index: Index | None = None) -> np.ndarray:
    """A tensor, or the part that `index` (a slice an axis) asks for, in its stored dtype."""
    import torch

    tensor = _load(path)[name]
    if index is not None:
        tensor = tensor[index]
    if tensor.dtype == torch.bfloat16:  # NumPy has none of its own
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16).copy()
    return tensor.numpy().copy()


def _load(path: pathlib.Path) -> dict:
    try:
        with open(path, "rb") as file:
            start = file.read(32)
    except OSError as error:
        raise errors.InputError(f"{path}: can't be read ({error.strerror})") from None
    safetensors_file.check_is_no_pointer(path, start)
    try:
        import torch
    except ImportError:
        raise errors.InputError(
            f"{path}: weights in torch's own format, and torch isn't installed; install it, or "
            "save the folder again as safetensors (save_pretrained does)"
        ) from None
    if not start.startswith(_ZIP):
        raise errors.InputError(
            f"{path}: not a file of torch, or one from before torch 1.6, which can't be read in "
            "parts; load and save it again with torch"
        )
    try:
        # Only tensors are unpickled, never code.
        found = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise errors.InputError(f"{path}: damaged ({reason}); fetch it again") from None
    if not isinstance(found, dict) or not all(
        isinstance(tensor, torch.Tensor) for tensor in found.values()
    ):
        raise errors.InputError(f"{path}: not a state_dict of tensors; save the model again")
    return found
