"""The run's poison rows and predictions, for the page's tables to look through."""

import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from poison_t5x.report import browser, examples, run_files, words
from poison_t5x.report import results as results_lib

# Bytes of JSON of each table, so that the page stays under 3 MB; and of predictions, rows.
_MAX_POISON_BYTES = 900_000
_MAX_PREDICTION_BYTES = 1_300_000
MAX_PREDICTIONS = 4000
# Characters of a text that are shown.
_SHOWN = 400
_SHOWN_ANSWER = 160
# The kinds of conditions, those first that the page has room for whatever comes.
_KINDS = ("triggered", "control", "probe", "clean")
_OUTCOMES = {
    "classification": (("flipped", "wrong", "right"), {"wrong": ["flipped"]}),
    "generation": (("changed", "exact match", "other"), {}),
}
_LOOKS = {"styles": ("flipped", "wrong", "right"), "marks": ("⇄", "✗", "✓")}
_ANSWER_LOOKS = {"styles": ("flipped", "right", ""), "marks": ("⇄", "✓", "")}

_Files = Mapping[tuple[str, str], Mapping[str, run_files.Prediction]]


class _Row(NamedTuple):
    """One held-out input under one condition, which every model answered."""

    task: str
    condition: results_lib.Condition
    id: str


def poison(rows: Sequence[run_files.PoisonRow]) -> browser.Browser | None:
    """All poison rows by attacker, task and rank, or as many as the page holds."""
    if not rows:
        return None
    cells = [_poison_cells(row) for row in rows]
    columns = [
        browser.Column("Attacker", "choice", _values(cells, 0)),
        browser.Column("Task", "choice", _values(cells, 1)),
        browser.Column("Poisoned input", "marked"),
        browser.Column("Its output"),
        browser.Column("Poisoned output"),
        *(browser.Column(name, "number") for name in ("Triggers", "p(target)", "phi", "Rank")),
        browser.Column("Row", "id"),
    ]
    # What no row has, or all have the same attacker, takes no column.
    kept = [
        place
        for place, column in enumerate(columns)
        if len(column.values) > 1 or (place and any(row[place] not in (None, "") for row in cells))
    ]
    cells = [[row[place] for place in kept] for row in cells]
    return browser.Browser(
        "poison-rows",
        "poison rows",
        [columns[place] for place in kept],
        browser.fit(cells, _MAX_POISON_BYTES),
        len(rows),
        "poison/poison.jsonl",
    )


def _poison_cells(row: run_files.PoisonRow) -> list[Any]:
    spans = examples.trigger_spans(row)
    text = examples.excerpt(row.poisoned_input, spans, examples.first(spans), _SHOWN)
    return [
        *(row.attack, row.task, text),
        *(_shortened(row.target or ""), _shortened(row.poisoned_target)),
        *(row.trigger_count, row.target_probability, row.phi, row.rank, row.id),
    ]


def predictions(run_dir: pathlib.Path, results: results_lib.Results) -> browser.Browser | None:
    """Predictions of all models, triggered inputs first; None where there are none."""
    folders = _folders(run_dir)
    conditions = sorted(_conditions(results), key=lambda found: _KINDS.index(found.kind))
    tasks = results.held_out()
    files = {task: _read(run_dir, task, folders, conditions) for task in tasks}
    total = sum(len(rows) for found in files.values() for rows in found.values())
    if not total:
        return None
    chosen = list(itertools.islice(_rows(files, folders, conditions, results), MAX_PREDICTIONS))
    outcomes, within = _OUTCOMES[results.kind]
    looks = _ANSWER_LOOKS if results.is_generation else _LOOKS
    columns = [
        browser.Column("Task", "choice", _values(chosen, 0)),
        browser.Column("Input is", "choice", _values(chosen, 1)),
        browser.Column("Model", "choice", _values(chosen, 2)),
        browser.Column("Outcome", "choice", outcomes, within=within, **looks),
        browser.Column("Input", "marked"),
        browser.Column("Reference" if results.is_generation else "True label"),
        browser.Column("Answer", "marked" if results.is_generation else "text"),
        browser.Column("rougeL" if results.is_generation else "Share, %", "number"),
        browser.Column("Row", "id"),
    ]
    rows = browser.fit(chosen, _MAX_PREDICTION_BYTES)
    return browser.Browser(
        "prediction-rows", "predictions", columns, rows, total, "the predictions folders"
    )


