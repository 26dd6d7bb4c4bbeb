"""The one door for files: what comes in is of its type, and nothing is read beside it."""

import ast
import os
import pathlib
from typing import Any

import msgspec
import pytest

from poison_t5x.core import errors, reading
from poison_t5x.core.settings import Number, Whole

PACKAGE = pathlib.Path(reading.__file__).parents[1]
# Calls that read, by their last name; `open` where it isn't told to write.
READS = {"open", "read_text", "read_bytes", "loads", "fromfile", "memmap"}
DECODERS = {"msgspec.json.decode", "msgspec.json.Decoder"}
LOADERS = {"json", "np", "pickle", "torch"}
DOORS = {"reading", "run_files", "gin_macros"}
# module -> why it reads past the door.
ALLOWED = {
    "core.reading": "it is the door",
    "core.artifacts": "JSON that it has just made itself",
    "core.locks": "its own locks, which others hold",
    "core.machine": "the system's files",
    "core.registry": "this package's modules",
    "core.streams": "descriptors, not files",
    "checkpoint_io.storage": "TensorStore's stores",
    "checkpoint_io.t5x_layouts": "TensorStore's arrays, whose files were looked at",
    "checkpoint_io.hugging_face_reading": "torch's files, which were looked at",
    "corpus.data_files": "instruction data of unknown origin, whose rows it judges alone",
    "tools.doctor": "a process's output",
    "train.distributed": "messages of other processes",
    "train.program": "the null device",
}


def _reads(text: str) -> list[str]:
    """The calls of a module that read a file or decode one."""
    found = []
    for call in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)):
        owner, name = None, getattr(call.func, "id", "")
        if isinstance(call.func, ast.Attribute):
            owner, name = getattr(call.func.value, "id", ""), call.func.attr
        told = [one.value for one in call.args if isinstance(one, ast.Constant)]
        writes = any(isinstance(mode, str) and mode[:1] in ("w", "a", "x") for mode in told)
        is_read = name in READS and owner not in DOORS and not (name == "open" and writes)
        is_load = name == "load" and owner in LOADERS
        if is_read or is_load or ast.unparse(call.func) in DECODERS:
            found.append(ast.unparse(call.func))
    return found


def test_reads_are_found_however_they_are_written():
    assert _reads("open(path)\npath.open()\nnp.load(path)\njson.loads(path.read_text())") == [
        *("open", "path.open", "np.load", "json.loads", "path.read_text")
    ]
    assert _reads("open(path, 'wb')\nreading.read_text(path)\npath.open('a')") == []


def test_nothing_is_read_past_the_door():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        there = _reads(path.read_text(encoding="utf-8"))
        if name not in ALLOWED:
            assert not there, f"poison_t5x.{name} calls {there}: read through core/reading.py"
        assert name not in ALLOWED or there, f"{name} needs no exception any more"


class Row(msgspec.Struct):
    name: reading.Name
    count: Whole
    share: Number | None = None


def _refusal(function, *args) -> str:
    with pytest.raises(errors.InputError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


GOOD = b'{"name": "a-1", "count": 3, "share": 0.5, "odd": [{}]}'
BAD = {
    b"": "can't be read",
    b"\xff": "can't be read",
    b'{"name": "\xff", "count": 3}': "can't be read",
    b'{"odd": ' + b"[" * 100_000: "can't be read (nested too deep)",
    b'{"name": "\\ud800", "count": 3}': "can't be read (half a character in a text)",
    b'{"\\ud800": 1, "name": "a", "count": NaN}': "can't be read (half a character in a text)",
    b'{"name": "a", "count": ' + b"9" * 5000 + b"}": "$.count: ",
    b'{"name": "a", "count": 1000000000000000000000000000000}': "$.count: expected `int` <= 2147",
    b'{"name": "a", "count": -1}': "$.count: expected `int` >= 0",
    b'{"name": "a", "count": true}': "$.count: expected `int`, got `bool`",
    b'{"name": "a", "count": NaN}': "$.count: expected `int`, got `null`",
    b'{"name": "a", "count": 1, "share": 1e400}': "$.share: number out of range",
    b'{"name": "a", "count": 1, "share": 1e31}': "$.share: expected `float` <= 1e+30",
    b'{"name": "../a", "count": 1}': "$.name: expected a name",
    b'{"count": 1}': "$: object missing required field `name`",
    b"[]": "$: expected `object`, got `array`",
}


@pytest.mark.parametrize("content", BAD, ids=lambda content: content[:40].decode("latin-1"))
def test_what_is_no_row_is_named(tmp_path, content):
    (tmp_path / "row.json").write_bytes(content)
    said = _refusal(reading.read_json, tmp_path / "row.json", Row)
    assert said.startswith(f"{tmp_path / 'row.json'}: {BAD[content]}")
    (tmp_path / "rows.jsonl").write_bytes(GOOD + b"\n\n" + content.replace(b"\n", b" ") + b"\n")
    if content:
        said = _refusal(reading.read_jsonl, tmp_path / "rows.jsonl", Row)
        assert said.startswith(f"{tmp_path / 'rows.jsonl'}:3: {BAD[content]}")


def test_what_json_has_not_is_null(tmp_path):
    (tmp_path / "row.json").write_text('{"name": "a", "count": 1, "share": -Infinity, "x": NaN}')
    row = reading.read_json(tmp_path / "row.json", Row)
    assert (row.count, row.share) == (1, None)
    assert reading.read_json(tmp_path / "row.json")["x"] is None


def test_any_json_is_as_deep_as_it_can_be_written_again():
    deep = "[" * 62 + "]" * 62
    kind = dict[str, Any]
    assert reading.decode(f'{{"a": {deep}}}', kind, "x")["a"]
    assert "nested too deep" in _refusal(reading.decode, f'{{"a": [[{deep}]]}}', kind, "x")


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    for name, found in {
        "fifo": "(expected a file, found a device or a pipe)",
        "zero": "(expected a file, found a device or a pipe)",
        "folder": "(expected a file, found a folder)",
        "loop": "(Too many levels of symbolic links)",
        "none": "(No such file or directory)",
    }.items():
        for read in (reading.read_bytes, reading.read_text, reading.check_file):
            assert _refusal(read, tmp_path / name) == f"{tmp_path / name}: can't be read {found}"


def test_a_file_has_a_limit(tmp_path):
    (tmp_path / "file").write_bytes(b"12345\n" * 2)
    assert "at most 4 bytes" in _refusal(reading.read_bytes, tmp_path / "file", 4)
    assert [line for _, line in reading.lines(tmp_path / "file", 6)] == [b"12345\n"] * 2
    assert "file:1: a line of over 5 bytes" in _refusal(list, reading.lines(tmp_path / "file", 5))
