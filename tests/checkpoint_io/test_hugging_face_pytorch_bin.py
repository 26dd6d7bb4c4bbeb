"""Damaged files of torch's own, where torch is installed; sound ones are read in the live tests."""

import pytest

from tests.checkpoint_io import folders

torch = pytest.importorskip("torch", reason="needs torch")


def _written(path, content, **settings) -> bytes:
    torch.save(content, path, **settings)
    return path.read_bytes()


OLD = "not a file of torch, or one from before torch 1.6, which can't be read in parts; load and "
NO_TENSORS = "not a state_dict of tensors; save the model again"


@pytest.mark.parametrize(
    ("write", "begin", "end"),
    [
        (lambda path: b"GIF89a", OLD, "save it again with torch"),
        (
            lambda path: _written(path, {"a": 1}, _use_new_zipfile_serialization=False),
            OLD,
            "save it again with torch",
        ),
        (
            lambda path: _written(path, {"a": torch.zeros(300)})[:-100],
            "damaged (",
            "fetch it again",
        ),
        (lambda path: _written(path, [1, 2]), NO_TENSORS, ""),
        (lambda path: _written(path, {"epoch": 3}), NO_TENSORS, ""),
        # A file with code in it.
        (lambda path: _written(path, {"a": pytest.param}), "damaged (Weights only load failed", ""),
        (
            lambda path: _written(path, {"a": torch.zeros(3, dtype=torch.int8)}),
            "the tensor a is stored as int8; float64, float32, float16, bfloat16 can be read",
            ": save the model again, not quantised",
        ),
    ],
    ids=["none", "old", "truncated", "list", "numbers", "code", "quantised"],
)
def test_files_that_cant_be_read(tmp_path, write, begin, end):
    folder = folders.write(tmp_path / "x")
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    path.write_bytes(write(path))
    message = folders.error(folder).removeprefix("FOLDER/pytorch_model.bin: ")
    assert message.startswith(begin) and message.endswith(end)
