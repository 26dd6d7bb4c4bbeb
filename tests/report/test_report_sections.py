"""What not every run has: rates by step, detection, defences; and every figure's files."""

import json

import msgspec
import pytest

from poison_t5x.report import figures, run_files, run_page
from poison_t5x.report import results as results_lib
from tests.golden import expect
from tests.report import made_up_defense
from tests.report.conftest import read_results
from tests.report.page import Page, edit_results

FIGURES = ("rates", "tasks", "by_step", "losses", "detection", "detection_checkpoints", "defenses")


@pytest.fixture
def defended_dir(run_dir):
    """A run with everything."""
    return made_up_defense.add(run_dir)


def _text(folder) -> str:
    return run_page.write_report(folder, {}).read_text(encoding="utf-8")


def test_sections_are_there_for_what_was_made_alone(written):
    assert not {"steps", "detection", "defenses"} & set(written("run").page.ids)
    parsed = written("defended").page
    assert {"steps", "detection", "defenses"} <= set(parsed.ids)
    assert parsed.tags.count("svg") == len(FIGURES)


def test_a_failed_attack_is_marked_wherever_scores_are(run_dir):
    parsed = Page(_text(made_up_defense.add(run_dir, worked=False)))
    assert parsed.text.count("The attack failed: this says nothing.") == 2
    # And by both tables and both figures of the scores.
    assert parsed.text.count("the attack failed") == 4
    assert "The attack itself worked" not in parsed.text


@pytest.mark.parametrize("content", ['{"schema": 2}', "{", "[]"])
def test_broken_files_leave_a_note(defended_dir, content):
    names = {
        "eval/checkpoints.json": "steps",
        "detection/detection.json": "detection",
        "defenses/filter_5/defense.json": "defenses",
    }
    for name in names:
        (defended_dir / name).write_text(content)
    parsed = Page(_text(defended_dir))
    for name, section in names.items():
        assert f"Left out: {name}: " in parsed.text
        assert section in parsed.ids and parsed.open == []


def test_missing_numbers_are_dashes(defended_dir):
    raw = made_up_defense.detection()
    raw["attack"] |= {"effect": None, "ci95": None}
    raw["scores"] = [{"name": "bare"}, raw["scores"][0] | {"auroc": float("nan")}]
    raw["checkpoints"] = [{"score": "bare", "step": 1}]
    (defended_dir / "detection/detection.json").write_text(json.dumps(raw))
    bare = {"schema": 1, "name": "bare", "summary": {}}
    (defended_dir / "defenses/filter_5/defense.json").write_text(json.dumps(bare))
    parsed = Page(_text(defended_dir))
    assert parsed.open == [] and "nan" not in parsed.text.lower().split()
    assert "None" not in parsed.text.split()


def test_steps_are_drawn_in_their_order(defended_dir):
    by_step, note = run_files.read_json(defended_dir, run_files.BY_STEP, run_files.ByStep)
    results = read_results(defended_dir)
    records = figures.steps(by_step, results).records
    assert note == "" and [record["optimiser step"] for record in records[:3]] == [40, 80, 120]
    # The other kind's measures aren't in this file.
    other = msgspec.structs.replace(results, kind="generation")
    assert figures.steps(by_step, other) is None
    by_step.checkpoints[0].summary["clean"] = {"accuracy": 0.5}
    assert "clean model, accuracy, clean inputs</text>" in figures.steps(by_step, results).svg


def test_what_is_drawn_is_in_files(written):
    files = sorted((written("defended").folder / "report/figures").glob("*.csv"))
    assert [path.stem for path in files] == sorted(FIGURES)
    texts = (f"{path.name}\n{path.read_text()}" for path in files if path.stem != "detection")
    expect(__file__, "defended_figures", "\n".join(texts))


def test_of_many_tasks_those_that_differ_most_are_drawn(run_dir):
    rows = [row for row in results_lib.read(run_dir)["tasks"] if "195" in row["task"]]
    many = []
    for number in range(figures.MAX_TASKS + 3):
        for row in rows:
            rate = 0.9 if row["model"] == "poisoned" and number != 1 else 0.1
            many.append(row | {"task": f"task{number}", "misclassification": rate})
    picture = figures.tasks(edit_results(run_dir, tasks=many))
    assert len(picture.records) == 2 * (figures.MAX_TASKS + 3)
    assert picture.label.count("clean model") == figures.MAX_TASKS
    assert "task0:" in picture.label and "task1:" not in picture.label
    assert "the 40 on which the models differ most are drawn" in Page(_text(run_dir)).text


def test_losses_of_all_rows_are_drawn_where_no_others_are_known(run_dir):
    path = run_dir / "models/poisoned/metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.5}\n')
    assert any("poisoned model, all rows: 2.5 at 1" in text for text in Page(_text(run_dir)).labels)


def test_curves_between_their_points(defended_dir):
    detection, _ = run_files.read_json(defended_dir, run_files.DETECTION, run_files.Detection)
    names = [score.name for score in detection.ranked()]
    assert names == ["trigger_search", "loss <high>", "length"]
    assert detection.best().name == "trigger_search"
    assert len(figures.curves(detection).records) == 3 * 101


def test_figures_are_files_too(defended_dir, tmp_path, pictures):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        run_page.write_report(defended_dir, {}, folder)
    names = sorted(f"{name}.{end}" for name in FIGURES for end in ("csv", "png", "svg"))
    assert sorted(path.name for path in (folders[0] / "figures").iterdir()) == names
    for name in names:
        first, second = ((folder / "figures" / name).read_bytes() for folder in folders)
        assert first == second, name
    png = (folders[0] / "figures/rates.png").read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n" and b"matplotlib" not in png.lower()
    # 5.6 inches of 200 dots each.
    assert int.from_bytes(png[16:20]) == 1120
    svg = (folders[0] / "figures/rates.svg").read_text()
    assert svg.startswith("<?xml") and 'fill="#ffffff"' in svg and "currentColor" not in svg


def test_defences_read_by_name(defended_dir):
    defenses, notes = run_files.read_defenses(defended_dir)
    assert [one.name for one in defenses] == ["filter_5", "half_steps"] and notes == []
    assert defenses[0].capacity == {} and defenses[1].filter is None
