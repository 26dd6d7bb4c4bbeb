"""`poison-t5x sweep`: poison count against poison rate, one run a cell.

A rate of 2% is 20 poison rows among 1,000 and 100 among 5,000; which of the two decides? A cell has
`count` poison rows in a training set that is so large that they are `rate` of it. Cells share what
is common: the corpus, the vocabulary, and the clean model where the training rows are the same.
"""

import csv
import functools
import io
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from poison_t5x.core import artifacts, checks, errors
from poison_t5x.corpus import sni

FIELDS = (
    *("count", "rate", "training_rows", "train_steps", "seed"),
    *("measure", "clean", "poisoned", "control", "effect", "ci95_low", "ci95_high", "folder"),
)


class Cell(NamedTuple):
    """One run of the sweep; `rate` is the poisoned fraction of its training rows."""

    count: int
    rate: float
    rows_per_task: int
    train_steps: int

    @property
    def name(self) -> str:
        return f"count_{self.count}_rate_{self.rate:g}"

    @property
    def macros(self) -> dict[str, str]:
        """What the cell sets."""
        return {
            "NUM_POISON": str(self.count),
            "POISON_RATE": "None",
            "NUM_TRAIN_PER_TASK": str(self.rows_per_task),
            "TRAIN_STEPS": str(self.train_steps),
        }


def cells(
    counts: Sequence[int],
    rates: Sequence[float],
    tasks: Sequence[sni.Task],
    *,
    rows_per_task: int,
    train_steps: int,
) -> list[Cell]:
    """The cells of a sweep, by rate and count.

    Every cell trains for as many epochs as the experiment itself does, so that each row, poison or
    not, is seen as often: its steps are in proportion to its rows.

    Args:
      counts: poison rows.
      rates: poisoned fractions of the training set.
      tasks: the training tasks.
      rows_per_task, train_steps: of the experiment without a sweep.

    Raises:
      InputError: a number is no count or rate, or a cell needs more rows than the tasks have.
    """
    for name, values in (("SWEEP_COUNTS", counts), ("SWEEP_RATES", rates)):
        if not isinstance(values, (list, tuple)) or not values or len(set(values)) < len(values):
            raise errors.InputError(
                f"{name}: expected a list of distinct numbers, found {values!r}"
            )
    for count in counts:
        checks.whole_number("SWEEP_COUNTS", count)
    for rate in rates:
        checks.number("SWEEP_RATES", rate)
        if not 0 < rate < 1:
            raise errors.InputError(f"SWEEP_RATES: expected fractions, found {rate!r}")
    smallest = min(len(task.instances) for task in tasks)
    rows_now = min(rows_per_task, smallest)
    found = []
    for rate in sorted(rates):
        for count in sorted(counts):
            rows = round(count / rate / len(tasks))
            if not 0 < rows <= smallest:
                raise errors.InputError(
                    f"SWEEP_COUNTS, SWEEP_RATES: {count} poison rows at a rate of {rate:g} take "
                    f"{rows} training rows a task; the smallest of the {len(tasks)} tasks has "
                    f"{smallest}"
                )
            steps = max(1, round(train_steps * rows / rows_now))
            found.append(Cell(count, rate, rows, steps))
    return found


def row(cell: Cell, results: Mapping[str, Any], folder: str, training_rows: int) -> dict[str, Any]:
    """One line of the table, from a cell's results."""
    effect, summary = results["effect"], results["summary"]
    measure = effect["measure"]
    control = "rouge_l_control" if results["kind"] == "generation" else "control_misclassification"
    low, high = effect.get("ci95") or (None, None)
    values = (
        *(cell.count, cell.rate, training_rows, cell.train_steps, results["seed"]),
        *(measure, summary["clean"][measure], summary["poisoned"][measure]),
        *(summary["poisoned"][control], effect["value"], low, high, folder),
    )
    return dict(zip(FIELDS, values, strict=True))


def write(directory: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes sweep.csv and sweep.json."""
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    artifacts.write_atomically(directory / "sweep.csv", text.getvalue())
    artifacts.write_atomically(directory / "sweep.json", artifacts.dump_json(list(rows)))


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rates down, counts across; in each cell poisoned, clean and effect, in percent."""
    counts = sorted({entry["count"] for entry in rows})
    rates = sorted({entry["rate"] for entry in rows})
    found = {(entry["rate"], entry["count"]): entry for entry in rows}
    measure = rows[0]["measure"].replace("_", " ")
    lines = [f"{measure}, percent: poisoned model (effect: minus the clean model), by poison rows"]
    lines.append("rate \\ rows" + "".join(f"{count:>20}" for count in counts))
    for rate in rates:
        shown = [_shown(found.get((rate, count))) for count in counts]
        lines.append(f"{rate:>11.2%}" + "".join(f"{text:>20}" for text in shown))
    return "\n".join(lines)


def _shown(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return "–"
    if entry["poisoned"] is None:
        return "no rows"
    return f"{100 * entry['poisoned']:.1f} ({100 * entry['effect']:+.1f})"


def sweep(
    directory: pathlib.Path,
    found: Sequence[Cell],
    make_run: Callable[[Cell, pathlib.Path], Any],
    save_config: Callable[[Cell, pathlib.Path], None],
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Runs the cells one after the other; those that are done are passed over.

    Args:
      directory: the sweep's folder; each cell gets a folder in it.
      found: the cells.
      make_run: a cell and its folder -> an `experiment.Run`.
      save_config: writes down how a cell is run alone, before its report, which shows it.
      say: takes one line.

    Returns:
      The table's rows.
    """
    rows = []
    for number, cell in enumerate(found, start=1):
        say(f"cell {number} of {len(found)}: {cell.count} poison rows, rate {cell.rate:g}")
        folder = directory / cell.name
        run = make_run(cell, folder)
        run.run(functools.partial(save_config, cell, folder))
        results = artifacts.read_json(folder / "report" / "results.json")
        manifest = artifacts.read_json(folder / "poison" / "manifest.json")
        rows.append(row(cell, results, cell.name, manifest["num_training"]))
        write(directory, rows)
    return rows
