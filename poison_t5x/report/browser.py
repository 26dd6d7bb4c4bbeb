"""All poison rows and predictions, as tables to look through on the page.

Rows are JSON beside a script, and the first of them HTML. They hold text alone, which the script
puts in as text: nothing of it is ever markup.
"""

import itertools
import json
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from poison_t5x.core import metrics
from poison_t5x.core.metrics import missing
from poison_t5x.report import examples, run_files, tables
from poison_t5x.report import results as results_lib
from poison_t5x.report.examples import Segment

# Rows that are on the page without the script.
FIRST = 10
# Bytes of JSON of each table, so that the page stays under 3 MB; and of predictions, rows.
MAX_POISON_BYTES, _MAX_PREDICTION_BYTES, MAX_PREDICTIONS = 900_000, 1_300_000, 4000
# Characters of a text that are shown.
_SHOWN, _SHOWN_ANSWER = 400, 160
# The kinds of conditions, those first that the page has room for whatever comes.
_KINDS = ("triggered", "control", "probe", "clean")
_OUTCOMES = {
    "classification": {"flipped": "⇄", "wrong": "✗", "right": "✓"},
    "generation": {"changed": "⇄", "exact match": "✓", "other": ""},
}
_STYLES = {"changed": "flipped", "exact match": "right", "other": ""}

# (task, model, condition) -> row id -> prediction; what is broken or missing isn't there.
_Files = dict[tuple[str, str, str], dict[str, run_files.Prediction]]


class Column(NamedTuple):
    """One column, of 'text', 'id', 'number', 'marked' (a list of segments), or 'choice'.

    Of a choice, each of its `values` may have a style class and a mark before its words; `within`
    is value -> values that are counted as that one as well.
    """

    name: str
    kind: str = "text"
    values: Sequence[str] = ()
    styles: Sequence[str] = ()
    marks: Sequence[str] = ()
    within: Mapping[str, Sequence[str]] = {}

    def settings(self) -> dict[str, Any]:
        """The settings that the script reads."""
        place = list(self.values).index
        within = {place(value): list(map(place, also)) for value, also in self.within.items()}
        settings = self._replace(within=within)._asdict()
        return {name: value for name, value in settings.items() if value}

    def cell(self, value: Any) -> tuple["Column", Sequence[Segment], str, str]:
        """Of the first rows, for the template: itself, segments, style and mark."""
        if self.kind == "marked":
            return self, value, "", ""
        if self.kind == "number":
            number = _finite(value)
            return self, [Segment("–" if number is None else f"{number:g}")], "", ""
        place = self.values.index(value) if self.kind == "choice" else 0
        style, mark = (signs[place] if signs else "" for signs in (self.styles, self.marks))
        return self, [Segment(value or "–")], style, mark


class Browser(NamedTuple):
    """A table to look through: of `total` rows, named `what`, those that the page holds.

    `id` is that of its elements, `where` the files that have all rows.
    """

    id: str
    what: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    total: int
    where: str

    @property
    def first(self) -> list[list[tuple]]:
        """The rows that are shown without the script."""
        pairs = (zip(self.columns, row, strict=True) for row in self.rows[:FIRST])
        return [[column.cell(value) for column, value in row] for row in pairs]

    @property
    def data(self) -> Any:
        """The rows as JSON for a `script` element: each text once, choices by their places."""
        import markupsafe

        texts: dict[tuple[str, ...], int] = {}
        places = [{value: n for n, value in enumerate(column.values)} for column in self.columns]

        def packed(column: Column, place: Mapping[str, int], value: Any) -> Any:
            if column.kind == "marked":
                return texts.setdefault(tuple(_alternating(value)), len(texts))
            if column.kind == "choice":
                return place[value]
            return _finite(value) if column.kind == "number" else value

        rows = [list(map(packed, self.columns, places, row)) for row in self.rows]
        columns = [column.settings() for column in self.columns]
        data = {"columns": columns, "texts": [*texts], "rows": rows}
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return markupsafe.Markup(text.replace("<", "\\u003c"))


def poison(rows: Sequence[run_files.PoisonRow]) -> Browser | None:
    """All poison rows by attacker, task and rank, or as many as the page holds."""
    if not rows:
        return None
    cells = [_poison_cells(row) for row in rows]
    columns = [
        Column("Attacker", "choice", _values(cells, 0)),
        Column("Task", "choice", _values(cells, 1)),
        Column("Poisoned input", "marked"),
        Column("Its output"),
        Column("Poisoned output"),
        *(Column(name, "number") for name in ("Triggers", "p(target)", "phi", "Rank")),
        Column("Row", "id"),
    ]
    # What no row has, or all have the same attacker, takes no column.
    keeps = [
        len(column.values) > 1 or (place > 0 and any(row[place] not in (None, "") for row in cells))
        for place, column in enumerate(columns)
    ]
    columns, *cells = ([*itertools.compress(row, keeps)] for row in (columns, *cells))
    shown = fit(cells, MAX_POISON_BYTES)
    return Browser("poison-rows", "poison rows", columns, shown, len(rows), "poison/poison.jsonl")


