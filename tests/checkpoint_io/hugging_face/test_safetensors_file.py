"""Safetensors files: what is written is read, whole and in part, and damage is named."""

import json

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poison_t5x.checkpoint_io.hugging_face import safetensors_file
from poison_t5x.checkpoint_io.source import TensorInfo
from poison_t5x.core.errors import InputError

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def _arrays():
    rng = np.random.default_rng(0)
    return {
        "odd": rng.normal(size=(3, 5)).astype(BFLOAT16),
        "cube": rng.normal(size=(2, 3, 5)).astype(np.float32),
        "wide": rng.normal(size=7).astype(np.float64),
        "half": rng.normal(size=(1, 3)).astype(np.float16),
        "number": np.array(2.5, np.float32),
        "nothing": np.zeros((0, 3), np.float32),
    }


def _write(path, arrays, infos=None):
    infos = infos or {n: TensorInfo(a.shape, a.dtype.name) for n, a in arrays.items()}
    with safetensors_file.Writer(path, infos) as writer:
        for name, array in arrays.items():
            writer.write(name, array)


@pytest.fixture(name="path")
def _path(tmp_path):
    path = tmp_path / "model.safetensors"
    _write(path, _arrays())
    return path


@pytest.fixture(name="small_blocks")
def _small_blocks(monkeypatch):
    """So that these small tensors are read and written in several blocks."""
    monkeypatch.setattr(safetensors_file, "_BLOCK_BYTES", 25)


def _error(path) -> str:
    with pytest.raises(InputError) as caught:
        safetensors_file.read_header(path)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


def _with_header(path, header, length=None, data=b""):
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(content) if length is None else length
    path.write_bytes(length.to_bytes(8, "little") + content + data)
    return path


def test_blocks():
    assert list(safetensors_file.blocks(0, 5, 6 * 2**20)) == [(0, 2), (2, 4), (4, 5)]
    assert list(safetensors_file.blocks(3, 5, 2**40)) == [(3, 4), (4, 5)]
    assert list(safetensors_file.blocks(2, 2, 7)) == []
    assert list(safetensors_file.blocks(0, 3, 0)) == [(0, 3)]


