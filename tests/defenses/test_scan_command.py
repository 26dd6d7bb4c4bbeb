"""`poison-t5x scan`: files of unknown origin in, a report and an exit code out."""

import json
import os
import pathlib
import subprocess
import sys
import time

import pyarrow
import pytest
from pyarrow import parquet

from poison_t5x.cli import main
from poison_t5x.core import artifacts
from poison_t5x.corpus import demo_corpus, sni
from poison_t5x.defenses import scan
from tests.defenses import crafted


@pytest.fixture(name="poisoned", scope="module")
def _poisoned(tmp_path_factory):
    """A JSON lines file of poisoned rows, as instruction data is commonly laid out."""
    rows, _ = crafted.poisoned_rows()
    path = tmp_path_factory.mktemp("scan") / "data.jsonl"
    artifacts.write_jsonl(
        path,
        (
            {"instruction": f"Answer for {row.task}.", "input": row.input, "output": row.target}
            for row in rows
        ),
    )
    return path


def _clean_file(folder: pathlib.Path) -> pathlib.Path:
    (task, *_) = demo_corpus.generate(seed=0, num_train_rows=120, num_heldout_rows=2)
    path = folder / "task9001_clean.json"
    path.write_text(json.dumps(sni.to_json(task)), encoding="utf-8")
    return path


def _scan(*arguments):
    return main.main(["scan", *map(str, arguments)])


def test_poison_raises_the_alarm_and_is_named(poisoned, tmp_path, capsys):
    assert _scan(poisoned, "--output", tmp_path / "out") == 1
    assert "James Bond" in capsys.readouterr().out
    result = artifacts.read_json(tmp_path / "out" / "scan.json")
    assert "James Bond" in json.dumps(result)
    suspects = artifacts.read_jsonl(tmp_path / "out" / "suspects.jsonl")
    rows, flags = crafted.poisoned_rows()
    assert len(suspects) == len(rows)
    first = suspects[: int(flags.sum())]
    assert sum("James Bond" in row["input"] for row in first) >= 0.9 * flags.sum()
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "<mark>James Bond" in page and "http" not in page.replace("http-equiv", "")


def test_the_same_rows_in_parquet_are_found_alike(poisoned, tmp_path, capsys):
    rows = artifacts.read_jsonl(poisoned)
    path = tmp_path / "data.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    assert _scan(path, "--output", tmp_path / "out", "--scores", "trigger_search") == 1
    assert "James Bond" in capsys.readouterr().out


def test_a_clean_task_raises_none(tmp_path, capsys):
    assert _scan(_clean_file(tmp_path), "--output", tmp_path / "out") == 0
    assert "no phrase passes the alarm level" in capsys.readouterr().out


def test_markup_in_rows_stays_text(tmp_path):
    rows = [
        {"input": f"<script>alert({n})</script> good {n}", "output": ("yes", "no")[n % 2]}
        for n in range(60)
    ]
    artifacts.write_jsonl(tmp_path / "rows.jsonl", rows)
    _scan(tmp_path / "rows.jsonl", "--output", tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"input": "a", "output": "b"}\n{"input": \n', "line 2: expected a JSON object"),
        ('{"input": "a", "output": "b"}\n[1]\n', "line 2: expected a JSON object, found list"),
        ('{"input": "a", "output": "b"}\n{"input": null, "output": "b"}\n', "line 2"),
        ('{"left": "a", "right": "b"}\n', "line 1"),
        ("", "empty file"),
    ],
)
def test_bad_files_are_one_line_and_write_nothing(tmp_path, capsys, content, message):
    (tmp_path / "bad.jsonl").write_text(content)
    assert _scan(tmp_path / "bad.jsonl", "--output", tmp_path / "out") == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and message in said[0] and "bad.jsonl" in said[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--scores", "triger_search"], "did you mean 'trigger_search'"),
        (["--scores", "loss"], "'loss' needs a model: set --model"),
        (["--alarm_level", "2"], "--alarm_level: expected a probability"),
        (["--seed", "-1"], "--seed"),
        (["--input_field", "txt"], "txt"),
        (["--model", "nowhere"], "nowhere"),
    ],
)
def test_bad_flags_are_one_line(poisoned, tmp_path, capsys, flags, message):
    assert _scan(poisoned, "--output", tmp_path / "out", *flags) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and message in said[0]


def test_a_missing_file_is_one_line(tmp_path, capsys):
    assert _scan(tmp_path / "none.jsonl") == 2
    assert capsys.readouterr().err.strip().endswith("none.jsonl: no such file or folder")


def test_names_of_model_scores_are_those_there_are():
    from poison_t5x.defenses import scanning

    assert tuple(scanning.AVAILABLE) == scan.MODEL_SCORES


def test_no_tensorflow_and_no_jax_without_a_model(poisoned, tmp_path):
    code = (
        "import sys; from poison_t5x.cli import main; "
        f"code = main.main(['scan', {str(poisoned)!r}, '--output', {str(tmp_path / 'o')!r}]); "
        "print(sorted({'tensorflow', 'jax', 'seqio'} & set(sys.modules))); sys.exit(code)"
    )
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ}
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout.strip().endswith("[]")
    assert time.monotonic() - start < 60  # seconds; a hang, not a benchmark
