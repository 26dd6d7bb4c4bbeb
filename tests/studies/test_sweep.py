"""Sweeps of poison count against poison rate: which cells there are, and what is written."""

import csv
import json

import pytest

from poison_t5x.core import artifacts, errors
from poison_t5x.corpus import sni
from poison_t5x.studies import sweep


def _task(name, num_rows):
    rows = tuple(sni.Instance(f"{name}-{row}", f"Text {row}", ["yes"]) for row in range(num_rows))
    return sni.Task(name, "Is it?", (), (), rows)


TASKS = (_task("task1_a", 240), _task("task2_b", 300))
BASE = {"rows_per_task": 100, "train_steps": 600}


def test_cells_on_paper():
    # Four poison rows at 2% are of 200 rows, 100 a task: the experiment as it is.
    assert sweep.cells([4, 8], [0.02, 0.04], TASKS, **BASE) == [
        sweep.Cell(4, 0.02, 100, 600),
        sweep.Cell(8, 0.02, 200, 1200),
        sweep.Cell(4, 0.04, 50, 300),
        sweep.Cell(8, 0.04, 100, 600),
    ]


def test_a_cell_sets_its_macros():
    cell = sweep.Cell(4, 0.02, 100, 600)
    assert cell.name == "count_4_rate_0.02"
    assert cell.macros == {
        "NUM_POISON": "4",
        "POISON_RATE": "None",
        "NUM_TRAIN_PER_TASK": "100",
        "TRAIN_STEPS": "600",
    }


@pytest.mark.parametrize(
    ("counts", "rates", "message"),
    [
        (5, [0.1], "SWEEP_COUNTS: expected a list of distinct numbers, found 5"),
        ([5, 5], [0.1], "SWEEP_COUNTS: expected a list of distinct numbers"),
        ([], [0.1], "SWEEP_COUNTS: expected a list"),
        ([0], [0.1], "SWEEP_COUNTS: expected a whole number of at least 1, found 0"),
        ([5], [1.0], "SWEEP_RATES: expected fractions, found 1.0"),
        ([5], ["x"], "SWEEP_RATES: expected a number, found 'x'"),
        (
            [9],
            [0.01],
            "9 poison rows at a rate of 0.01 take 450 training rows a task; the smallest",
        ),
    ],
)
def test_what_no_cell_can_be_made_of_is_refused(counts, rates, message):
    with pytest.raises(errors.InputError) as caught:
        sweep.cells(counts, rates, TASKS, **BASE)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def _results(poisoned, clean=0.1):
    return {
        "kind": "classification",
        "seed": 3,
        "summary": {
            "clean": {"triggered_misclassification": clean},
            "poisoned": {
                "triggered_misclassification": poisoned,
                "control_misclassification": 0.2,
            },
        },
        "effect": {
            "measure": "triggered_misclassification",
            "value": poisoned - clean,
            "ci95": [0.1, 0.9],
        },
    }


class _Run:
    """A run that writes what a sweep reads."""

    def __init__(self, folder, cell):
        self._folder, self._cell = folder, cell

    def run(self, save_config):
        manifest = json.dumps({"num_training": 2 * self._cell.rows_per_task})
        artifacts.write_atomically(self._folder / "poison" / "manifest.json", manifest)
        save_config()
        report = json.dumps(_results(self._cell.count / 10))
        artifacts.write_atomically(self._folder / "report" / "results.json", report)


def _sweep(directory, found):
    said = []
    rows = sweep.sweep(
        directory,
        found,
        lambda cell, folder: _Run(folder, cell),
        lambda cell, folder: artifacts.write_atomically(folder / "command.txt", cell.name),
        said.append,
    )
    return rows, said


def test_cells_are_run_in_their_order(tmp_path):
    found = sweep.cells([4, 8], [0.02, 0.04], TASKS, **BASE)
    rows, said = _sweep(tmp_path, found)
    assert said[0] == "cell 1 of 4: 4 poison rows, rate 0.02"
    assert [row["poisoned"] for row in rows] == [0.4, 0.8, 0.4, 0.8]
    assert _sweep(tmp_path, found)[0] == rows


def test_the_table_is_written_for_people_and_programs(tmp_path):
    found = sweep.cells([4, 8], [0.02], TASKS, **BASE)
    rows, _ = _sweep(tmp_path, found)
    with open(tmp_path / "sweep.csv", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert tuple(read[0]) == sweep.FIELDS
    assert (read[0]["count"], read[0]["training_rows"], read[0]["effect"]) == (
        "4",
        "200",
        "0.30000000000000004",
    )
    assert artifacts.read_json(tmp_path / "sweep.json") == rows
    lines = sweep.format_table(rows).splitlines()
    assert lines[1].split() == ["rate", "\\", "rows", "4", "8"]
    assert lines[2].split() == ["2.00%", "40.0", "(+30.0)", "80.0", "(+70.0)"]


def test_a_missing_cell_and_one_without_rows_are_shown_as_such():
    rows = [
        sweep.row(sweep.Cell(4, 0.02, 1, 1), _results(0.4), "a", 200),
        sweep.row(sweep.Cell(8, 0.04, 1, 1), _results(0.4), "b", 200),
    ]
    rows[1] |= {"poisoned": None, "effect": None}
    text = sweep.format_table(rows)
    assert text.splitlines()[2].split() == ["2.00%", "40.0", "(+30.0)", "–"]
    assert text.splitlines()[3].split() == ["4.00%", "–", "no", "rows"]