def test_written_is_read(path, small_blocks):
    entries = safetensors_file.read_header(path)
    assert entries.keys() == _arrays().keys()
    for name, array in _arrays().items():
        found = safetensors_file.read(path, entries[name])
        assert (found.shape, found.dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(found, array)


def test_the_file_is_as_the_format_has_it(path):
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    header = json.loads(content[8 : 8 + length])
    assert header.pop("__metadata__") == {"format": "pt"}
    assert header["odd"] == {"dtype": "BF16", "shape": [3, 5], "data_offsets": [180, 210]}
    # Wider dtypes first; the bytes without holes.
    assert list(header) == ["wide", "cube", "number", "nothing", "odd", "half"]
    offsets = [entry["data_offsets"] for entry in header.values()]
    assert [end for _, end in offsets[:-1]] == [start for start, _ in offsets[1:]]
    assert 8 + length + offsets[-1][1] == len(content)


@pytest.mark.parametrize("stored, written", [("float32", BFLOAT16), ("bfloat16", np.float32)])
def test_a_tensor_is_cast_and_transposed_as_it_is_written(tmp_path, small_blocks, stored, written):
    array = np.random.default_rng(1).normal(size=(7, 11)).astype(stored)
    path = tmp_path / "cast.safetensors"
    _write(path, {"kernel": array.T}, {"kernel": TensorInfo((11, 7), np.dtype(written).name)})
    found = safetensors_file.read(path, safetensors_file.read_header(path)["kernel"])
    assert found.tobytes() == array.T.astype(written).tobytes()


@settings(deadline=None)
@given(st.data())
def test_a_part_is_the_whole_sliced(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "parts.safetensors"
    array = np.arange(7 * 5 * 3, dtype=np.float32).reshape(7, 5, 3)
    if not path.exists():
        _write(path, {"before": np.ones(11, np.float32), "cube": array})
    index = tuple(data.draw(st.slices(size)) for size in array.shape)
    size = data.draw(st.sampled_from([1, 25, 100, 2**24]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(safetensors_file, "_BLOCK_BYTES", size)
        part = safetensors_file.read(path, safetensors_file.read_header(path)["cube"], index)
    np.testing.assert_array_equal(part, array[index])


@pytest.mark.parametrize("columns", [slice(None), slice(1, 3), slice(4, 2)])
@pytest.mark.parametrize("rows", [slice(2, 1), slice(3, 0), slice(1, 1), slice(9, 12)])
def test_a_part_without_rows_is_empty(path, rows, columns):
    entry = safetensors_file.read_header(path)["odd"]
    found = safetensors_file.read(path, entry, (rows, columns))
    assert found.shape == _arrays()["odd"][rows, columns].shape


def test_a_part_of_the_rows_reads_no_others(path, monkeypatch):
    counts = []
    read = np.fromfile

    def counted(file, dtype, count):
        counts.append(count)
        return read(file, dtype, count)

    monkeypatch.setattr(np, "fromfile", counted)
    entry = safetensors_file.read_header(path)["odd"]
    safetensors_file.read(path, entry, (slice(1, 2), slice(None)))
    safetensors_file.read(path, entry, (slice(1, 3), slice(2, 3)))
    assert counts == [5, 10]


def test_a_file_that_isnt_written_whole_isnt_there(tmp_path):
    path = tmp_path / "model.safetensors"
    infos = {"one": TensorInfo((3,), "float32"), "two": TensorInfo((5,), "float32")}
    with (
        pytest.raises(ValueError, match=r"not written: \['two'\]"),
        safetensors_file.Writer(path, infos) as writer,
    ):
        writer.write("one", np.ones(3, np.float32))
    with (
        pytest.raises(ValueError, match=r"two: announced with shape \(5,\), got \(3,\)"),
        safetensors_file.Writer(path, infos) as writer,
    ):
        writer.write("two", np.ones(3, np.float32))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "missing, message",
    [
        (1, "half of shape (1, 3) has 6 bytes, of which 5 are there"),
        (6 + 30, "odd of shape (3, 5) has 30 bytes, of which 0 are there"),
        (6 + 30 + 3, "number of shape () has 4 bytes, of which 1 are there"),
        (6 + 30 + 4 + 1, "cube of shape (2, 3, 5) has 120 bytes, of which 119 are there"),
    ],
)
def test_the_first_tensor_that_is_cut_off_is_named(path, missing, message):
    path.write_bytes(path.read_bytes()[:-missing])
    assert _error(path) == f"truncated: the tensor {message}; fetch the file again"


def test_a_file_that_is_cut_off_while_it_is_read(path):
    entry = safetensors_file.read_header(path)["odd"]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"truncated: the tensor odd .* of which 16 are there"):
        safetensors_file.read(path, entry)
    path.unlink()
    with pytest.raises(InputError, match="the tensor odd can't be read"):
        safetensors_file.read(path, entry)


@pytest.mark.parametrize("content", [b"", b"short", b"GIF89a, an image", b"\x00" * 64])
def test_what_isnt_such_a_file(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert _error(path).startswith("not a safetensors file, or cut off within its header (")


def test_a_header_that_isnt_json(tmp_path):
    message = _error(_with_header(tmp_path / "x", b"{'name': 1}"))
    assert message.startswith("not a safetensors file, or a damaged one (")


def test_a_git_lfs_pointer(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    message = "a Git LFS pointer in the file's place; run `git lfs pull` in its folder"
    assert _error(path) == message


@pytest.mark.parametrize(
    "entry, message",
    [
        ({"dtype": "F32", "shape": [2]}, "the header's entry of a.b is damaged ("),
        (
            {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]},
            "the header's entry of a.b is damaged (a negative number)",
        ),
        (
            {"dtype": "I8", "shape": [2], "data_offsets": [0, 2]},
            "the tensor a.b is stored as I8; F64, F32, F16, BF16 can be read: save the model "
            "again, not quantised",
        ),
        (
            {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 23]},
            "the tensor a.b of shape (2, 3) and dtype F32 has 24 bytes, and the header gives it "
            "23; fetch the file again",
        ),
    ],
)
def test_a_damaged_entry_is_named(tmp_path, entry, message):
    path = _with_header(tmp_path / "x", {"a.b": entry}, data=b"\0" * 100)
    assert _error(path).startswith(message)


def test_a_missing_file(tmp_path):
    assert _error(tmp_path / "x") == "can't be read (No such file or directory)"


def test_the_formats_own_library_reads_what_we_write(path):
    library = pytest.importorskip("safetensors.numpy", reason="needs safetensors")
    found = library.load_file(path)
    assert found.keys() == _arrays().keys()
    for name, array in _arrays().items():
        assert found[name].tobytes() == array.tobytes() and found[name].shape == array.shape


def test_we_read_what_the_formats_own_library_writes(tmp_path):
    library = pytest.importorskip("safetensors.numpy", reason="needs safetensors")
    path = tmp_path / "theirs.safetensors"
    arrays = {name: array for name, array in _arrays().items() if array.dtype != BFLOAT16}
    library.save_file(arrays, path, {"format": "np"})
    entries = safetensors_file.read_header(path)
    assert entries.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(safetensors_file.read(path, entries[name]), array)
