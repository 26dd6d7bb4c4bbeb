"""The report: a page that parses, escapes and repeats; a table; honest words; errors by name."""

import json
import subprocess
import sys

import pytest

from poison_t5x.core import errors, reading
from poison_t5x.report import examples, plots, render, run_page
from poison_t5x.report import results as results_lib
from tests.golden import expect
from tests.report.conftest import SECONDS, read_poison, read_results
from tests.report.page import Page, edit_results

LOWERED = ("worked", "The poison had an effect")
NONE, UNKNOWN = ("failed", "No effect was found"), ("unknown", "No verdict")


def _finding(results) -> str:
    return " ".join(Page(render.text("finding.html.j2", results=results)).text.split())


@pytest.mark.parametrize("name", ["run", "campaign", "generation", "defended"])
def test_a_page_is_whole_and_every_section_linked(written, name):
    folder, text, page = written(name)
    assert page.open == [] and len(page.ids) == len(set(page.ids))
    assert page.tags.count("h1") == 1 and not {"script", "b", "i", "high"} & set(page.tags)
    links = {part.split('"')[0] for part in text.split('href="#')[1:]}
    own = tuple(f"{path.stem}-" for path in (folder / "report/figures").iterdir())
    headed = {name for name in page.ids if f'<h2 id="{name}"' in text}
    assert {link for link in links if not link.startswith(own)} == headed


def test_one_label_is_marked_on_clean_inputs_alone(run_dir, written):
    # The fixture's triggered inputs get one label, which is theirs.
    rows = reading.read_json(run_dir / "eval" / "results.json")["tasks"]
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
    for name in ("svg", "xlink"):
        end = "2000/svg" if name == "svg" else "1999/xlink"
        text = text.replace(f"http://www.w3.org/{end}", "")
    assert not [word for word in ("http://", "https://", "src=", "@import") if word in text]


def test_page_escapes_text(run_dir):
    edit_results(run_dir, triggers=["<i>x</i>"], experiment='"><script>y</script>')
    text = run_page.write_report(run_dir, SECONDS).read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text and "&lt;b&gt;not markup" in text
    assert not {"script", "i", "b"} & set(Page(text).tags)


def test_crafted_rows_are_spread(run_dir, campaign_dir):
    shown = [(row.task, row.rank) for row in examples.spread(read_poison(run_dir), 8)]
    assert [rank for task, rank in shown if task == "task284_imdb"] == [0, 3, 6]
    assert [rank for task, rank in shown if task == "task475_yelp"] == [2, 5]
    assert shown == sorted(shown)
    taken = [(row.attack, row.task) for row in examples.spread(read_poison(campaign_dir), 6)]
    assert len(set(taken)) == 6 and taken == sorted(taken)  # attackers take turns


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


@pytest.mark.parametrize("name", ["run", "generation"])
def test_flips(written, name):
    run_dir, results = written(name).folder, read_results(written(name).folder)
    answers = examples.read_answers(run_dir, results)
    first, second = examples.flips(answers, results, num_tasks=2)
    assert (first.num_triggered, len(first.flipped)) == (7, 5)
    assert second.flipped == [] and second.note.startswith("6 of the task’s 6")
    names = ("clean", "triggered", "control")
    key = first.flipped[0].id
    three = [answers.rows[first.task, "poisoned", name][key] for name in names]
    if name == "run":
        assert [one.is_correct for one in three] == [True, False, True]
        assert three[1].share == pytest.approx(1 / (1 + 2.718281828459045**-1))
    else:
        assert [one.rouge_l for one in three] == [0.4, 0.0, 0.4]
        # Those of tasks with triggered inputs alone.
        tasks = [group.task for group in examples.flips(answers, results, 9)]
        assert len(tasks) == 5 and "task613_politifact_text" not in tasks


def test_results_file_has_the_schema(written):
    run_dir = written("run").folder
    text = (run_dir / "report/results.json").read_text(encoding="utf-8")
    told, given = json.loads(text), json.loads((run_dir / "eval/results.json").read_text())
    assert " ".join(told) == (
        "schema experiment kind attack trigger triggers control target seed poison conditions "
        "summary summary_ci95 effect attacks by_condition tasks categories warnings notes "
        "truncation seconds"
    )
    assert told == given | {"seconds": SECONDS}
    assert text.startswith('{\n "schema": 2,\n') and text.endswith("}\n")


def test_same_files_same_bytes(run_dir, tmp_path):
    folders = [tmp_path / "a", tmp_path / "deep/b"]
    pages = [run_page.write_report(run_dir, SECONDS, folder).read_bytes() for folder in folders]
    assert pages[0] == pages[1]
    assert not (run_dir / "report").exists()
    assert run_page.write_report(run_dir, {"craft": 9.0}).read_bytes() != pages[0]


