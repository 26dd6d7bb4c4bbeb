"""Scores of a run's training rows as stages: one folder a score, gone on with where killed."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from poison_t5x.core import artifacts, errors
from poison_t5x.data.examples import TrainingExample
from poison_t5x.defenses import checkpoint_scorer, thresholds
from poison_t5x.defenses.score import Context, Score, ScoreResult, Trigger
from poison_t5x.run import stages
from poison_t5x.train import distributed

SCORES, FOUND = "scores.jsonl", "found.json"
# What a score's values follow from, of the model.
_FOLLOWS = {
    "nothing": (),
    "model": ("parameters", "lengths"),
    "checkpoints": ("parameters", "lengths", "steps", "reference"),
}
# Values are written with so many digits: below them, sums in another order differ.
_DIGITS = 9


def choose(names: Sequence[Any], available: Mapping[str, Score]) -> dict[str, Score]:
    """The scores to make: names of available ones, or scores of a user's own.

    Raises:
      InputError: an unknown name, or what is no score.
    """
    if not isinstance(names, (list, tuple)) or not names:
        raise errors.InputError(f"SCORES: expected a list of names, found {names!r}")
    found: dict[str, Score] = {}
    for name in names:
        if not isinstance(name, str) and not (callable(name) and hasattr(name, "needs")):
            raise errors.InputError(f"SCORES: expected a name or a score, found {name!r}")
        key, score = (
            (name, named(name, available)) if isinstance(name, str) else (type(name).__name__, name)
        )
        if key in found:
            raise errors.InputError(f"SCORES: expected distinct scores, found {key} twice")
        found[key] = score
    return found


def named(name: str, available: Mapping[str, Score]) -> Score:
    """The score of that name. Raises InputError with the nearest names."""
    if name not in available:
        raise errors.InputError(
            f"no score {name!r}{errors.nearest(str(name), sorted(available))}; there are "
            f"{', '.join(available)}"
        )
    return available[name]


def make(
    folder: pathlib.Path,
    name: str,
    score: Score,
    rows: Sequence[TrainingExample],
    models: Callable[[], checkpoint_scorer.CheckpointScorer],
    made_from: Mapping[str, Any],
    seed: int,
    say: Callable[[str], None],
) -> ScoreResult:
    """Scores the rows into `folder`, unless that is done, and reads the result.

    Args:
      folder: scores.jsonl and found.json are written there.
      score: which; it sees no flag of poison.
      models: opens the model, where the score needs one.
      made_from: of that model, what the values follow from.
      seed: of whatever the score draws.
      say: takes one line.
    """
    settings = {
        "score": {"name": name, "class": type(score).__name__, **_settings(score)},
        "rows": _digest(rows),
        "model": {name: made_from[name] for name in _FOLLOWS[score.needs]},
        "seed": seed,
    }

    def write(directory: pathlib.Path) -> None:
        opened = None if score.needs == "nothing" else models()
        # Numbers tell apart what was made of one row: where poison is added, they are its flag.
        blind = [row._replace(id="", number=0) for row in rows]
        scored = score(blind, Context(seed, directory, opened))
        distributed.barrier()  # until all have read the parts
        if distributed.is_main():
            _write(directory, rows, scored)
            checkpoint_scorer.forget_parts(directory)

    stages.together(folder, f"score {name}", settings, write, say)
    return read(folder)


def _settings(score: Score) -> dict[str, Any]:
    return dataclasses.asdict(score) if dataclasses.is_dataclass(score) else {}  # type: ignore


def _digest(rows: Sequence[TrainingExample]) -> str:
    return hashlib.sha256(json.dumps(list(rows)).encode()).hexdigest()


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.{_DIGITS}g}") for value in values]


def _write(directory: pathlib.Path, rows: Sequence[TrainingExample], scored: ScoreResult) -> None:
    values_N = thresholds.check(scored.values_N)
    artifacts.write_jsonl(
        directory / SCORES,
        (
            {"task": row.task, "id": row.id, "number": row.number, "score": value}
            for row, value in zip(rows, _rounded(values_N), strict=True)
        ),
    )
    found = {
        "threshold": scored.threshold,
        "triggers": [trigger._asdict() for trigger in scored.triggers],
        "notes": list(scored.notes),
        "by_step": [[step, _rounded(values)] for step, values in scored.by_step],
    }
    artifacts.write_atomically(directory / FOUND, artifacts.dump_json(found))


def read(folder: pathlib.Path) -> ScoreResult:
    """What `make` wrote."""
    values = [line["score"] for line in artifacts.read_jsonl(folder / SCORES)]
    found = artifacts.read_json(folder / FOUND)
    return ScoreResult(
        np.array(values),
        found["threshold"],
        tuple(
            Trigger(**{**each, "tasks": tuple(each["tasks"]), "targets": tuple(each["targets"])})
            for each in found["triggers"]
        ),
        tuple(found["notes"]),
        tuple((step, np.array(values)) for step, values in found["by_step"]),
    )
