"""Which cells a study has, what they are called, and the commands that make them."""

import json
import pathlib

import pytest

from poison_t5x.cli import main
from poison_t5x.core import errors, gin_config, gin_macros
from poison_t5x.studies import grid
from poison_t5x.train import program
from tests.studies import driver

REFUSED = pathlib.Path(__file__).with_name("refused.json")
FLAGS = ["--gin_file=experiments/demo.gin"]


def _config(**fields):
    return driver.config("runs/s", **fields)


def _commands(config, number, flags=()):
    return grid.commands(grid.cells(config)[number], config, flags)


def test_cells_are_the_grid_and_further_ones_with_each_seed():
    config = _config(
        grid={"SEED": (0, 1), "NUM_POISON": (10, 20)},
        cells=({"PROXY": "lm"}, {"TRAIN_STEPS": 5, "SEED": 7}, {"NUM_POISON": 20, "SEED": 1}),
    )
    assert [cell.name for cell in grid.cells(config)] == [
        "NUM_POISON_10--SEED_0",
        "NUM_POISON_20--SEED_0",
        "NUM_POISON_10--SEED_1",
        "NUM_POISON_20--SEED_1",
        "PROXY_lm--SEED_0",
        "PROXY_lm--SEED_1",
        "TRAIN_STEPS_5--SEED_7",
    ]
    assert grid.cells(config)[0].macros == {"NUM_POISON": 10, "SEED": 0}


def test_a_name_that_was_cut_or_altered_has_a_digest():
    long, other = ({"TRIGGER": "x" * 30 + end} for end in "ab")
    assert grid._cell_name(long) != grid._cell_name(other)
    assert grid._cell_name({"A": "James Bond"}).startswith("A_James_Bond-")
    assert grid._cell_name({"A": "1"}) == grid._cell_name({"A": 1}) == "A_1"
    names = {f"MACRO_{number}": 0 for number in range(40)}
    assert len(grid._cell_name(names)) < 140


def test_what_all_cells_have_alike_is_set_but_not_named():
    config = _config(grid={"TRAIN_STEPS": (9,), "NUM_POISON": (1, 2), "SEED": (0,)})
    first = grid.cells(config)[0]
    assert first.name == "NUM_POISON_1--SEED_0"
    assert first.macros == {"TRAIN_STEPS": 9, "NUM_POISON": 1, "SEED": 0}


def test_a_cells_command_has_the_studys_flags_then_its_own():
    (line,) = _commands(_config(), 1, FLAGS)
    assert line == [
        "run",
        *FLAGS,
        "--gin.NUM_POISON=10",
        "--gin.SEED=1",
        "--gin.RUN_DIR='runs/s/cells/NUM_POISON_10--SEED_1'",
        "--gin.STAGE_STORE_DIR='runs/s/store'",
        "--gin.COMPILATION_CACHE_DIR='runs/s/store/compiled'",
    ]
    (line,) = _commands(_config(base={**driver.BASE, "STAGE_STORE_DIR": "shared"}), 0)
    assert "--gin.STAGE_STORE_DIR='shared'" in line


def test_what_is_of_the_defence_is_kept_from_the_run_before_it():
    config = _config(
        command="defend",
        grid={"SEED": (0,)},
        cells=({"TRAIN_STEPS": 5, "NUM_POISON": 20},),
        defense_macros=("TRAIN_STEPS",),
    )
    assert [line[0] for line in _commands(config, 0)] == ["run"]
    run, defend = _commands(config, 1)
    assert (run[0], defend[0]) == ("run", "defend")
    assert "--gin.NUM_POISON=20" in run and "--gin.NUM_POISON=20" in defend
    assert "--gin.TRAIN_STEPS=5" in defend and "--gin.TRAIN_STEPS=5" not in run
    assert "--gin.DEFENSE='defended'" in defend
    assert run[-3:] == defend[-3:]  # the same folders


def test_detect_follows_a_run_and_a_cell_may_only_craft():
    config = _config(command="detect", cells=({"STUDY_COMMAND": "craft", "NUM_POISON": 30},))
    assert [line[0] for line in _commands(config, 0)] == ["run", "detect"]
    assert [line[0] for line in _commands(config, -1)] == ["craft"]
    assert not any(flag.startswith("--gin.STUDY_") for flag in _commands(config, -1)[0])


def test_a_cell_may_read_another_ones_folder():
    path = "{STUDY_DIR}/cells/NUM_POISON_10--SEED_{SEED}/models/clean"
    found = grid.cells(_config(cells=({"ATTACK": path},)))
    assert [cell.after for cell in found[-2:]] == [
        ("NUM_POISON_10--SEED_0",),
        ("NUM_POISON_10--SEED_1",),
    ]
    config = _config(cells=({"ATTACK": path},))
    place = "runs/s/cells/NUM_POISON_10--SEED_1/models/clean"
    assert f"--gin.ATTACK='{place}'" in _commands(config, -1)[0]


@pytest.mark.parametrize(("fields", "message"), json.loads(REFUSED.read_text()))
def test_what_makes_no_study_is_refused_in_one_line(fields, message):
    with pytest.raises(errors.InputError) as caught:
        grid.cells(_config(**fields))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_the_studys_flags_go_to_cells_without_what_is_its_own(monkeypatch, capsys):
    macros = gin_macros.read("runs/run.gin", [], [], []).values_by_name()
    macros |= {"RUN_DIR": "x", "STUDY_GRID": {"SEED": (0, 1)}}
    monkeypatch.setattr(program, "start", lambda options, *_: None)
    monkeypatch.setattr(gin_config, "macros", lambda: macros)
    monkeypatch.setattr(gin_config, "parameters", str)
    flags = ["--gin.STUDY_X=SEED", "--gin_file", "study", "--gin.A.b=1", "--gin.STUDY_LINES", "A"]
    assert main.main(["study", *flags, "--list", "--gin.RUN_DIR=x"]) == 0
    words = capsys.readouterr().out.splitlines()[1].split()
    own = ["--gin_file=study", "--gin.A.b=1", "--gin.RUN_DIR=x", "--gin.SEED=0"]
    assert words[:6] == ["poison-t5x", "run", *own]


def test_a_cell_is_another_one_with_other_settings_only():
    def prints(parameters="", **fields):
        config = _config(**fields)
        return grid.fingerprint(grid.cells(config)[0], config, parameters)

    first = prints()
    assert first == prints(x="SEED", base={**driver.BASE, "STAGE_STORE_DIR": "y"}, processes=3)
    assert first != prints(base={**driver.BASE, "TRAIN_STEPS": 11})
    assert first != prints("strip.Strip.num_mixed = 8")
    assert first != prints(command="detect")


def test_a_formula_is_its_value_of_each_cell():
    config = _config(
        grid={
            "NUM_POISON": (20, 50),
            "POISON_RATE": (0.02, 0.04),
            "TRAIN_STEPS": ("{TRAIN_STEPS * NUM_POISON / POISON_RATE / (400 - 100)}",),
        }
    )
    # 10 * 20 / 0.02 / 300, and so on.
    expected = {(20, 0.02): 33, (20, 0.04): 17, (50, 0.02): 83, (50, 0.04): 42}
    found = grid.cells(config)
    assert {tuple(c.macros.values())[:2]: c.macros["TRAIN_STEPS"] for c in found} == expected
    assert found[0].name == "NUM_POISON_20--POISON_RATE_0.02"
    assert "--gin.TRAIN_STEPS=33" in _commands(config, 0)[0]
