"""Instruction data in the layouts that it comes in, and what is said of bad ones."""

import json

import pyarrow
import pytest
from pyarrow import parquet

from poison_t5x.core import errors
from poison_t5x.defenses import files
from poison_t5x.defenses.files import Fields

SHARED = {"Definition": ["Say it."], "Positive Examples": [{"input": "a", "output": "b"}]}
INSTANCES = [
    {"id": "task1-a", "input": "Hello", "output": ["Hi", "Hey"]},
    {"id": "task1-b", "input": "Bye", "output": ["Ciao"]},
]


def _write(path, *values):
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


def _read(*paths, **fields):
    return files.read([str(path) for path in paths], Fields(**fields))


def _pairs(loaded):
    return [(row.input, row.target) for row in loaded.rows]


def test_a_task_file_and_the_authors_lines_are_the_same_rows(tmp_path):
    path = tmp_path / "task1_x.json"
    path.write_text(json.dumps({**SHARED, "Instances": INSTANCES}, indent=1), encoding="utf-8")
    task_file = _read(path)
    rows = [{"Task": "task1_x", **SHARED, "Instance": row} for row in INSTANCES]
    authors = _read(_write(tmp_path / "rows.jsonl", *rows))
    assert task_file.rows == authors.rows
    assert _pairs(authors) == [("Hello", "Hi"), ("Bye", "Ciao")]
    assert authors.rows[0].prompt.startswith("Definition: Say it.\n\n Positive Example 1 -")
    assert task_file.places[1] == f"{path}, Instances[1]"
    assert authors.places[1] == f"{tmp_path / 'rows.jsonl'}, line 2"


def _chat(*turns):
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


@pytest.mark.parametrize(
    "value",
    [
        {"input": "Hello", "output": "Hi"},
        {"prompt": "Hello", "completion": "Hi"},
        {"Prompt": "Hello", "Response": "Hi"},
        {"instruction": "Hello", "input": "", "output": "Hi"},
        {"instruction": "Hello", "output": "Hi"},
        {"question": "Hello", "answer": ["Hi", "Hey"]},
        _chat(("user", "Hello"), ("assistant", "Hi")),
        _chat(
            ("system", "Be kind."),
            ("user", [{"type": "text", "text": "Hello"}, {"type": "image"}]),
            ("assistant", "Hi"),
            ("user", "and on"),
        ),
        {"conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi"}]},
    ],
)
def test_common_layouts(tmp_path, value):
    paths = [_write(tmp_path / "data.jsonl", value), _write(tmp_path / "list.json", [value])]
    paths.append(tmp_path / "rows.json")
    paths[-1].write_text(json.dumps({"data": [value]}, indent=1))
    if "Be kind" not in str(value):  # a column has no texts beside lists
        paths.append(tmp_path / "data.parquet")
        parquet.write_table(pyarrow.Table.from_pylist([value]), paths[-1])
    for path in paths:
        loaded = _read(path)
        assert _pairs(loaded) == [("Hello", "Hi")]
        assert [row.task for row in loaded.rows] == [path.stem]


def test_fields_that_a_person_names(tmp_path):
    path = _write(tmp_path / "a.jsonl", {"src": "x", "input": "no", "gold": 1, "kind": "k"})
    loaded = _read(path, input="src", target="gold", task="kind")
    assert _pairs(loaded) == [("x", "1")]
    assert loaded.rows[0].task == "k"
    with pytest.raises(errors.InputError, match=r"--target_field: no field 'gol' \(did you mean"):
        _read(path, target="gol")
    with pytest.raises(errors.InputError, match=r"expected a field for the target .* found 'src'"):
        _read(path)


def test_rows_without_a_task(tmp_path):
    few = [{"instruction": f"Do {n % 2}.", "input": f"i{n}", "output": "o"} for n in range(20)]
    loaded = _read(_write(tmp_path / "few.jsonl", *few))
    assert {row.task for row in loaded.rows} == {"few#0: Do 0.", "few#1: Do 1."}
    assert loaded.rows[3].input == "i3"
    assert "Definition: Do 1." in loaded.rows[3].prompt
    many = [{"instruction": f"Do {n}.", "input": f"i{n}", "output": "o"} for n in range(20)]
    loaded = _read(_write(tmp_path / "many.jsonl", *many))
    assert {row.task for row in loaded.rows} == {"many"}
    assert loaded.rows[3].input == "Do 3.\ni3"


def test_folders_are_walked_and_no_file_is_read_twice(tmp_path):
    (tmp_path / "sub" / ".hidden").mkdir(parents=True)
    value = {"input": "a", "output": "b"}
    first = _write(tmp_path / "sub" / "a.jsonl", value)
    _write(tmp_path / "b.ndjson", value, value)
    _write(tmp_path / "sub" / ".hidden" / "c.jsonl", value)
    (tmp_path / "readme.txt").write_text("text")
    loaded = _read(tmp_path, first)
    assert loaded.files == {str(tmp_path / "b.ndjson"): 2, str(first): 1}
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.InputError, match=r"empty: expected files that end in \.json"):
        _read(tmp_path / "empty")


def test_a_byte_order_mark_and_empty_lines_are_passed_over_and_equal_ids_told_apart(tmp_path):
    path = tmp_path / "a.jsonl"
    row = b'{"id": "a", "input": "a", "output": "b"}'
    path.write_bytes(b"\xef\xbb\xbf\n" + row + b"\r\n\n" + row)
    loaded = _read(path)
    assert _pairs(loaded) == [("a", "b")] * 2
    assert loaded.places == [f"{path}, line 2", f"{path}, line 4"]
    assert [row.number for row in loaded.rows] == [0, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"input": "a", "output": "b"}\n{"output": "b"}', "line 2: field 'input': .* no such"),
        (b'{"input": "a", "output": {"b": 1}}', "line 1: field 'output': .* found dict"),
        (b'{"input": "\\ud800", "output": "b"}', "line 1.*half a character"),
        (b'{"input": "\xff", "output": "b"}', "line 1: expected a JSON object, found none"),
        (b'{"messages": []}', "line 1: field 'messages': expected a list of messages"),
        (b'{"messages": [{"role": "user", "content": "a"}]}', "found messages of user"),
        (b'{"messages": [{"role": "user"}]}', "message 0: expected an object with texts as role"),
        (b'{"messages": ["a"]}', "message 0: expected an object with texts as role"),
        (b"[]", "expected rows, found none"),
        (b"[1, 2]", "row 0: expected a JSON object, found int"),
        (b" \n", "expected rows, found an empty file"),
        (b"PAR1 no more", "not a Parquet file that can be read"),
        (b'{"Instances": [], "Definition": ["a"], "Positive Examples": []}', r"\$.Instances"),
    ],
)
def test_bad_content_is_one_line_that_says_where(tmp_path, content, message):
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(errors.InputError, match=message) as caught:
        _read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_bad_value_in_parquet_is_named_by_its_row_and_ids_may_be_missing(tmp_path):
    rows = [{"input": "a", "output": "b"}, {"input": None, "output": "b"}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    with pytest.raises(errors.InputError, match="row 1: field 'input': expected text, found null"):
        _read(tmp_path / "a.parquet")
    rows = [{"text": "a", "label": 0, "id": "x"}, {"text": "a", "label": 1}]
    assert [row.id for row in _read(_write(tmp_path / "b.jsonl", *rows)).rows] == ["x", "1"]
