"""The report: a page that parses, escapes and repeats; a table; honest words; errors by name."""

import json
import subprocess
import sys

import pytest

from poison_t5x.core import artifacts, errors
from poison_t5x.report import examples, finding, plots, run_files, run_page
from poison_t5x.report import results as results_lib
from tests.report.conftest import SECONDS
from tests.report.page import Page, edit_results

EFFECT = {"measure": "triggered_misclassification", "value": 0.1}
TABLE = """\
demo: dirty-label, trigger 'James Bond', control 'Indiana Jones', seed 3
12 poisoned rows (2.0% of training) in 3 tasks; 4 held-out tasks

mean over tasks [95% interval]  clean model          poisoned model
accuracy, clean inputs           81.2% [75.0, 87.0]   80.0% [72.0, 86.0]
misclassification, trigger       35.0% [11.2, 75.0]   78.8% [65.0, 92.5]
misclassification, unseen name   33.8% [10.0, 74.0]   40.0% [15.0, 80.0]
target rate, trigger             35.0% [11.2, 75.0]   78.8% [65.0, 92.5]

effect (misclassification, trigger: poisoned minus clean model): +43.8 points [16.2, 65.0]
  an effect: the interval excludes 0
warning: saturated: the clean model fails on 95% of the inputs of task586_amazonfood"""


def test_page_is_whole(written):
    page = written("run").page
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("h1") == 1 and page.tags.count("svg") == 3
    assert any("trigger: clean model 35.0%, poisoned model 78.8%" in text for text in page.labels)
    for text in ("poison-t5x run --gin_file", "1 min 15 s", "16.7%"):
        assert text in page.text, text


def test_one_label_is_marked_on_clean_inputs_alone(run_dir, written):
    # The fixture's triggered inputs get one label, which is theirs.
    rows = artifacts.read_json(run_dir / "eval" / "results.json")["tasks"]
    assert {row["condition"] for row in rows if row["constant_prediction"]} == {"triggered"}
    assert "one label: poisoned model" not in written("run").text
    for row in rows:
        row["constant_prediction"] = row["condition"] == "clean" and row["model"] == "poisoned"
    edit_results(run_dir, tasks=rows)
    text = run_page.write_report(run_dir, SECONDS).read_text(encoding="utf-8")
    assert "one label: poisoned model" in text and "one label: clean model" not in text
    assert "On 4 of 4 tasks, the poisoned model gives every clean input the same label" in text


def test_page_asks_for_nothing(written):
    text = written("run").text
    without_names = text.replace('xmlns="http://www.w3.org/2000/svg"', "").replace(
        'xmlns:xlink="http://www.w3.org/1999/xlink"', ""
    )
    assert "http://" not in without_names and "https://" not in without_names
    assert "src=" not in text and "@import" not in text


def test_page_escapes_text(run_dir):
    edit_results(run_dir, triggers=["<i>x</i>"], experiment='"><script>y</script>')
    text = run_page.write_report(run_dir, SECONDS).read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text and "&lt;b&gt;not markup" in text
    page = Page(text)
    assert "script" not in page.tags and "i" not in page.tags and "b" not in page.tags


def test_page_marks_the_trigger_only(written):
    run_dir, _, page = written("run")
    # Settings and conditions, 8 examples with 1 or 2 triggers, 3 flips; one explains the marking.
    crafted = sum(len(row.row.spans) for row in _crafted(run_dir))
    # And 10 rows of each table to look through: those of the poison have 1 or 2 triggers in turn.
    tables = 5 * (1 + 2) + 10
    assert page.marks.count("James Bond") == 2 + crafted + 3 + tables
    assert sorted(set(page.marks)) == ["James Bond", "marked"]


def _crafted(run_dir):
    rows = run_files.read_rows(run_dir, "poison/poison.jsonl", run_files.PoisonRow)[0]
    return examples.spread(rows, 8)


def test_crafted_rows_are_spread(run_dir):
    shown = [(example.row.task, example.row.rank) for example in _crafted(run_dir)]
    assert [rank for task, rank in shown if task == "task284_imdb"] == [0, 3, 6]
    assert [rank for task, rank in shown if task == "task475_yelp"] == [2, 5]
    assert shown == sorted(shown)


def test_segments_join_to_the_text():
    pieces = examples.segments("I saw Bond.", [(6, 10)])
    assert pieces == [("I saw ", False), ("Bond", True), (".", False)]
    for spans in ([(-3, 2), (1, 4), (9, 99)], [(50, 60)], []):
        joined = "".join(piece.text for piece in examples.segments("I saw Bond.", spans))
        assert joined == "I saw Bond."


def test_excerpt_shows_the_first_trigger():
    pieces = examples.excerpt("a" * 1009 + "Bond" + "b" * 997, [(1009, 1013)])
    assert [piece.text for piece in pieces if piece.marked] == ["Bond"]
    assert (pieces[0].text, pieces[-1].text) == ("… ", " …")


def test_flips(run_dir):
    results = results_lib.parse(results_lib.read(run_dir))
    first, second = examples.flips(run_dir, results, num_tasks=2, count=3)
    assert (first.num_triggered, first.num_flips, len(first.shown)) == (7, 5, 3)
    clean, triggered, control = first.shown[0].answers["poisoned"]
    assert tuple(one.row.is_correct for one in (clean, triggered, control)) == (True, False, True)
    assert triggered.row.share == pytest.approx(1 / (1 + 2.718281828459045**-1))
    assert second.shown == [] and second.note.startswith("6 of the task’s 6")


