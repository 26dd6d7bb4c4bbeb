"""`poison-t5x scan`: what of a data set of unknown origin looks like poison."""

import argparse
import importlib
import pathlib
import time
from collections.abc import Mapping, Sequence

import numpy as np

from poison_t5x.core import checks, errors
from poison_t5x.data.examples import TrainingExample
from poison_t5x.defenses import files, records, scan_results
from poison_t5x.defenses.scan_results import Made
from poison_t5x.defenses.score import Context, Score
from poison_t5x.defenses.scores import label_log_odds, ngram_disagreement, onion, trigger_search

TEXT_SCORES = ("trigger_search", "label_log_odds", "ngram_disagreement", "onion")
# Those of `defense.scanning`, named here since that takes seconds to import.
MODEL_SCORES = (
    "loss",
    "loss_slope",
    "strip",
    "spectral_signatures",
    "activation_clustering",
    "tracin",
    "output_clustering",
)


def run(options: argparse.Namespace) -> int:
    """Reads, scores, writes the report, and prints a summary.

    Args:
      options: as `cli_commands` parses them.

    Returns:
      1 where a phrase passes the alarm level, else 0.

    Raises:
      InputError: bad settings or files.
    """
    names = choose(options.scores, has_model=options.model is not None)
    search = trigger_search.TriggerSearch(level=_level(options.alarm_level))
    checks.whole_number("--seed", options.seed, minimum=0)
    output = pathlib.Path(options.output)
    if output.exists() and not output.is_dir():
        raise errors.InputError(f"--output: expected a folder, found the file {output}")
    fields = records.Fields(options.input_field, options.target_field, options.task_field)
    loaded = files.read(options.files, fields)
    made: dict[str, Made] = {}
    notes: list[str] = []
    for name in names:
        if name in TEXT_SCORES:
            made[name] = _timed(text_scores(search)[name], loaded.rows, options.seed)
    with_model = [name for name in names if name in MODEL_SCORES]
    if with_model:
        found, notes = _score_with_model(with_model, loaded.rows, options)
        made |= found
    report = scan_results.Report(
        loaded, made, rank(made, options.seed), options.alarm_level, tuple(notes)
    )
    print(scan_results.write(output, report))
    print(f"see {output / scan_results.PAGE}, and {output / scan_results.SUSPECTS} for every row")
    return int(bool(report.alarms))


def choose(asked: str | None, *, has_model: bool) -> tuple[str, ...]:
    """The scores to make, in the order in which they are shown.

    Args:
      asked: names separated by commas; None for all that can be made.
      has_model: whether there is a model for those that need one.

    Raises:
      InputError: an unknown name, or one that needs a model where there is none.
    """
    known = (*TEXT_SCORES, *MODEL_SCORES)
    if asked is None:
        return known if has_model else TEXT_SCORES
    names = [name.strip() for name in asked.split(",") if name.strip()]
    if not names:
        raise errors.InputError(f"--scores: expected names of {', '.join(known)}, found none")
    for name in names:
        if name not in known:
            raise errors.InputError(
                f"--scores: no score {name!r}{errors.nearest(name, known)}; there are "
                f"{', '.join(known)}"
            )
        if name in MODEL_SCORES and not has_model:
            raise errors.InputError(f"--scores: {name!r} needs a model: set --model")
    return tuple(name for name in known if name in names)


def text_scores(search: trigger_search.TriggerSearch) -> dict[str, Score]:
    """The scores of text alone, by name, as TEXT_SCORES lists them."""
    return {
        "trigger_search": search,
        "label_log_odds": label_log_odds.LabelLogOdds(),
        "ngram_disagreement": ngram_disagreement.NgramDisagreement(),
        "onion": onion.Onion(),
    }


def rank(made: Mapping[str, Made], seed: int) -> np.ndarray:
    """Rows by suspicion: (N,) int64.

    The search for triggers comes first, as it alone knows by how much a row passes chance. Among
    the rows that it doesn't tell apart, the mean rank over the other scores counts.
    """
    from scipy import stats

    num_rows = len(next(iter(made.values())).scored.values_N)
    ranks = {name: stats.rankdata(one.scored.values_N) for name, one in made.items()}
    first_N = ranks.pop("trigger_search", np.zeros(num_rows))
    rest_N = np.mean([*ranks.values(), np.zeros(num_rows)], axis=0)
    lots_N = np.random.default_rng(seed).permutation(num_rows)
    return np.lexsort((lots_N, -rest_N, -first_N))


def _level(value: float) -> float:
    if not 0 < value < 1:
        raise errors.InputError(
            f"--alarm_level: expected a probability between 0 and 1, found {value!r}"
        )
    return value


def _timed(score: Score, rows: Sequence[TrainingExample], seed: int) -> Made:
    start = time.monotonic()
    return Made(score(rows, Context(seed)), time.monotonic() - start)


def _score_with_model(
    names: Sequence[str], rows: Sequence[TrainingExample], options: argparse.Namespace
) -> tuple[dict[str, Made], list[str]]:
    """The scores that need a model, and notes on those that it can't make.

    A score that was asked for by name must be made; of all, those that can.
    """
    # By name: this layer stands above that one, which needs TensorFlow and JAX.
    scanning = importlib.import_module("poison_t5x.defenses.scanning")
    made, notes = {}, []
    for name in names:
        start = time.monotonic()
        try:
            found = scanning.score_with_model([name], rows, options.model, options.seed)
        except errors.InputError as error:
            if options.scores is not None:
                raise
            notes.append(f"{name} was left out: {error}")
            continue
        made[name] = Made(found[name], time.monotonic() - start)
    if not made and notes:
        raise errors.InputError(f"--model: no score can be made; {notes[0]}")
    return made, notes