@pytest.mark.parametrize("name", ["run", "campaign", "generation"])
def test_tables(written, name):
    expect(__file__, f"{name}_table", run_page.format_table(results_lib.read(written(name).folder)))


@pytest.mark.parametrize("name", ["campaign", "generation", "defended"])
def test_a_page_says_all_of_it(written, name):
    """Its text, what is marked, what is said of its figures, and its tables to look through."""
    page = written(name).page
    lines = filter(None, (" ".join(line.split()) for line in page.text.splitlines()))
    parts = [one for table in page.data.values() for part in table.values() for one in part]
    data = (json.dumps(one, ensure_ascii=False) for one in parts)
    expect(__file__, f"{name}_page", "\n".join([*lines, *page.marks, *page.labels, *data]))


def test_only_the_results_are_needed(tmp_path, run_dir):
    bare = tmp_path / "bare"
    (bare / "eval").mkdir(parents=True)
    raw = json.loads((run_dir / "eval/results.json").read_text())
    for name in (
        *("triggers", "target", "conditions", "effect", "summary_ci95", "attacks", "by_condition"),
        *("categories", "warnings", "notes", "truncation", "seconds"),
    ):
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
    assert "models/clean/metrics.jsonl:3: can't be read" in text
    assert "clean model’s loss was not finite at 1 logged steps" in text


@pytest.mark.parametrize(
    ("name", "bounds", "told"),
    [
        ("run", [0.01, 0.2], LOWERED),
        ("run", [0.0, 0.2], NONE),
        ("run", [-0.1, 0.2], NONE),
        ("run", [-0.3, -0.1], ("reversed", "The reverse of the attack: the trigger lowered the")),
        ("run", None, UNKNOWN),
        ("generation", [-0.5, -0.1], LOWERED),
        ("generation", [-0.5, 0.0], NONE),
        ("generation", [0.1, 0.2], ("reversed", "The reverse of the attack: the trigger raised r")),
        ("generation", None, UNKNOWN),
    ],
)
def test_the_interval_decides(request, name, bounds, told):
    folder = request.getfixturevalue(f"{name}_dir")
    effect = results_lib.read(folder)["effect"] | {"ci95": bounds}
    results = edit_results(folder, effect=effect)
    assert results.verdict == told[0] and _finding(results).startswith(told[1])


def test_one_task_gives_no_verdict(run_dir):
    rows = [row for row in results_lib.read(run_dir)["tasks"] if "195" in row["task"]]
    assert edit_results(run_dir, tasks=rows).verdict == "unknown"


@pytest.mark.parametrize(
    ("name", "control", "value"),
    [("run", "control_misclassification", 0.7), ("generation", "rouge_l_control", 0.1)],
)
def test_an_effect_of_any_name_is_called_so(request, name, control, value):
    folder = request.getfixturevalue(f"{name}_dir")
    specific = "much of the effect is not specific to the trigger"
    assert specific not in _finding(read_results(folder))
    summary = results_lib.read(folder)["summary"]
    summary["poisoned"][control] = value
    assert specific in _finding(edit_results(folder, summary=summary))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "run `poison-t5x eval`"),
        ("{", "can't be read"),
        ("[]", "expected `object`"),
        ('{"schema": 1}', r"\$.schema: invalid"),
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


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "generation"}, r"no rouge_l_clean - at `\$\.summary\.clean`"),
        ({"attack": 3}, r"\$\.attack"),
        (
            {"effect": {"measure": "rouge_l_triggered", "value": 0.1}},
            r"expected 'triggered_misclassification', found 'rouge_l_triggered'",
        ),
        ({"conditions": []}, r"'triggered_second', which a RatesRow has"),
        ({"summary": {"clean": {}, "poisoned": {}}}, "no accuracy - at"),
    ],
)
def test_results_that_do_not_fit_are_named(campaign_dir, changes, said):
    with pytest.raises(errors.InputError, match=said):
        edit_results(campaign_dir, **changes)


def test_long_curves_are_thinned():
    points = [plots.Point(step, float(step)) for step in range(1009)]
    thinned = plots.thin(points)
    assert len(thinned) <= 300 and thinned[0][:2] == (3, 1.5) and thinned[-1].x == 1008
    assert plots.thin([]) == []


def test_a_row_from_a_file_shows_where_its_trigger_is(generation_dir):
    (row,) = [row for row in read_poison(generation_dir) if row.id == "row-6"]
    assert examples.before(row) is None and row.spans == []
    assert [piece.text for piece in examples.after(row) if piece.marked] == ["Joe Biden"] * 2


def test_imports_no_array_library():
    code = "import sys, poison_t5x.report.run_page; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"jax", "tensorflow", "seqio", "gin", "matplotlib", "pandas"} & set(loaded)
