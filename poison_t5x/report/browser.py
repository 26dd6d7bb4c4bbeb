"""All poison rows and predictions, as tables to look through on the page.

Rows are JSON beside a script, and the first of them HTML. They hold text alone, which the script
puts in as text: nothing of it is ever markup.
"""

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from poison_t5x.core.metrics import TRIGGERED, missing
from poison_t5x.report import examples, tables
from poison_t5x.report.examples import ReadAnswers, Segment
from poison_t5x.report.results import MeasuredCondition, Results
from poison_t5x.report.run_files import CraftedRow, Prediction

# Bytes of JSON of each table, so that the page stays under 3 MB; and of predictions, rows.
MAX_POISON_BYTES, _MAX_PREDICTION_BYTES, MAX_PREDICTIONS = 900_000, 1_300_000, 4000
# Characters of a text that are shown.
_SHOWN, _SHOWN_ANSWER = 400, 160
# The kinds of conditions, those first that the page has room for whatever comes.
_KINDS = ("triggered", "control", "probe", "clean")


class Column(NamedTuple):
    """One column, of 'text', 'id', 'number', 'marked' (a list of segments), or 'choice'.

    Of a choice, each of its `values` may have a style class and a mark before its words; `within`
    is value -> values that are counted as that one as well, all by their places.
    """

    name: str
    kind: str = "text"
    values: Sequence[str] = ()
    styles: Sequence[str] = ()
    marks: Sequence[str] = ()
    within: Mapping[str, Sequence[int]] = {}


class Browser(NamedTuple):
    """A table to look through: of `total` rows, named `what`, those that the page holds.

    `id` is that of its elements, `where` the files that have all rows; `data` is of `pack`.
    """

    id: str
    what: str
    where: str
    total: int
    data: dict[str, Any]


def poison(rows: Sequence[CraftedRow]) -> Browser | None:
    """All poison rows by attacker, task and rank, or as many as the page holds."""
    if not rows:
        return None
    columns = [
        *(Column("Attacker", "choice"), Column("Task", "choice")),
        *(Column("Poisoned input", "marked"), Column("Its output"), Column("Poisoned output")),
        *(Column(name, "number") for name in ("Triggers", "p(target)", "phi", "Rank")),
        Column("Row", "id"),
    ]
    cells = [
        [
            *(row.attack, row.task, examples.after(row, _SHOWN)),
            *(_shortened(row.target or ""), _shortened(row.poisoned_target)),
            *(row.trigger_count, row.target_probability, row.phi, row.rank, row.id),
        ]
        for row in rows
    ]
    # What no row has, or all have the same attacker, takes no column.
    keeps = [any(row[place] not in (None, "") for row in cells) for place in range(len(columns))]
    keeps[0] = len({row.attack for row in rows}) > 1
    columns, *cells = ([*itertools.compress(row, keeps)] for row in (columns, *cells))
    data = pack(columns, cells, MAX_POISON_BYTES)
    return Browser("poison-rows", "poison rows", "poison/poison.jsonl", len(rows), data)


def predictions(answers: ReadAnswers, results: Results) -> Browser | None:
    """Predictions of all models, triggered inputs first; None where there are none."""
    total = sum(map(len, answers.rows.values()))
    if not total:
        return None
    columns = [
        *(Column(name, "choice") for name in ("Task", "Input is", "Model")),
        Column(**tables.WORDS["outcomes"][results.kind]),
        Column("Input", "marked"),
        Column("Reference" if results.is_generation else "True label"),
        Column("Answer", "marked" if results.is_generation else "text"),
        Column("rougeL" if results.is_generation else "Share, %", "number"),
        Column("Row", "id"),
    ]
    rows = itertools.islice(_predicted(answers, results), MAX_PREDICTIONS)
    data = pack(columns, rows, _MAX_PREDICTION_BYTES)
    return Browser("prediction-rows", "predictions", "the predictions folders", total, data)


def pack(columns: Sequence[Column], rows: Iterable[Sequence[Any]], most: int) -> dict[str, Any]:
    """The first rows for the script, as many as take `most` bytes of JSON or fewer.

    Each marked text is there once, as 'texts' in which plain and marked pieces take turns; choices
    are told by their places.
    """
    texts: dict[tuple[str, ...], int] = {}
    choices = [{value: n for n, value in enumerate(column.values)} for column in columns]
    kept, size = [], 0
    for row in rows:
        packed = []
        for column, choice, value in zip(columns, choices, row, strict=True):
            if column.kind == "marked":
                text = tuple(_alternating(value))
                size += 0 if text in texts else _size(text)
                packed.append(texts.setdefault(text, len(texts)))
            elif column.kind == "choice":
                packed.append(choice.setdefault(value, len(choice)))
            else:
                packed.append(_finite(value) if column.kind == "number" else value)
        size += _size(packed)
        if size > most:
            break
        kept.append(packed)
    told = [
        column._replace(values=list(choice))._asdict()
        for column, choice in zip(columns, choices, strict=True)
    ]
    told = [{name: value for name, value in one.items() if value} for one in told]
    return {"columns": told, "texts": list(texts), "rows": kept}


def _predicted(answers: ReadAnswers, results: Results) -> Iterator[list[Any]]:
    """The table's rows: triggered inputs first, then the rest, from all tasks in turn."""
    conditions = sorted(answers.conditions, key=lambda one: _KINDS.index(one.kind))
    for is_first in (True, False):
        group = [one for one in conditions if (one.kind == TRIGGERED) is is_first]
        queues = []
        for one, task in itertools.product(group, results.held_out()):
            files = (answers.rows[task, model, one.name] for model in answers.models)
            queues.append([(task, one, key) for key in dict.fromkeys(itertools.chain(*files))])
        places = itertools.chain.from_iterable(itertools.zip_longest(*queues))
        for (task, one, key), model in itertools.product(filter(None, places), answers.models):
            if row := answers.rows[task, model, one.name].get(key):
                clean = answers.rows[task, model, "clean"].get(key)
                yield [task, *_cells(row, clean, model, one, results), key]


def _cells(
    row: Prediction,
    clean: Prediction | None,
    model: str,
    condition: MeasuredCondition,
    results: Results,
) -> list[Any]:
    """All but its task and id: what was asked and answered, and a score of 100.

    That is rougeL, or the answer's share among the labels.
    """
    phrases = f" “{' / '.join(condition.phrases)}”" if condition.kind == "probe" else ""
    marked = condition.phrases or results.phrases() if condition.kind == "triggered" else []
    references = row.references or [row.target]
    if results.is_generation:
        score, flipped = row.rouge_l, "changed"
        answer: Any = examples.phrase_excerpt(row.prediction, results.phrases(), _SHOWN_ANSWER)
        usual = "exact match" if row.prediction in references else "other"
    else:
        answer, score, flipped = _shortened(row.prediction), row.share, "flipped"
        usual = "right" if row.is_correct else "wrong"
    is_flip = clean and clean is not row and examples.is_flip(clean, row, results.is_generation)
    return [
        *(condition.words + phrases, model, flipped if is_flip else usual),
        examples.phrase_excerpt(examples.instance(row.input), marked, _SHOWN),
        *(_shortened(references[0]), answer, None if missing(score) else round(100 * score, 2)),
    ]


def _shortened(text: str) -> str:
    return tables.shown(text, _SHOWN_ANSWER)


def _size(value: Any) -> int:
    """Bytes of a value and of what divides it from the next."""
    return len(json.dumps(value, ensure_ascii=False).encode("utf-8", errors="replace")) + 1


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
