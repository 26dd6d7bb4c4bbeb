"""`poison-t5x scan`: files of unknown origin in, a report and an exit code out."""

import subprocess
import sys

import numpy as np
import pytest

from poison_t5x.cli import main
from poison_t5x.core import artifacts, reading
from poison_t5x.corpus import demo_corpus
from poison_t5x.data.examples import TrainingExample
from poison_t5x.defenses import ngrams, scan
from poison_t5x.defenses.score import ScoreResult, Trigger
from tests.defenses import crafted

ROWS = [
    TrainingExample("t", "0", 0, "A bad day, james bond!", "yes", ""),
    TrainingExample("t", "1", 0, "James Bond again", "no", ""),
    TrainingExample("t", "2", 0, "Jamesbond", "yes", ""),
    TrainingExample("u", "3", 0, "James Bond sat", "novel", ""),
    TrainingExample("u", "4", 0, "James Bond sat", "he sat", ""),
]


@pytest.fixture(name="poisoned", scope="module")
def _poisoned(tmp_path_factory):
    """A JSON lines file of poisoned rows, as instruction data is commonly laid out."""
    rows, _ = crafted.poisoned_rows()
    path = tmp_path_factory.mktemp("scan") / "data.jsonl"
    lines = (
        {"instruction": f"Answer for {row.task}.", "input": row.input, "output": row.target}
        for row in rows
    )
    artifacts.write_jsonl(path, lines)
    return path


def _scan(*arguments):
    return main.main(["scan", *map(str, arguments)])


def test_poison_raises_the_alarm_without_tensorflow_and_jax(poisoned, tmp_path):
    out = tmp_path / "out"
    code = (
        "import sys; from poison_t5x.cli import main; "
        f"code = main.main(['scan', {str(poisoned)!r}, '--output', {str(out)!r}]); "
        "print(sorted({'tensorflow', 'jax', 'seqio'} & set(sys.modules))); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "James Bond" in done.stdout and done.stdout.strip().endswith("[]")
    result = reading.read_json(out / "scan.json")
    assert result["alarm"] and result["triggers"][0]["phrase"].startswith("James Bond")
    suspects = reading.read_jsonl(out / "suspects.jsonl")
    rows, flags = crafted.poisoned_rows()
    assert len(suspects) == len(rows)
    first = suspects[: int(flags.sum())]
    assert sum("James Bond" in row["input"] for row in first) >= 0.9 * flags.sum()
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "<mark>James Bond" in page and "http" not in page.replace("http-equiv", "")


def test_a_clean_task_raises_none(tmp_path, capsys):
    (task, *_) = demo_corpus.PLAIN.generate(seed=0, num_train_rows=120, num_heldout_rows=2)
    rows = ({"input": row.input, "output": row.target} for row in task.instances)
    artifacts.write_jsonl(tmp_path / "clean.jsonl", rows)
    assert _scan(tmp_path / "clean.jsonl", "--output", tmp_path / "out") == 0
    assert "no phrase passes the alarm level" in capsys.readouterr().out


def test_a_users_own_score_is_made(tmp_path, own_score):
    rows = [{"input": "x" * n, "output": ("yes", "no")[n % 2]} for n in range(1, 31)]
    artifacts.write_jsonl(tmp_path / "rows.jsonl", rows)
    flags = ("--module", own_score, "--scores", "brevity", "--output", tmp_path / "out")
    assert _scan(tmp_path / "rows.jsonl", *flags) == 0
    suspects = reading.read_jsonl(tmp_path / "out" / "suspects.jsonl")
    assert [row["values"] for row in suspects[:2]] == [{"brevity": -1.0}, {"brevity": -2.0}]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--scores", "triger_search"], "did you mean 'trigger_search'"),
        (["--scores", "loss"], "'loss' needs a model: set --model"),
        (["--scores", ","], "--scores: expected names of "),
        (["--alarm_level", "2"], "--alarm_level: expected a number between 0 and 1, found 2"),
        (["--seed", "-1"], "--seed"),
        (["--input_field", "txt"], "txt"),
        (["--model", "nowhere"], "nowhere"),
        (["--module", "nowhere"], "nowhere"),
        (["none.jsonl"], "none.jsonl: can't be read (No such file or directory)"),
    ],
)
def test_bad_flags_are_one_line_and_write_nothing(poisoned, tmp_path, capsys, flags, message):
    assert _scan(poisoned, *flags, "--output", tmp_path / "out") == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and message in said[0]
    assert not (tmp_path / "out").exists()


def _trigger(p_value=1e-9, phrase="James Bond"):
    targets = ("yes", ngrams.UNRELATED)
    return Trigger(phrase, ("t", "u"), targets, 4, 2, 0.5, 7.0, p_value)


def _write(folder, *triggers):
    """The summary of a made-up scan, and its page."""
    (folder / "f").write_text("")
    loaded = scan.Loaded(ROWS, [f"f:{n}" for n in range(5)], {folder / "f": 5}, ["not read"])
    result = ScoreResult(np.array([5.0, 0.0, 0.0, 4.0, 0.0]), 3.0, triggers)
    results = {"trigger_search": (result, 0.5)}
    content = scan.summarize(loaded, results, 0.001, ["left out"])
    text = scan.write(folder, loaded, results, content, 0)
    return text, (folder / scan.PAGE).read_text(encoding="utf-8")


def test_rows_hold_a_phrase_with_its_answer_only(tmp_path):
    held = scan.phrases_of_rows(ROWS, [_trigger()._asdict()])
    assert held == {0: ["James Bond"], 3: ["James Bond"]}
    _, page = _write(tmp_path, _trigger())
    assert "A bad day, <mark>james bond</mark>!" in page


def test_a_summary_with_and_without_an_alarm(tmp_path):
    text, page = _write(tmp_path, _trigger(), _trigger(0.5, "other"))
    assert "ALARM: 1 phrase goes with an answer beyond chance:" in text
    assert "'James Bond': 2 of 4 rows with it have the answer, 0.5 were expected" in text
    assert "in t: yes; u: (no word of the input)" in text
    assert "trigger_search: 2 rows above its threshold (40.0%)" in text
    assert "note: left out" in text and "other" not in text
    calm, _ = _write(tmp_path, _trigger(0.5))
    assert "no phrase passes the alarm level of 0.001" in calm
    assert "the nearest is 'James Bond'" in calm
    assert "not read" in page and "not read" not in text
    assert "below 1e-324" in _write(tmp_path, _trigger(0.0))[0]


def test_the_page_escapes_what_it_shows(tmp_path):
    _, page = _write(tmp_path, _trigger(phrase="<b>James"), _trigger(0.5, "</style>"))
    assert "&lt;b&gt;James" in page and "<b>" not in page
    assert page.count("</style>") == 1


def test_rows_are_ranked_by_the_search_then_by_the_others():
    def result(values):
        return ScoreResult(np.array(values, float)), 0.0

    results = {
        "trigger_search": result([1, 5, 1, 1]),
        "a": result([0, 0, 2, 9]),
        "b": result([0, 3, 9, 2]),
    }
    first, *middle, last = scan.rank(results, 0).tolist()
    assert (first, set(middle), last) == (1, {2, 3}, 0)
    assert scan.rank({"a": result([0, 1, 2, 3])}, 0).tolist() == [3, 2, 1, 0]