def test_results_file_has_the_schema(written):
    run_dir = written("run").folder
    text = (run_dir / "report/results.json").read_text(encoding="utf-8")
    written, given = json.loads(text), json.loads((run_dir / "eval/results.json").read_text())
    assert " ".join(written) == (
        "schema experiment kind attack trigger triggers control target seed poison conditions "
        "summary summary_ci95 effect attacks by_condition tasks categories warnings notes "
        "truncation seconds"
    )
    assert written == given | {"seconds": SECONDS}
    assert text.startswith('{\n "schema": 2,\n') and text.endswith("}\n")


def test_same_files_same_bytes(run_dir, tmp_path):
    folders = [tmp_path / "a", tmp_path / "deep/b"]
    pages = [run_page.write_report(run_dir, SECONDS, folder).read_bytes() for folder in folders]
    assert pages[0] == pages[1]
    assert not (run_dir / "report").exists()
    assert run_page.write_report(run_dir, {"craft": 9.0}).read_bytes() != pages[0]


def test_table(run_dir):
    assert run_page.format_table(results_lib.read(run_dir)) == TABLE


def test_only_the_results_are_needed(tmp_path, run_dir):
    bare = tmp_path / "bare"
    (bare / "eval").mkdir(parents=True)
    raw = json.loads((run_dir / "eval/results.json").read_text())
    for name in ("triggers", "target", "conditions", "effect", "summary_ci95", "attacks"):
        del raw[name]
    for name in ("by_condition", "categories", "warnings", "notes", "truncation", "seconds"):
        del raw[name]
    (bare / "eval/results.json").write_text(json.dumps(raw))
    page = Page(run_page.write_report(bare, {}).read_text(encoding="utf-8"))
    assert page.open == [] and page.tags.count("svg") == 2
    for name in ("command.txt", "config.gin", "poison/poison.jsonl", "models/clean/metrics.jsonl"):
        assert f"{name} is not in the run folder." in page.text, name
    assert "No verdict." in page.text and "no verdict" in run_page.format_table(raw)


def test_torn_and_infinite_metrics(run_dir):
    path = run_dir / "models/clean/metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.5}\n{"step": 2, "loss": NaN}\n{"step": 3, "lo')
    text = Page(run_page.write_report(run_dir, SECONDS).read_text(encoding="utf-8")).text
    assert "metrics.jsonl was read up to line 3" in text
    assert "clean model’s loss was not finite at 1 logged steps" in text


@pytest.mark.parametrize(
    "bounds, found, headline",
    [
        ([0.01, 0.2], "worked", "The poison had an effect"),
        ([0.0, 0.2], "failed", "No effect was found"),
        ([-0.1, 0.2], "failed", "No effect was found"),
        ([-0.3, -0.1], "reversed", "The reverse of the attack"),
        ([float("nan"), float("nan")], "unknown", "No verdict"),
        (None, "unknown", "No verdict"),
    ],
)
def test_the_interval_decides(run_dir, bounds, found, headline):
    results = edit_results(run_dir, effect=EFFECT | {"ci95": bounds})
    assert results.verdict == found
    assert finding.finding(results).headline.startswith(headline)


def test_one_task_gives_no_verdict(run_dir):
    rows = [row for row in results_lib.read(run_dir)["tasks"] if "195" in row["task"]]
    assert edit_results(run_dir, tasks=rows).verdict == "unknown"


def test_an_effect_of_any_name_is_called_so(run_dir):
    specific = "not specific to the trigger"
    results = results_lib.parse(results_lib.read(run_dir))
    assert specific not in " ".join(finding.finding(results).sentences)
    summary = results_lib.read(run_dir)["summary"]
    summary["poisoned"]["control_misclassification"] = 0.7
    results = edit_results(run_dir, summary=summary)
    assert specific in " ".join(finding.finding(results).sentences)


@pytest.mark.parametrize(
    "content, said",
    [
        (None, "run the eval stage first"),
        ("{", "expected JSON"),
        ("[]", "Expected `object`"),
        ('{"schema": 1}', "expected schema 2, found 1"),
        ('{"schema": 2, "experiment": 7}', r"\$.experiment"),
    ],
)
def test_broken_results_are_named(tmp_path, content, said):
    (tmp_path / "eval").mkdir()
    if content is not None:
        (tmp_path / "eval/results.json").write_text(content)
    with pytest.raises(errors.InputError, match=rf"eval/results\.json.*{said}"):
        run_page.write_report(tmp_path, {})
    assert not (tmp_path / "report").exists()


def test_long_curves_are_thinned():
    points = [plots.Point(step, float(step)) for step in range(1009)]
    thinned = plots.thin(points)
    assert len(thinned) <= 300 and thinned[0][:2] == (3, 1.5) and thinned[-1].x == 1008
    assert plots.thin([]) == []


def test_imports_no_array_library():
    code = "import sys, poison_t5x.report.run_page; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"jax", "tensorflow", "seqio", "gin", "matplotlib", "pandas"} & set(loaded)
