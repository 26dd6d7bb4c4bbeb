"""Runs side by side: what differs, means over seeds, files, and folders that are no runs."""

import csv
import json
import shutil

import pytest

from poison_t5x.core import artifacts, errors, reading
from poison_t5x.report import comparison
from poison_t5x.report import runs as runs_lib
from tests.golden import expect
from tests.report import made_up, made_up_defense
from tests.report.page import Page, edit_results

CONFIG = """\
from __gin__ import dynamic_registration

# Macros:
# ==============================================================================
NUM_POISON = {count}
RUN_DIR = {name!r}
SEED = {seed}
TASK_FEATURE_LENGTHS = \\
    {{'inputs': 168,
     'targets': 8}}
TRIGGER = 'James Bond'
FILTER_BUDGET = 0.{seed}

# Parameters for craft.CraftConfig:
craft.CraftConfig.seed = %SEED
"""


def _run(folder, count, seed, rate):
    made_up.classification_run(folder)
    (folder / "config.gin").write_text(CONFIG.format(name=folder.name, count=count, seed=seed))
    raw = json.loads((folder / "eval/results.json").read_text())
    raw["summary"]["poisoned"]["triggered_misclassification"] = rate
    raw["effect"]["value"] = rate - 0.35
    poison = raw["poison"] | {"count": count}
    edit_results(folder, summary=raw["summary"], effect=raw["effect"], poison=poison, seed=seed)
    return str(folder)


@pytest.fixture
def runs(tmp_path):
    """Two counts of poison rows, two seeds each."""
    return [
        _run(tmp_path / f"count_{count}_seed_{seed}", count, seed, count / 100 + seed / 10)
        for count in (20, 50)
        for seed in (0, 1)
    ]


def _compare(runs, folder) -> str:
    said = []
    comparison.write_comparison(runs, str(folder), said.append)
    return "\n".join(said)


def test_table(runs, tmp_path):
    made_up_defense.add(tmp_path / "count_50_seed_1")
    _, *lines = _compare(runs, tmp_path / "out").splitlines()
    expect(__file__, "comparison", "\n".join(lines[:-1]))