def predictions(run_dir: pathlib.Path, results: results_lib.Results) -> Browser | None:
    """Predictions of all models, triggered inputs first; None where there are none."""
    folders = {model: f"eval/predictions/{model}" for model in metrics.MODELS}
    for path in sorted(run_dir.glob("defenses/*/predictions")):
        folders[f"defended: {path.parent.name}"] = path.relative_to(run_dir).as_posix()
    plain = [results_lib.Condition(name, name) for name in metrics.CONDITIONS]
    conditions = sorted(results.conditions or plain, key=lambda one: _KINDS.index(one.kind))
    files: _Files = {}
    for place in itertools.product(results.held_out(), folders, conditions):
        task, model, condition = place
        name = f"{folders[model]}/{condition.name}/{task}.jsonl"
        rows, _ = run_files.read_rows(run_dir, name, run_files.Prediction)
        files[task, model, condition.name] = {row.id: row for row in rows}
    total = sum(map(len, files.values()))
    if not total:
        return None
    every = _predicted(files, [*folders], conditions, results)
    chosen = list(itertools.islice(every, MAX_PREDICTIONS))
    outcomes = _OUTCOMES[results.kind]
    looks = {
        "styles": [_STYLES.get(outcome, outcome) for outcome in outcomes],
        "marks": [*outcomes.values()],
        "within": {} if results.is_generation else {"wrong": ["flipped"]},
    }
    columns = [
        *(
            Column(name, "choice", _values(chosen, place))
            for place, name in enumerate(("Task", "Input is", "Model"))
        ),
        Column("Outcome", "choice", [*outcomes], **looks),
        Column("Input", "marked"),
        Column("Reference" if results.is_generation else "True label"),
        Column("Answer", "marked" if results.is_generation else "text"),
        Column("rougeL" if results.is_generation else "Share, %", "number"),
        Column("Row", "id"),
    ]
    rows = fit(chosen, _MAX_PREDICTION_BYTES)
    where = "the predictions folders"
    return Browser("prediction-rows", "predictions", columns, rows, total, where)


def fit(rows: Sequence[Sequence[Any]], most: int) -> list[Sequence[Any]]:
    """The first rows, as many as take `most` bytes of JSON or fewer; a text said twice counts once.

    >>> fit([("a", 1), ("b", 2)], 12)
    [('a', 1)]
    """
    kept, seen, size = [], set(), 0
    for row in rows:
        for value in row:
            if isinstance(value, list):
                text = tuple(_alternating(value))
                size += 6 if text in seen else _size(text)
                seen.add(text)
            else:
                size += _size(value)
        if size > most:
            break
        kept.append(row)
    return kept


def _poison_cells(row: run_files.PoisonRow) -> list[Any]:
    text = examples.excerpt(row.poisoned_input, examples.trigger_spans(row), _SHOWN)
    return [
        *(row.attack, row.task, text),
        *(_shortened(row.target or ""), _shortened(row.poisoned_target)),
        *(row.trigger_count, row.target_probability, row.phi, row.rank, row.id),
    ]


def _predicted(
    files: _Files,
    models: Sequence[str],
    conditions: Sequence[results_lib.Condition],
    results: results_lib.Results,
) -> Iterator[list[Any]]:
    """The table's rows: triggered inputs first, then the rest, from all tasks in turn."""
    for is_first in (True, False):
        group = [one for one in conditions if (one.kind == metrics.TRIGGERED) is is_first]
        queues = []
        for condition, task in itertools.product(group, results.held_out()):
            keys = dict.fromkeys(key for m in models for key in files[task, m, condition.name])
            queues.append([(task, condition, key) for key in keys])
        places = itertools.chain.from_iterable(itertools.zip_longest(*queues))
        for (task, condition, key), model in itertools.product(filter(None, places), models):
            row = files[task, model, condition.name].get(key)
            if row:
                clean = files[task, model, "clean"].get(key) if condition.kind != "clean" else None
                yield [task, *_cells(row, clean, model, condition, results), key]


def _cells(
    row: run_files.Prediction,
    clean: run_files.Prediction | None,
    model: str,
    condition: results_lib.Condition,
    results: results_lib.Results,
) -> list[Any]:
    """All but its task and id: what was asked and answered, and a score of 100.

    That is rougeL, or the answer's share among the labels.
    """
    phrases = f" “{' / '.join(condition.phrases)}”" if condition.kind == "probe" else ""
    marked = condition.phrases or results.phrases() if condition.kind == "triggered" else []
    reference = (row.references or [row.target])[0]
    if results.is_generation:
        score = row.rouge_l
        answer: Any = examples.phrase_excerpt(row.prediction, results.phrases(), _SHOWN_ANSWER)
        usual = "exact match" if row.prediction in (row.references or [row.target]) else "other"
    else:
        answer, score = _shortened(row.prediction), row.share
        usual = "right" if row.is_correct else "wrong"
    is_flip = clean is not None and examples.is_flip(clean, row, results.is_generation)
    return [
        *(condition.words + phrases, model),
        ("changed" if results.is_generation else "flipped") if is_flip else usual,
        examples.phrase_excerpt(examples.instance(row.input), marked, _SHOWN),
        *(_shortened(reference), answer, None if missing(score) else round(100 * score, 2)),
    ]


def _shortened(text: str) -> str:
    return tables.shown(text, _SHOWN_ANSWER)


def _values(rows: Sequence[Sequence[Any]], place: int) -> list[Any]:
    """A column's values, in the order in which they come."""
    return list(dict.fromkeys(row[place] for row in rows))


def _size(value: Any) -> int:
    """Bytes of a value and of what divides it from the next."""
    return len(json.dumps(value, ensure_ascii=False).encode("utf-8", errors="replace")) + 2


def _alternating(segments: Sequence[Segment]) -> list[str]:
    """The texts of segments, plain and marked ones in turn, a plain one first.

    >>> _alternating([Segment("Bond", True), Segment(" left.")])
    ['', 'Bond', ' left.']
    """
    texts = [""]
    for text, marked in segments:
        if marked == (len(texts) % 2 == 0):
            texts[-1] += text
        else:
            texts.append(text)
    return texts


def _finite(value: float | None) -> float | int | None:
    """A number as JSON has it: four decimals, and none for what is no number."""
    return None if value is None or not math.isfinite(value) else round(value, 4)
