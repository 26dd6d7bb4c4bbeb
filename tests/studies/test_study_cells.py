"""Which cells a study has, what they are called, and the commands that make them."""

import json
import pathlib

import pytest

from poison_t5x.cli import main, study
from poison_t5x.core import errors, gin_config, gin_macros
from poison_t5x.studies import command, grid
from poison_t5x.train import program
from tests.golden import expect
from tests.studies import driver

REFUSED = pathlib.Path(__file__).with_name("refused.json")


def _config(**fields):
    return driver.config("runs/s", **fields)


def test_a_name_that_was_cut_or_altered_has_a_digest():
    long, other = ({"TRIGGER": "x" * 30 + end} for end in "ab")
    assert grid._cell_name(long) != grid._cell_name(other)
    assert grid._cell_name({"A": "James Bond"}).startswith("A_James_Bond-")
    assert grid._cell_name({"A": "1"}) == grid._cell_name({"A": 1}) == "A_1"
    names = {f"MACRO_{number}": 0 for number in range(40)}
    assert len(grid._cell_name(names)) < 140


STUDIES = {
    "the grid, and further cells with each seed": {
        "grid": {"SEED": (0, 1), "NUM_POISON": (10, 20)},
        "cells": [{"PROXY": "lm"}, {"TRAIN_STEPS": 5, "SEED": 7}, {"NUM_POISON": 20, "SEED": 1}],
    },
    "what all cells have alike is set but not named": {
        "grid": {"TRAIN_STEPS": (9,), "NUM_POISON": (1, 2), "SEED": (0,)}
    },
    "a store that studies share": {"base": {**driver.BASE, "STAGE_STORE_DIR": "shared"}},
    "what is of the defence is kept from the run before it": {
        "command": "defend",
        "grid": {"SEED": (0,)},
        "cells": [{"TRAIN_STEPS": 5, "NUM_POISON": 20}],
        "defense_macros": ("TRAIN_STEPS",),
    },
    "detect follows a run, and a cell may only craft": {
        "command": "detect",
        "cells": [{"STUDY_COMMAND": "craft", "NUM_POISON": 30}],
    },
    "a cell may read another one's folder": {
        "cells": [{"ATTACK": "{STUDY_DIR}/cells/NUM_POISON_10--SEED_{SEED}/models/clean"}]
    },
    # 10 * 20 / 0.02 / 300, and so on.
    "a formula is its value of each cell": {
        "grid": {
            "NUM_POISON": (20, 50),
            "POISON_RATE": (0.02, 0.04),
            "TRAIN_STEPS": ("{TRAIN_STEPS * NUM_POISON / POISON_RATE / (400 - 100)}",),
        }
    },
}


def test_cells_and_their_commands():
    lines = []
    for title, fields in STUDIES.items():
        lines += ["", f"{title}:"]
        study = command.Study(_config(**fields), [], ["--gin_file=experiments/demo.gin"])
        assert study.show(lines.append) == 0
    expect(__file__, "cells", "\n".join(lines[1:]))


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
    monkeypatch.setattr(study, "_check", lambda *_: None)
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
