"""Instruction data in the files and layouts that it comes in, and what is said of bad ones."""

import bz2
import csv
import gzip
import json
import lzma
import os
import warnings

import pyarrow
import pytest
from pyarrow import ipc, parquet

from poison_t5x.core import errors
from poison_t5x.corpus import instruction_files, row_layouts
from poison_t5x.corpus.row_layouts import Fields

ROWS = [{"input": f"i{n}\nü", "output": f"o{n}, '\"'"} for n in range(3)]
PAIRS = [(row["input"], row["output"]) for row in ROWS]
TASK = {"Definition": ["Say it."], "Positive Examples": [{"input": "a", "output": "b"}]}
INSTANCES = [
    {"id": "task1-a", "input": "Hello", "output": ["Hi", "Hey"]},
    {"id": "task1-b", "input": "Bye", "output": ["Ciao"]},
]


def _lines(rows, end="\n"):
    return end.join(json.dumps(row, ensure_ascii=False) for row in rows)


def _read(*paths, **fields):
    return instruction_files.read([str(path) for path in paths], Fields(**fields))


def _pairs(loaded):
    return [(row.input, row.target) for row in loaded.rows]


def _write(path, *values):
    path.write_text(_lines(values), encoding="utf-8")
    return path


def _arrow(path, rows, make):
    table = pyarrow.Table.from_pylist(rows)
    with make(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def _table(path, rows, delimiter):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ROWS[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


COLUMNS = {key: [row[key] for row in ROWS] for key in ROWS[0]}
TEXT = _lines(ROWS).encode()
CONTENTS = {
    "lines": TEXT,
    "bom": b"\xef\xbb\xbf\n" + TEXT.replace(b"\n", b"\r\n\r\n"),
    "bom within": TEXT.replace(b"\n", b"\n\xef\xbb\xbf"),
    "bom and carriage returns": b"\xef\xbb\xbf" + TEXT.replace(b"\n", b"\r"),
    "utf-16": _lines(ROWS).encode("utf-16"),
    "utf-16 without a mark": _lines(ROWS, "\r\n").encode("utf-16-be"),
    "utf-32": json.dumps(ROWS, indent=1).encode("utf-32"),
    "gz": gzip.compress(TEXT[:20]) + gzip.compress(TEXT[20:]),
    "bz2": bz2.compress(json.dumps(ROWS).encode()),
    "xz": lzma.compress(TEXT),
    "zst": pyarrow.compress(TEXT, "zstd", asbytes=True),
    "list": json.dumps(ROWS, indent=1).encode(),
    "list that is cut off": (json.dumps(ROWS)[:-1] + ', {"input": ["x').encode(),
    "splits": json.dumps({"train": ROWS[:1], "test": ROWS[1:]}, indent=1).encode(),
    "columns": json.dumps(COLUMNS).encode(),
    "splits of columns": json.dumps({"n": 3, "test": COLUMNS}).encode(),
    "pandas": json.dumps({k: dict(enumerate(v)) for k, v in COLUMNS.items()}).encode(),
    "rows by name": json.dumps({f"a{n}": row for n, row in enumerate(ROWS)}).encode(),
    "wrappers": json.dumps({"version": 1, "data": {"license": {}, "rows": ROWS}}).encode(),
    "objects": "\n".join(json.dumps(row, indent=1) for row in ROWS).encode(),
    "objects in one line": " ".join(map(json.dumps, ROWS)).encode(),
    "lists": "\n".join(json.dumps([row]) for row in ROWS).encode(),
    "pairs": json.dumps(PAIRS).encode(),
    "NaN": TEXT.replace(b'{"in', b'{"x": NaN, "y": "\\ud800", "in'),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_file_is_what_is_in_it(tmp_path, name):
    path = tmp_path / "data"
    path.write_bytes(CONTENTS[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if "cut" in name or "wrap" in name else "error")
        loaded = _read(path)
    assert _pairs(loaded) == PAIRS
    assert {row.task for row in loaded.rows} == {"data"}


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.csv", lambda path: _table(path, ROWS, ",")),
        ("a.tsv", lambda path: _table(path, ROWS, "\t")),
        ("a.parquet", lambda path: parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)),
        ("a.arrow", lambda path: _arrow(path, ROWS, ipc.new_stream)),
        ("b.arrow", lambda path: _arrow(path, ROWS, ipc.new_file)),
    ],
)
def test_tables(tmp_path, name, write):
    write(tmp_path / name)
    assert _pairs(_read(tmp_path / name)) == PAIRS


def test_tab_separated_pairs_without_a_header_may_hold_quotes(tmp_path):
    (tmp_path / "a.tsv").write_text('"Hi, he said\tyes\nBye "now"\tno\n')
    assert _pairs(_read(tmp_path / "a.tsv")) == [('"Hi, he said', "yes"), ('Bye "now"', "no")]


def test_a_task_file_and_the_authors_lines_are_the_same_rows(tmp_path):
    path = tmp_path / "task1_x.json"
    path.write_text(json.dumps({**TASK, "Instances": INSTANCES}, indent=1), encoding="utf-8")
    first, second = _read(path).rows
    lines = _write(
        tmp_path / "a.jsonl", *({"Task": "task1_x", **TASK, "Instance": row} for row in INSTANCES)
    )
    assert [row._replace(place="") for row in _read(lines).rows] == [
        first._replace(place=""),
        second._replace(place=""),
    ]
    assert first[:2] == ("Hello", "Hi") and (second.task, second.id) == ("task1_x", "task1-b")
    assert first.prompt.startswith("Definition: Say it.\n\n Positive Example 1 -")
    assert (second.place, _read(lines).rows[1].place) == (f"{path}:2", f"{lines}:2")


def _chat(*turns, role="role", text="content", name="messages"):
    return {name: [{role: who, text: said} for who, said in turns]}


HI = [("Hello", "Hi")]
PARTS = [{"type": "text", "text": "Hello"}, {"type": "image"}]
SHAREGPT = {"role": "from", "text": "value", "name": "conversations"}
HELLO = {"role": "user", "content": "Hello"}
SAID_HI = {"role": "assistant", "content": "Hi"}


@pytest.mark.parametrize(
    ("value", "pairs"),
    [
        ({"input": "Hello", "output": "Hi"}, HI),
        ({"Prompt": "Hello", "Response": "Hi", "input": None}, HI),
        ({"instruction": "Hello", "input": "", "output": "Hi"}, HI),
        ({"instruction": "Hello", "output": "Hi", "source": "gold"}, HI),
        ({"question": "Hello", "answer": ["Hi", "Hey"]}, HI),
        ({"question": "lo", "context": "Hel", "answers": {"text": ["Hi"]}}, [("Hel\nlo", "Hi")]),
        ({"instruction": "x", "context": "Hello", "response": "Hi"}, [("x\nHello", "Hi")]),
        ({"premise": "a", "hypothesis": "b", "label": 1}, [("b\na", "1")]),
        ({"source": "Hello", "target": "Hi"}, HI),
        ({"inputs": [1], "targets": [2], "inputs_pretokenized": "Hello"}
         | {"targets_pretokenized": "Hi"}, HI),
        ({"system": "s", "instruction": "Hello", "history": [["a", "b"], ["c", "d"]]}
         | {"output": "Hi"},
         [("s\na", "b"), ("s\na\nb\nc", "d"), ("s\na\nb\nc\nd\nHello", "Hi")]),
        (_chat(("user", PARTS), ("assistant", "Hi"), ("user", "on")), HI),
        (_chat(("system", "s"), ("human", "Hello"), ("chatgpt", "Hi"), ("human", "?"), ("gpt", "!"),
               **SHAREGPT), [("s\nHello", "Hi"), ("s\nHello\nHi\n?", "!")]),
        (_chat(("user", "Hello"), ("assistant", None), ("tool", "t"), ("assistant", "Hi")),
         [("Hello\nt", "Hi")]),
        ({"conversation": [{"human": "Hello", "assistant": "Hi"}]}, HI),
        ({"data": ["Hello", "Hi"]}, HI),
        ({"prompt": "Hello", "chosen": [HELLO, SAID_HI], "rejected": [HELLO]}, HI),
        ({"prompt": [HELLO], "completion": [SAID_HI]}, HI),
        ({"chosen": "\n\nHuman: Hello\n\nAssistant: Hi", "rejected": ""}, HI),
        ({"instruction": "Say", "instances": [{"input": "Hello", "output": "Hi"}]},
         [("Say\nHello", "Hi")]),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::poison_t5x.core.errors.InputWarning")
def test_common_layouts(tmp_path, value, pairs):
    paths = [_write(tmp_path / "data.jsonl", value), _write(tmp_path / "data.json", [value])]
    paths += [tmp_path / "object.json", tmp_path / "data.parquet"]
    paths[2].write_text(json.dumps(value, indent=1))
    try:
        parquet.write_table(pyarrow.Table.from_pylist([value]), paths[3])
    except pyarrow.ArrowException:  # a column has no texts beside lists
        paths.pop()
    for path in paths:
        assert _pairs(_read(path)) == pairs


def test_fields_are_each_rows_own(tmp_path):
    rows = [{"instruction": "a", "output": "b"}, {"instruction": "a", "input": "c", "output": "d"}]
    rows += [{"prompt": "e", "completion": "f"}, _chat(("user", "g"), ("assistant", "h"))]
    assert [row.target for row in _read(_write(tmp_path / "a.jsonl", *rows)).rows] == list("bdfh")


def test_fields_that_a_person_names(tmp_path):
    path = _write(tmp_path / "a.jsonl", {"src": "x", "input": "no", "gold": 1, "kind": "k"})
    (row,) = _read(path, input="src", target="gold", task="kind").rows
    assert (row.input, row.target, row.task) == ("x", "1", "k")
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


def test_names_of_few_rows_are_no_tasks_and_a_chats_answers_are(tmp_path):
    rows = [{"task_id": f"t{n}", "input": "i", "output": "o"} for n in range(10)]
    assert {row.task for row in _read(_write(tmp_path / "a.jsonl", *rows)).rows} == {"a"}
    rows = [{**row, "task_id": f"t{n % 2}"} for n, row in enumerate(rows)]
    assert {row.task for row in _read(_write(tmp_path / "a.jsonl", *rows)).rows} == {"t0", "t1"}
    chat = _chat(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    path = _write(tmp_path / "b.jsonl", chat)
    assert [(row.task, row.place) for row in _read(path).rows] == [
        ("b", f"{path}:1, answer 1"),
        ("b, answer 2", f"{path}:1, answer 2"),
    ]


def test_odd_rows_are_left_out_and_told(tmp_path):
    deep = '{"input": "a", "output": "b", "meta": ' + "[" * 2000 + "]" * 2000 + "}"
    odd = [
        '{"output": "b"}',
        '{"input": null, "output": "b"}',
        '{"input": "a", "output": {"b": 1}}',
    ]
    odd += ['{"input": "\\ud800", "output": "b"}', '{"messages": []}', deep, '{"input": "a"', "[]"]
    odd += [
        '{"messages": [{"role": "user", "content": "a"}]}',
        '{"messages": ["a", 1]}',
        "7",
        "null",
    ]
    odd += ['{"input": [1, 2], "output": "b"}']
    good = [json.dumps({"id": None, **row}) for row in ROWS] * 6
    path = tmp_path / "a.jsonl"
    path.write_bytes("\n".join([*good, *odd]).encode() + b'\n{"input": "\xff", "output": "b"}')
    with pytest.warns(errors.InputWarning) as caught:
        loaded = _read(path)
    assert _pairs(loaded) == PAIRS * 6
    (note,) = loaded.notes
    assert [str(one.message) for one in caught] == [note]
    assert "14 of 32 rows can't be read and are left out" in note and "; and 9 more" in note
    assert f"{path}:20: nothing in 'input'" in note and "\n" not in note
    whole = tmp_path / "whole.json"
    whole.write_text("[" + ", ".join([*good, *(row for row in odd if row[-1] == "}")]) + "]")
    with pytest.warns(errors.InputWarning, match=r"9 of 27 rows can't be read"):
        assert _pairs(_read(whole)) == PAIRS * 6


def test_odd_rows_of_tables(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"input,output\na,b\nc,d,e\nf\n\xff,g\n\nh,i\nj,k\n")
    with pytest.warns(errors.InputWarning, match=r"a.csv:3: expected 2 cells, found 3; .*a.csv:4"):
        assert _pairs(_read(tmp_path / "a.csv")) == [("a", "b"), ("h", "i"), ("j", "k")]
    texts = pyarrow.array([b"a", b"\xff", b"c"]).view(pyarrow.string())
    parquet.write_table(
        pyarrow.table({"input": texts, "output": ["b"] * 3}), tmp_path / "a.parquet"
    )
    with pytest.warns(
        errors.InputWarning, match="1 of 3 rows can't be read .*a.parquet:2: 'utf-8'"
    ):
        assert len(_read(tmp_path / "a.parquet").rows) == 2


def test_long_texts_that_are_in_no_row_are_told(tmp_path):
    text = "a text that a person would want to be looked at"
    rows = [{"input": f"i{n}", "output": "o", "notes": text, "url": "x" * 80} for n in range(3)]
    rows = [{**row, "text": f"Here: {row['input']} => o, it says"} for row in rows]
    with pytest.warns(errors.InputWarning, match=r"in no row: 'notes' of \S+a.jsonl$"):
        _read(_write(tmp_path / "a.jsonl", *rows))
    assert row_layouts.unused({"rejected": "no"}, []) == ["rejected"]


def test_folders_are_walked_and_no_file_is_read_twice(tmp_path):
    (tmp_path / "sub" / ".hidden").mkdir(parents=True)
    first = _write(tmp_path / "sub" / "a.jsonl", ROWS[0])
    (tmp_path / "b.NDJSON.gz").write_bytes(gzip.compress(TEXT))
    _table(tmp_path / "c.csv", ROWS, ",")
    _write(tmp_path / "sub" / ".hidden" / "c.jsonl", ROWS[0])
    _write(tmp_path / "dataset_info.json", {"features": {}})
    _write(tmp_path / "config.json", {"a": {"b": 1}})
    (tmp_path / "README.md").write_text("text")
    (tmp_path / "more.txt").write_text("text")
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.warns(errors.InputWarning) as caught:
        loaded = _read(tmp_path, first)
    assert {path.name: n for path, n in loaded.files.items()} == {
        "b.NDJSON.gz": 3,
        "c.csv": 3,
        "a.jsonl": 1,
    }
    (note,) = (str(one.message) for one in caught)
    assert note.startswith("files that are passed over: ")
    for name in ("config.json", "more.txt", "loop.jsonl", "pipe.jsonl"):
        assert name in note
    assert "README" not in note and "info" not in note
    (tmp_path / "empty").mkdir()
    with pytest.raises(errors.InputError, match=r"empty: expected files that end in \.json"):
        _read(tmp_path / "empty")
    for name in ("loop.jsonl", "pipe.jsonl", "none.jsonl"):
        with pytest.raises(errors.InputError, match=name):
            _read(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"input": "a", "output": "b"}\n{"output": "b"}\n{"output": "b"}', "2 of 3 rows can't"),
        (b'{"inputs": [1, 2], "targets": [1]}\n' * 2, "field 'targets': .* found token ids"),
        (b'{"input": ["a", "b"], "output": ["c"]}', "expected columns of one length"),
        (b"[]", "expected rows, found none"),
        (b"[1, 2]", "bad.json:1: expected a JSON object, found int"),
        (b" \n", "expected rows, found an empty file"),
        (b"", "expected rows, found an empty file"),
        (b"PAR1 no more", "can't be read .*Parquet"),
        (b"\xff\xff\xff\xff no more", "can't be read"),
        (gzip.compress(TEXT, mtime=0)[:30], "can't be read .Truncated"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "a Git LFS pointer: run `git lfs pull`",
        ),
        (b"PK\x03\x04", "a zip archive"),
        (b"<!doctype html>\n<html>", "expected JSON, CSV, TSV, Parquet or Arrow, found '<!doctype"),
        (b'{"text": "all in one"}', "expected a field for the target, or a chat in 'text'"),
        (b'{"Instances": [], "Definition": ["a"], "Positive Examples": []}', "found none"),
        (b'{"a":' * 600 + b"1" + b"}" * 600, "expected a field|too deep|recursion"),
    ],
)
def test_bad_content_is_one_line_that_says_where(tmp_path, content, message):
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(errors.InputError, match=message) as caught:
        _read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
