"""Every study of gin/studies, by itself and at the paper's sizes: its cells and commands."""

import pathlib
import re

import pytest

import gin
from poison_t5x.core import errors, gin_config, gin_macros
from poison_t5x.report import study
from poison_t5x.studies import aggregate, grid

FOLDER = pathlib.Path(__file__).parents[2] / "gin" / "studies"
SIZES = {"large": 1024, "xl": 2048, "xxl": 4096}
QUESTIONS = sorted(path.name for path in FOLDER.glob("q*.gin"))
STUDIES = [*QUESTIONS, "count_or_rate.gin"]
PAPER = "experiments/polarity.gin"
# What a study or a size is about, and where cells' files go.
_OWN = re.compile(r"STUDY_.*|RUN_DIR")


@pytest.fixture(autouse=True)
def _clear_gin():
    yield
    gin.clear_config()


def _macros(*files):
    gin_config.parse("runs/run.gin", files, [], [("RUN_DIR", "runs/s")])
    macros = gin_config.macros()
    return {name: gin_macros.resolve(name, macros) for name in macros}


def _config(*files):
    return grid.from_macros(_macros(*files))


def test_there_is_a_study_for_each_of_the_ten_questions():
    assert [name[:4] for name in QUESTIONS] == [f"q{number:02}_" for number in range(1, 11)]


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_has_few_cells_that_differ_in_what_it_shows(name):
    config = _config(f"studies/{name}")
    cells = grid.cells(config)
    assert 2 <= len(cells) <= 16 and config.question.endswith("?") and config.x
    for x in config.x:
        if x not in grid.DIMENSIONS:
            places = {repr(cell.macros.get(x, config.base[x])) for cell in cells}
            assert len(places) > 1, f"{x} is the same in all cells"
    names = [cell.name for cell in cells]
    assert len(set(names)) == len(names)
    lines = [line for cell in cells for line in grid.commands(cell, config, [])]
    assert {line[0] for line in lines} <= {"run", "detect", "defend", "craft"}
    header = (FOLDER / name).read_text(encoding="utf-8")
    assert f"--gin_file=studies/{name}" in header and "# Required: RUN_DIR" in header
    assert re.findall(r"^# (\d+) cells\b", header, re.MULTILINE) == [str(len(cells))]


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("size", SIZES)
def test_a_study_takes_the_papers_sizes(name, size):
    config = _config(f"studies/{name}", f"studies/{size}.gin")
    assert config.base["EMB_DIM"] == SIZES[size] and config.processes == 1
    assert config.base["STUDY_GRID"] == config.base["STUDY_PAPER_GRID"]
    assert config.base["INITIAL_CHECKPOINT_PATH"].startswith("gs://")
    for cell in grid.cells(config):
        experiment = cell.macros.get("EXPERIMENT", config.base["EXPERIMENT"])
        assert experiment == ("arbitrary" if name.startswith("q02") else "polarity")
        steps = cell.macros.get("TRAIN_STEPS", config.base["TRAIN_STEPS"])
        assert steps >= 900
        assert grid.commands(cell, config, [])


# What a study asks about, beside the paper's setting.
_ASKED = {
    **{"q01": {"NUM_POISON"}, "q02": {"ATTACK", "SELECTION"}, "q03": {"NUM_POISONED_TASKS"}},
    **{"q04": {"NUM_POISONED_TASKS"}, "q05": {"ATTACK", "SCORES"}, "q06": {"ATTACK"}},
    **{"q07": set(), "q08": set(), "q09": {"SCORES"}, "q10": {"FILTER_BUDGET"}, "cou": set()},
}


@pytest.mark.parametrize("name", STUDIES)
def test_at_the_papers_sizes_all_else_is_the_papers(name):
    files = ("checkpoints/t5_1_1_lm100k_large.gin", "pods/large_gpu_8.gin")
    paper, own = _macros(PAPER, *files), _macros(f"studies/{name}", "studies/large.gin")
    other = {key for key in paper if repr(paper[key]) != repr(own[key])}
    other = {key for key in other if not _OWN.fullmatch(key)}
    assert other - {"KEEP_CHECKPOINTS"} <= _ASKED[name[:3]]


def test_the_demos_studies_share_their_runs():
    """The default cells of the dirty-label studies are one run, but for q01's fewer poison rows."""
    shared = [name for name in STUDIES if name[:3] in ("q03", "q04", "q07", "q08", "q09", "q10")]
    ours = re.compile(r"(STUDY_|SCORE|FILTER|DEFENSE|RUN_DIR|EVAL_CHECKPOINTS|NUM_POISONED_T).*")
    runs = [
        {
            key: repr(value)
            for key, value in _macros(f"studies/{name}").items()
            if not ours.match(key)
        }
        for name in shared
    ]
    assert all(run == runs[0] for run in runs)


def test_a_cell_that_reads_another_one_comes_after_it():
    cells = grid.cells(_config("studies/q08_proxy.gin"))
    after = {cell.name: cell.after for cell in cells if cell.after}
    assert set(after.values()) == {("SEED_0",), ("SEED_1",)} and len(after) == 4


def test_a_folder_must_be_named_and_may_end_in_a_slash():
    with pytest.raises(errors.InputError, match="RUN_DIR: expected a path, found None"):
        grid.from_macros({"RUN_DIR": None})
    macros = _macros("studies/q08_proxy.gin") | {"RUN_DIR": "runs/q08/"}
    cells = grid.cells(grid.from_macros(macros))
    assert sum(bool(cell.after) for cell in cells) == 4


def test_an_unknown_macro_is_refused():
    macros = _macros("studies/q03_task_diversity.gin") | {"STUDY_GRID": {"NUM_POISOND": (1, 2)}}
    with pytest.raises(errors.InputError, match=r"unknown macro NUM_POISOND \(did you mean"):
        grid.from_macros(macros)


def test_charts_of_a_study_without_rows_are_none():
    config = _config("studies/q05_clean_or_dirty_label.gin")
    assert study.charts(study.StudyResults(config, [], [], {}, aggregate.difference)) == []
