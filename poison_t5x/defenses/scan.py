"""`poison-t5x scan`: rows of unknown origin, scored; scan.json, suspects.jsonl, and a page."""

import argparse
import collections
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

import poison_t5x
from poison_t5x.core import artifacts, errors, locks, settings
from poison_t5x.corpus import data_files, declarations, instruction_files
from poison_t5x.data.examples import TrainingExample, by_task
from poison_t5x.defenses import measures, ngrams
from poison_t5x.defenses import score as score_lib
from poison_t5x.defenses.score import Context, ScoreResult
from poison_t5x.report import render, tables
from poison_t5x.report.examples import excerpt

RESULT, SUSPECTS, PAGE = "scan.json", "suspects.jsonl", "index.html"
SEARCH = "trigger_search"
# Rows of each phrase, and of all, that the page shows; characters of an answer.
_NUM_EXAMPLES, _NUM_SHOWN, _ANSWER_SHOWN = 3, 50, 60


# Score -> its result, and the seconds that it took.
Results = Mapping[str, tuple[ScoreResult, float]]


class Loaded(NamedTuple):
    """Rows to score, each one's place, the number of rows of each file, and what wasn't read."""

    rows: list[TrainingExample]
    places: list[str]
    files: Mapping[pathlib.Path, int]
    notes: Sequence[str] = ()


def run(options: argparse.Namespace) -> int:
    """Reads, scores, writes the report, and prints a summary, by the command's options.

    Returns:
      1 where a phrase passes the alarm level, else 0.

    Raises:
      InputError: bad settings or files.
    """
    declarations.import_module(options.module)
    names = choose(options.scores, has_model=options.model is not None)
    settings.checked("--alarm_level", options.alarm_level, settings.Fraction)
    settings.checked("--seed", options.seed, settings.Whole)
    output = pathlib.Path(settings.checked("--output", options.output, settings.Folder))
    with locks.alone(output):
        return _run(names, output, options)


def _run(names: Sequence[str], output: pathlib.Path, options: argparse.Namespace) -> int:
    given = options.input_field, options.target_field, options.task_field
    inputs = list(settings.checked("FILE", options.files, Sequence[settings.Path]))
    loaded = read(inputs, instruction_files.Fields(*given))
    results, notes = _score(names, loaded.rows, options)
    result = summarize(loaded, results, options.alarm_level, notes)
    print(write(output, loaded, results, result, options.seed))
    print(f"see {output / PAGE}, and {output / SUSPECTS} for every row")
    return int(result["alarm"])


def read(paths: Sequence[str], given: instruction_files.Fields) -> Loaded:
    """Rows of files and folders, as training examples; see `instruction_files.read`."""
    found = instruction_files.read(paths, given)
    loaded = Loaded([], [row.place for row in found.rows], found.files, found.notes)
    seen = collections.Counter[tuple[str, str]]()
    for index, row in enumerate(found.rows):
        key = row.task, row.id or str(index)
        loaded.rows.append(TrainingExample(*key, seen[key], row.input, row.target, row.prompt))
        seen[key] += 1
    return loaded


def choose(asked: str | None, *, has_model: bool) -> tuple[str, ...]:
    """The scores to make, in the order in which they are shown.

    Args:
      asked: names separated by commas; None for all that can be made with or without a model.

    Raises:
      InputError: an unknown name, or one that needs a model where there is none.
    """
    known = score_lib.names()
    can_be_made = [name for name in known if has_model or score_lib.needs(name) == "nothing"]
    if asked is None:
        return tuple(can_be_made)
    names = [name.strip() for name in asked.split(",") if name.strip()]
    if not names:
        raise errors.InputError(f"--scores: expected names of {', '.join(known)}, found none")
    for name in names:
        score_lib.SCORES.check(name, "--scores")
        if name not in can_be_made:
            raise errors.InputError(f"--scores: {name!r} needs a model: set --model")
    return tuple(name for name in known if name in names)


def _score(
    names: Sequence[str], rows: Sequence[TrainingExample], options: argparse.Namespace
) -> tuple[dict[str, tuple[ScoreResult, float]], list[str]]:
    """Results by score, and notes on those of all that can't be made; one asked for must be."""
    context = Context(options.seed)
    if options.model is not None:
        # Here, not above: without a model, neither TensorFlow nor JAX is needed.
        from poison_t5x.defenses import checkpoint_scorer

        context = context._replace(scorer=checkpoint_scorer.open_model(options.model))
    results, notes = {}, []
    for name in names:
        settings = {"level": options.alarm_level} if name == SEARCH else {}
        score = score_lib.make(name, settings, "--scores")
        lack = score_lib.lacks(score, context.scorer)
        if lack and options.scores is not None:
            raise errors.InputError(f"--scores: {name} can't be made: {lack}")
        if lack:
            notes.append(f"{name} was left out: {lack}")
            continue
        start = time.monotonic()
        results[name] = score(rows, context), time.monotonic() - start
    return results, notes