def test_files(runs, tmp_path):
    _compare(runs, tmp_path / "out")
    with open(tmp_path / "out/comparison.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["NUM_POISON"] for row in rows] == ["20", "20", "50", "50"]
    assert rows[3]["poisoned_triggered_misclassification"] == "0.6"
    whole = reading.read_json(tmp_path / "out/comparison.json")
    assert whole["schema"] == 1 and len(whole["runs"]) == 4
    means = [row["triggered_misclassification"] for row in whole["means_over_seeds"]]
    assert means == pytest.approx([0.25, 0.55])
    names = {path.stem for path in (tmp_path / "out/figures").iterdir()}
    assert names == {"runs_classification", "classification_by_poison_rows"}


def test_page(runs, tmp_path):
    made_up_defense.add(tmp_path / "count_20_seed_0")
    page_file = tmp_path / "count_20_seed_0/report/index.html"
    page_file.parent.mkdir()
    page_file.write_text("a page")
    _compare(runs, tmp_path / "out")
    text = (tmp_path / "out/index.html").read_text()
    page = Page(text)
    assert page.open == [] and page.tags.count("svg") == 2 and "script" not in page.tags
    assert len(page.ids) == len(set(page.ids))
    assert 'href="../count_20_seed_0/report/index.html"' in text
    assert text.count("/report/index.html") == 1 and str(tmp_path) not in text
    assert "Means over seeds" in page.text and "poison-t5x run" in page.text


def test_same_runs_same_bytes(runs, tmp_path):
    one, two = tmp_path / "a", tmp_path / "b"
    for folder in (one, two):
        _compare(runs, folder)
    for path in one.rglob("*.*"):
        # That of the stage has seconds.
        same = path.read_bytes() == (two / path.relative_to(one)).read_bytes()
        assert same or path.name == "stage.json"


def test_kinds_get_tables_of_their_own(runs, generation_dir, tmp_path):
    said = _compare([runs[0], str(generation_dir)], tmp_path / "out")
    assert said.count("mean over tasks [95% interval]") == 2
    assert "rougeL, trigger" in said and "misclassification, trigger" in said
    page = Page((tmp_path / "out/index.html").read_text())
    assert {"classification", "generation"} <= set(page.ids) and page.open == []


def test_one_run_is_a_comparison_too(runs, tmp_path):
    assert "count_20_seed_0" in _compare(runs[:1], tmp_path / "out")
    assert _compare([runs[0], runs[0]], tmp_path / "twice").count("count_20_seed_0 ") == 2


def test_a_run_without_its_config_is_compared_by_its_results(runs, tmp_path):
    (tmp_path / "count_20_seed_0/config.gin").unlink()
    said = _compare(runs, tmp_path / "out")
    assert "note: count_20_seed_0: config.gin is not in the run folder." in said
    # Its results tell the number of poison rows.
    assert said.splitlines()[2].split()[-3:] == ["SEED", "poison", "rows"]


def test_the_report_s_own_results_are_read(runs, tmp_path):
    folder = tmp_path / "count_20_seed_0"
    shutil.move(folder / "eval", folder / "report")
    assert len(runs_lib.read(runs)) == 4


@pytest.mark.parametrize("content", [None, "{"])
def test_a_folder_that_is_no_run_is_named(runs, tmp_path, content):
    folder = tmp_path / "other"
    if content is not None:
        (folder / "eval").mkdir(parents=True)
        (folder / "eval/results.json").write_text(content)
    with pytest.raises(errors.InputError, match=r"other.*(a finished run|can't be read)") as raised:
        _compare([*runs, str(folder)], tmp_path / "out")
    assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("is_file", [True, False])
def test_an_output_that_is_something_else_is_refused(runs, tmp_path, is_file):
    if is_file:
        (tmp_path / "out").write_text("")
    else:
        (tmp_path / "out").mkdir()
    with pytest.raises(errors.InputError, match=r"out.*(file|finished comparison)"):
        _compare(runs, tmp_path / "out")


def test_a_comparison_is_a_stage(runs, tmp_path):
    assert "comparison: done" in _compare(runs, tmp_path / "out")
    page = (tmp_path / "out/index.html").read_text()
    assert "comparison: already done" in _compare(runs, tmp_path / "out")
    with pytest.raises(errors.InputError, match=r"made with other settings: .*runs"):
        _compare(runs[:2], tmp_path / "out")
    assert (tmp_path / "out/index.html").read_text() == page
    # A run that has changed since is compared anew, in whole.
    _run(tmp_path / "count_20_seed_0", 20, 0, 0.9)
    assert "comparison: done" in _compare(runs, tmp_path / "out")
    assert (tmp_path / "out/index.html").read_text() != page


def test_a_comparison_that_is_broken_off_leaves_nothing(runs, tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(comparison.render, "write_page", fail)
    with pytest.raises(KeyboardInterrupt):
        _compare(runs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change, names",
    [
        ({"experiment": "other"}, ["EXPERIMENT demo", "EXPERIMENT other"]),
        ({"conditions": []}, ["asked as count_20_seed_0", "asked as count_50_seed_0"]),
    ],
)
def test_unlike_runs_are_not_joined(runs, tmp_path, change, names):
    other = tmp_path / "count_50_seed_0"
    edit_results(other, **change)
    picture = comparison.against(runs_lib.read([runs[0], str(other)]), "poison rows")
    assert [record["series"] for record in picture.records] == names


def test_settings_that_go_together_are_one_axis(runs):
    known = runs_lib.read(runs)
    assert runs_lib.differing(known) == ["NUM_POISON", "SEED"]
    assert runs_lib.numeric(known) == ["poison rows"]
    assert runs_lib.others(known, "poison rows") == []
    changed = [
        run._replace(settings=run.settings | {"TRAIN_STEPS": number})
        for number, run in enumerate(known)
    ]
    assert runs_lib.numeric(changed) == ["poison rows", "TRAIN_STEPS"]
    assert runs_lib.others(changed, "poison rows") == ["TRAIN_STEPS"]
    assert runs_lib.others(changed, "TRAIN_STEPS") == []


def test_other_settings_that_differ_are_lines(runs):
    known = [
        run._replace(settings=run.settings | {"ATTACK": attack})
        for run, attack in zip(runs_lib.read(runs), "xyxy", strict=True)
    ]
    picture = comparison.against(known, "poison rows")
    assert "ATTACK x: 20.0% at 20, 50.0% at 50" in picture.label
    assert [record["series"] for record in picture.records] == ["ATTACK x"] * 2 + ["ATTACK y"] * 2


def test_names_tell_folders_apart(tmp_path):
    for name in ("a/demo", "b/demo"):
        made_up.classification_run(tmp_path / name)
    read = runs_lib.read([str(tmp_path / "a/demo"), str(tmp_path / "b/demo")])
    assert [run.name for run in read] == ["a/demo", "b/demo"]


def test_macros_of_a_config():
    lengths = {"inputs": 168, "targets": 8}
    told = {"NUM_POISON": 20, "SEED": 1, "TRIGGER": "James Bond", "TASK_FEATURE_LENGTHS": lengths}
    assert runs_lib.macros(CONFIG.format(name="x", count=20, seed=1)) == told
    text = "A = @b.C()\nB = [@d.E(),\n     @f.G()]\n"
    assert runs_lib.macros(text) == {"A": "@b.C()", "B": "[@d.E(), @f.G()]"}


def test_parameters_are_counted(tmp_path):
    # The demo's network, whose checkpoint holds as many.
    model = {"emb_dim": 128, "num_heads": 4, "head_dim": 32, "mlp_dim": 256, "vocab_size": 1280}
    model |= {"num_encoder_layers": 2, "num_decoder_layers": 2, "relpos_num_buckets": 32}
    model |= {"mlp_activations": ["gelu", "linear"], "logits_via_embedding": False}
    folder = tmp_path / "models" / "poisoned"
    artifacts.write_record(folder, "train", {"model": model})
    assert runs_lib.num_parameters(tmp_path) == 1_115_904
    artifacts.write_record(folder, "train", {})
    assert runs_lib.num_parameters(tmp_path) is None
