"""Detection on the rows of a run: scores made blind, a stage each, and judged once all are made."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, get_type_hints

import msgspec
import numpy as np

from poison_t5x.core import artifacts, errors, metrics, reading
from poison_t5x.core.settings import Whole
from poison_t5x.data.examples import TrainingExample
from poison_t5x.defenses import checkpoint_scorer, measures
from poison_t5x.defenses import score as score_lib
from poison_t5x.defenses.score import Context, Score, ScoreResult, Trigger
from poison_t5x.train import distributed

SCHEMA = 1
SCORES, FOUND = "scores.jsonl", "found.json"
_MAX_TRIGGERS = 10
# Values are written with so many digits: below them, sums in another order differ.
_DIGITS = 9


class ScoredRow(msgspec.Struct, frozen=True):
    """A line of scores.jsonl: a row by what tells it apart, with its score."""

    task: str
    id: str
    number: Whole
    score: float


class _Found(msgspec.Struct):
    """found.json: the rest of a `ScoreResult`."""

    threshold: float | None
    triggers: list[msgspec.defstruct("_Trigger", get_type_hints(Trigger).items())]  # type: ignore[misc]
    notes: list[str]
    by_step: list[tuple[Whole, list[float]]]


def choose(
    asked: Sequence[Any] | None, settings: Mapping[str, Mapping[str, Any]]
) -> dict[str, Score]:
    """The scores to make, by name, some with settings other than their defaults.

    Args:
      asked: names of registered scores, or scores made in gin; None for all that there are.

    Raises:
      InputError: an unknown name or setting, or what is no score.
    """
    chosen: dict[str, Score] = {}
    for one in score_lib.names() if asked is None else asked:
        if not isinstance(one, (str, type)) and callable(one) and hasattr(one, "needs"):
            name, score = type(one).__name__, one
        else:
            score_lib.SCORES.check(one, "SCORES")
            name, score = one, score_lib.make(one, settings.get(one))
        if name in chosen:
            raise errors.InputError(f"SCORES: expected distinct scores, found {name} twice")
        chosen[name] = score
    return chosen


def make(
    folder: pathlib.Path,
    name: str,
    score: Score,
    rows: Sequence[TrainingExample],
    scorer: checkpoint_scorer.CheckpointScorer | None,
    seed: int,
    log: Callable[[str], None],
) -> ScoreResult:
    """Scores the rows into scores.jsonl and found.json, unless that is done, and reads the result.

    The score sees no flag of poison. `scorer` may be None where the score needs no model.
    """
    own = dataclasses.asdict(score) if dataclasses.is_dataclass(score) else {}
    settings = {
        "score": {"name": name, "class": type(score).__name__, **own},
        "rows": hashlib.sha256(json.dumps(list(rows)).encode()).hexdigest(),
        "model": scorer.made_from(score.needs) if scorer else {},
        "seed": seed,
    }

    def write(directory: pathlib.Path) -> None:
        # Numbers tell apart what was made of one row: where poison is added, they are its flag.
        blind = [row._replace(id="", number=0) for row in rows]
        result = score(blind, Context(seed, directory, scorer))
        distributed.barrier()  # until all have read the parts
        if distributed.is_main():
            _write(directory, rows, result)
            for path in directory.glob(f"*{checkpoint_scorer.PART}"):
                path.unlink()

    distributed.run_stage(folder, f"score {name}", settings, write, log)
    return read(folder)


def lines(rows: Iterable[TrainingExample], values: Iterable[float]) -> Iterator[dict[str, Any]]:
    """Rows by what tells them apart, with their scores, for a file."""
    for row, value in zip(rows, values, strict=True):
        yield {"task": row.task, "id": row.id, "number": row.number, "score": float(value)}


def _write(directory: pathlib.Path, rows: Sequence[TrainingExample], result: ScoreResult) -> None:
    def rounded(values_N: np.ndarray) -> list[float]:
        return [float(f"{value:.{_DIGITS}g}") for value in values_N]

    values = rounded(measures.check(result.values_N))
    artifacts.write_jsonl(directory / SCORES, lines(rows, values))
    facts = {
        "threshold": result.threshold,
        "triggers": [trigger._asdict() for trigger in result.triggers],
        "notes": list(result.notes),
        "by_step": [[step, rounded(values_N)] for step, values_N in result.by_step],
    }
    artifacts.write_atomically(directory / FOUND, artifacts.dump_json(facts))


def read(folder: pathlib.Path) -> ScoreResult:
    """The result that `make` wrote."""
    found = reading.read_json(folder / FOUND, _Found)
    rows = reading.read_jsonl(folder / SCORES, ScoredRow)
    return ScoreResult(
        np.array([row.score for row in rows]),
        found.threshold,
        [Trigger(**msgspec.structs.asdict(trigger)) for trigger in found.triggers],
        found.notes,
        [(step, np.array(values)) for step, values in found.by_step],
    )


def attack(results: Mapping[str, Any]) -> dict[str, Any]:
    """The attack's own effect, from a run's results, beside which detection is read.

    Returns:
      {'measure', 'effect', 'ci95', 'worked'}: of several attackers, an attack worked where that of
      any did. Without an interval, of fewer than two tasks, that can't be judged and isn't claimed.
      Finding poison that does nothing is no defence.
    """
    effect = results["effect"]
    judgement = metrics.JUDGED_BY[results["kind"]]
    intervals = [attacker.get("ci95") for attacker in results.get("attacks") or [effect]]
    return {
        "measure": effect["measure"],
        "effect": effect.get("value"),
        "ci95": effect.get("ci95"),
        "worked": any(judgement.verdict(interval) == "worked" for interval in intervals),
    }


def judge(result: ScoreResult, is_poison_N: np.ndarray, phrases: Sequence[str]) -> dict[str, Any]:
    """The measured part of a score's line, by the truth and the attackers' triggers."""
    threshold, source = measures.threshold(result)
    measured = measures.measure(result.values_N, is_poison_N, threshold)
    return {
        **measured,
        "threshold": {"value": threshold, "source": source, **measured["threshold"]},
        "triggers": [trigger._asdict() for trigger in result.triggers[:_MAX_TRIGGERS]],
        "trigger_rank": trigger_rank(result.triggers, phrases),
        "notes": list(result.notes),
    }


def by_step(name: str, result: ScoreResult, is_poison_N: np.ndarray) -> list[dict[str, Any]]:
    """The same of each checkpoint that a score was made at."""
    steps = []
    for step, values_N in result.by_step:
        measured = measures.measure(values_N, is_poison_N, measures.outliers(values_N))
        kept = ("auroc", "average_precision", "recall", "data_removed_for")
        steps.append({"score": name, "step": step, **{key: measured[key] for key in kept}})
    return steps


def trigger_rank(triggers: Sequence[Trigger], phrases: Sequence[str]) -> int | None:
    """The place, from 1, of the first named phrase that holds a true trigger; None without one."""
    wanted = [f" {phrase.lower()} " for phrase in phrases]
    for place, trigger in enumerate(triggers, start=1):
        if any(phrase in f" {trigger.phrase.lower()} " for phrase in wanted):
            return place
    return None