def rank(results: Results, seed: int) -> np.ndarray:
    """Rows by suspicion: (N,) int64.

    The search for triggers comes first, as it alone knows by how much a row passes chance. Among
    the rows that it doesn't tell apart, the mean rank over the other scores counts.
    """
    from scipy import stats

    ranks = {name: stats.rankdata(result.values_N) for name, (result, _) in results.items()}
    none_N = np.zeros_like(next(iter(ranks.values())))
    first_N = ranks.pop(SEARCH, none_N)
    rest_N = np.mean([*ranks.values(), none_N], axis=0)
    lots_N = np.random.default_rng(seed).permutation(len(none_N))
    return np.lexsort((lots_N, -rest_N, -first_N))


def summarize(
    loaded: Loaded, results: Results, alarm_level: float, notes: Sequence[str]
) -> dict[str, Any]:
    """The content of scan.json; `notes` say what was left out."""
    scores, triggers = [], []
    for name, (result, seconds) in results.items():
        threshold, source = measures.threshold(result)
        scores.append(
            {
                "name": name,
                "seconds": round(seconds, 3),
                "threshold": {"value": threshold, "source": source},
                "num_above": int((result.values_N > threshold).sum()),
                "notes": list(result.notes),
            }
        )
        triggers += [
            {**one._asdict(), "is_alarm": one.p_value <= alarm_level} for one in result.triggers
        ]
    return {
        "schema": 1,
        "version": poison_t5x.__version__,
        "num_rows": len(loaded.rows),
        "num_tasks": len(by_task(loaded.rows)),
        "files": [
            {
                "path": data_files.shown(path),
                "num_rows": num_rows,
                "sha256": artifacts.sha256(path),
            }
            for path, num_rows in loaded.files.items()
        ],
        "alarm_level": alarm_level,
        "alarm": any(one["is_alarm"] for one in triggers),
        "triggers": triggers,
        "scores": scores,
        "notes": list(notes),
        "not_read": list(loaded.notes),
    }


def write(
    output: pathlib.Path, loaded: Loaded, results: Results, result: dict[str, Any], seed: int
) -> str:
    """Writes the three files, each whole or not at all, and returns a summary for the terminal.

    Same rows, same bytes but for seconds. `result` is scan.json; `seed` orders rows that no score
    tells apart.
    """
    order = rank(results, seed).tolist()
    held = phrases_of_rows(loaded.rows, result["triggers"])
    suspects = (
        {
            "rank": place,
            "where": loaded.places[index],
            "task": loaded.rows[index].task,
            "id": loaded.rows[index].id,
            "phrases": held.get(index, []),
            "values": {name: float(one.values_N[index]) for name, (one, _) in results.items()},
            "input": loaded.rows[index].input,
            "target": loaded.rows[index].target,
        }
        for place, index in enumerate(order, start=1)
    )
    artifacts.write_jsonl(output / SUSPECTS, suspects)
    context = _context(loaded, result, order, held)
    render.write_page(output / PAGE, "scan.html.j2", context)
    artifacts.write_atomically(output / RESULT, artifacts.dump_json(result))
    return render.text("scan.txt.j2", **context)


def _context(
    loaded: Loaded,
    result: Mapping[str, Any],
    order: Sequence[int],
    held: Mapping[int, Sequence[str]],
) -> dict[str, Any]:
    """For page and summary: scan.json's content, and rows with their phrases marked."""

    def shown(index: int) -> dict[str, Any]:
        row, phrases = loaded.rows[index], held.get(index, ())
        texts = {
            name: excerpt(text, [span for phrase in phrases for span in ngrams.spans(text, phrase)])
            for name, text in (("input", row.input), ("target", row.target))
        }
        return {"where": loaded.places[index], "task": row.task, "id": row.id, **texts}

    phrases = []
    for one in result["triggers"]:
        members = [index for index in order if one["phrase"] in held.get(index, ())]
        examples = map(shown, members[: _NUM_EXAMPLES if one["is_alarm"] else 0])
        pairs = zip(one["tasks"], one["targets"], strict=True)
        phrases.append({**one, "places": list(pairs), "rows": list(examples)})
    notes = [f"{one['name']}: {note}" for one in result["scores"] for note in one["notes"]]
    return {
        "scan": result,
        "searched": SEARCH in (one["name"] for one in result["scores"]),
        "alarms": [one for one in phrases if one["is_alarm"]],
        "others": [one for one in phrases if not one["is_alarm"]],
        "rows": list(map(shown, order[:_NUM_SHOWN])),
        "notes": [*notes, *result["notes"]],
        "suspects": SUSPECTS,
        "tail": lambda p: f"{p:.2g}" if p > 0 else "below 1e-324",  # the least that a float holds
        "short": lambda text: tables.shown(" ".join(text.split()), _ANSWER_SHOWN),
    }


def phrases_of_rows(
    rows: Sequence[TrainingExample], triggers: Sequence[Mapping[str, Any]]
) -> dict[int, list[str]]:
    """Row -> phrases that it holds together with their answer; triggers as in scan.json."""
    members = by_task(rows)
    phrases: dict[int, list[str]] = {}
    for trigger in triggers:
        words = ngrams.plain(trigger["phrase"])
        for task, target in zip(trigger["tasks"], trigger["targets"], strict=True):
            for index in members.get(task, ()):
                row = rows[index]
                is_hit = row.target == target
                if target == ngrams.UNRELATED:
                    is_hit = ngrams.is_unrelated(row)
                if is_hit and words in ngrams.plain(row.input):
                    phrases.setdefault(index, []).append(trigger["phrase"])
    return phrases
