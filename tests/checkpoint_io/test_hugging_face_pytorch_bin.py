"""Damaged files of torch's own, where torch is installed; sound ones are read in the live tests."""

import pytest

from tests.checkpoint_io import folders

torch = pytest.importorskip("torch", reason="needs torch")


@pytest.fixture(name="path")
def _path(tmp_path):
    """pytorch_model.bin of a folder, not yet written."""
    folder = folders.write(tmp_path / "x")
    (folder / "model.safetensors").unlink()
    return folder / "pytorch_model.bin"


def _error(path):
    return folders.error(path.parent).removeprefix("FOLDER/pytorch_model.bin: ")


def test_a_file_that_isnt_torchs(path):
    path.write_bytes(b"GIF89a")
    assert _error(path) == (
        "not a file of torch, or one from before torch 1.6, which can't be read in parts; load and "
        "save it again with torch"
    )


def test_an_old_file(path):
    torch.save({"a": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)
    assert _error(path).startswith("not a file of torch, or one from before torch 1.6, ")


def test_a_truncated_file(path):
    torch.save({"a": torch.zeros(300)}, path)
    path.write_bytes(path.read_bytes()[:-100])
    message = _error(path)
    assert message.startswith("damaged (") and message.endswith("); fetch it again")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}])
def test_a_file_without_tensors(path, content):
    torch.save(content, path)
    assert _error(path) == "not a state_dict of tensors; save the model again"


def test_a_file_with_code(path):
    torch.save({"a": pytest.param}, path)
    assert _error(path).startswith("damaged (Weights only load failed")


def test_a_quantised_file(path):
    torch.save({"a": torch.zeros(3, dtype=torch.int8)}, path)
    assert _error(path) == (
        "the tensor a is stored as int8; float64, float32, float16, bfloat16 can be read: save the "
        "model again, not quantised"
    )