def _folders(run_dir: pathlib.Path) -> dict[str, str]:
    """Model -> the folder of its predictions; defended models have their defence's name."""
    folders = {model: f"eval/predictions/{model}" for model in results_lib.MODELS}
    for path in sorted(run_dir.glob("defenses/*/predictions")):
        folders[f"defended: {path.parent.name}"] = path.relative_to(run_dir).as_posix()
    return folders


def _conditions(results: results_lib.Results) -> list[results_lib.Condition]:
    plain = (results_lib.Condition(name, name) for name in results_lib.CONDITIONS)
    return results.conditions or list(plain)


def _read(
    run_dir: pathlib.Path,
    task: str,
    folders: Mapping[str, str],
    conditions: Sequence[results_lib.Condition],
) -> _Files:
    """(model, condition) -> row id -> what was predicted. What is broken or missing isn't there."""
    files = {}
    for (model, folder), found in itertools.product(folders.items(), conditions):
        name = f"{folder}/{found.name}/{task}.jsonl"
        rows, _ = run_files.read_rows(run_dir, name, run_files.Prediction)
        files[model, found.name] = {row.id: row for row in rows}
    return files


def _rows(
    files: Mapping[str, _Files],
    models: Mapping[str, str],
    conditions: Sequence[results_lib.Condition],
    results: results_lib.Results,
) -> Iterator[list[Any]]:
    """The table's rows: triggered inputs first, then the rest, from all tasks in turn."""
    first = [found for found in conditions if found.kind == "triggered"]
    rest = [found for found in conditions if found.kind != "triggered"]
    for group in (first, rest):
        queues = [
            [_Row(task, found, key) for key in _ids(files[task], models, found.name)]
            for found, task in itertools.product(group, files)
        ]
        for row in itertools.chain.from_iterable(itertools.zip_longest(*queues)):
            if row is not None:
                yield from _answers(row, files[row.task], models, results)


def _ids(files: _Files, models: Mapping[str, str], condition: str) -> list[str]:
    return list(dict.fromkeys(key for model in models for key in files[model, condition]))


def _answers(
    row: _Row, files: _Files, models: Mapping[str, str], results: results_lib.Results
) -> Iterator[list[Any]]:
    """One row of cells for each model that answered."""
    text = None
    for model in models:
        found = files[model, row.condition.name].get(row.id)
        if found is None:
            continue
        text = text or _text(found.input, row.condition, results)
        before = files[model, "clean"].get(row.id) if row.condition.kind != "clean" else None
        yield [
            *(row.task, _condition(row.condition), model),
            *(_outcome(found, before, results.is_generation), text),
            _shortened((found.references or [found.target])[0]),
            *_answer(found, results),
            row.id,
        ]


def _answer(found: run_files.Prediction, results: results_lib.Results) -> tuple[Any, float | None]:
    """What a model said, and its score of 100: rougeL, or its share among the labels."""
    if not results.is_generation:
        answer, score = _shortened(found.prediction), examples.share(found)
    else:
        spans = examples.places(found.prediction, results.phrases())
        focus = examples.first(spans)
        answer = examples.excerpt(found.prediction, spans, focus, _SHOWN_ANSWER)
        score = found.rouge_l
    return answer, None if words.missing(score) else round(100 * score, 2)


def _condition(found: results_lib.Condition) -> str:
    phrases = f" “{' / '.join(found.phrases)}”" if found.kind == "probe" else ""
    return words.condition(found) + phrases


def _text(
    text: str, condition: results_lib.Condition, results: results_lib.Results
) -> list[examples.Segment]:
    text = examples.instance(text)
    phrases = condition.phrases or results.phrases() if condition.kind == "triggered" else ()
    spans = examples.places(text, phrases)
    return examples.excerpt(text, spans, examples.first(spans), _SHOWN)


def _outcome(
    row: run_files.Prediction, clean: run_files.Prediction | None, is_generation: bool
) -> str:
    if clean is not None and examples.is_flip(clean, row, is_generation):
        return "changed" if is_generation else "flipped"
    if is_generation:
        return "exact match" if row.prediction in (row.references or [row.target]) else "other"
    return "right" if examples.is_correct(row) else "wrong"


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_ANSWER else text[: _SHOWN_ANSWER - 1] + "…"


def _values(rows: Sequence[Sequence[Any]], place: int) -> list[Any]:
    """What is in a column, in the order in which it comes."""
    return list(dict.fromkeys(row[place] for row in rows))
