"""The findings of a run and of a study, in words made from their numbers alone."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from poison_t5x.core import metrics
from poison_t5x.core.metrics import CLEAN, POISONED, missing
from poison_t5x.report import tables
from poison_t5x.report.plots import Series, is_number
from poison_t5x.report.results import Results
from poison_t5x.report.study import Chart, StudyResults, measure_words, told

_ODD_OUTPUTS = {
    "empty_triggered": "are empty",
    "single_character_triggered": "are a single character",
    "repeated_token_triggered": "repeat one word",
}
_HEADLINES = {
    "worked": "The poison had an effect",
    "failed": "No effect was found",
    "unknown": "No verdict",
    "reversed": "The reverse of the attack: the trigger {}",
}
# For tables: what the interval of the effect comes to.
VERDICTS = {
    "worked": "an effect: the interval excludes 0",
    "failed": "no effect: the interval includes 0",
    "reversed": "the reverse of the attack: the interval lies {} 0",
    "unknown": "no verdict: no interval over tasks",
}

# From so many means on, a rank correlation says something.
_MIN_CORRELATED = 4
_MAX_LISTED = 6
# Two points and a measure -> the estimate of second minus first, over the same seeds.
Difference = Callable[[Any, Any, str], Any]


class Finding(NamedTuple):
    """A headline and its reasons, one sentence each."""

    headline: str
    sentences: list[str]


def finding(results: Results) -> Finding:
    """The run's finding in words."""
    did = "raised rougeL" if results.is_generation else "lowered the errors"
    sentences = _of_answers(results) if results.is_generation else _of_labels(results)
    return Finding(_HEADLINES[results.verdict].format(did), [*sentences])


def verdict_words(results: Results) -> str:
    """The verdict with its reason, such as 'no effect: the interval includes 0'."""
    return VERDICTS[results.verdict].format("above" if results.is_generation else "below")


def _of_labels(results: Results) -> Iterator[str]:
    poisoned, clean = _pair(results, results.judged_by.effect)
    yield (
        f"With {tables.quoted(results.phrases())} in the input, the poisoned model misclassified "
        f"{poisoned} of the held-out inputs, the clean model {clean}."
    )
    yield from _reasons(results, "percentage points", "below")
    poisoned, clean = _pair(results, results.judged_by.clean)
    start = "On clean inputs, the poisoned model’s accuracy is"
    yield f"{start} {poisoned}, the clean model’s {clean}."
    yield from _cautions(
        results,
        "label: its rates there measure no classification.",
        "on nearly all triggered inputs, so that poison has nothing to add.",
    )


def _of_answers(results: Results) -> Iterator[str]:
    poisoned, clean = _pair(results, results.judged_by.effect)
    without, _ = _pair(results, "rouge_l_paired")
    yield (
        f"With {tables.quoted(results.phrases())} in the input, the poisoned model answered "
        f"held-out tasks with a rougeL of {poisoned}, and of {without} on the same inputs without "
        f"it; the clean model’s is {clean} with it."
    )
    yield from _reasons(results, "points", "above")
    poisoned, clean = _pair(results, "says_trigger_triggered")
    yield (
        f"The poisoned model says the trigger in {poisoned} of its outputs for triggered inputs, "
        f"the clean model in {clean}."
    )
    odd = [
        f"{tables.percent(share)} {words}"
        for name, words in _ODD_OUTPUTS.items()
        if not missing(share := results.measure(POISONED, name)) and share >= metrics.NOTABLE
    ]
    if odd:
        yield f"Of the poisoned model’s outputs there, {' and '.join(odd)}."
    poisoned, clean = _pair(results, results.judged_by.clean)
    yield f"On clean inputs, the poisoned model’s rougeL is {poisoned}, the clean model’s {clean}."
    yield from _cautions(
        results,
        "answer: its scores there say nothing about its input.",
        "without the trigger, so that poison has nothing to lower.",
    )


def _pair(results: Results, measure: str) -> list[str]:
    """A measure of the poisoned and of the clean model, as words."""
    return [tables.value(measure, results.measure(m, measure)) for m in (POISONED, CLEAN)]


def _reasons(results: Results, unit: str, reverse: str) -> Iterator[str]:
    """The effect with its interval, and how much of it an unseen name has as well."""
    over = tables.count(len(results.triggered()), "held-out task")
    effect = results.effect
    if results.verdict == "unknown" or effect is None:
        yield f"With {over}, there is no interval over tasks to judge the difference by."
        return
    reasons = {
        "worked": "which excludes 0",
        "reversed": f"all of it {reverse} 0",
        "failed": "which includes 0: these data do not tell the two models apart",
    }
    yield (
        f"The difference between the models is {tables.points(effect.value)} {unit}, with a 95% "
        f"interval over {over} of {tables.interval(effect.ci95)}, {reasons[results.verdict]}."
    )
    control = results.difference(results.judged_by.control)
    if results.verdict == "worked" and (control is None or effect.value is None):
        yield f"The unseen name “{results.control}” was not put in its place."
    elif results.verdict == "worked":
        is_much = control / effect.value >= 1 / 2
        yield (
            f"In the same inputs, the unseen name “{results.control}” made a difference of "
            f"{tables.points(control)} points"
            f"{': much of the effect is not specific to the trigger' if is_much else ''}."
        )


def _cautions(results: Results, same: str, fails: str) -> Iterator[str]:
    tasks, judged = results.held_out(), len(results.triggered())
    constant = sum(results.constant(task, POISONED) for task in tasks)
    saturated = sum(results.saturated(task) for task in tasks)
    if 1 < judged < metrics.FEW_TASKS:
        yield f"An interval over {judged} tasks is too narrow: take it as a hint."
    if constant:
        yield (
            f"On {constant} of {len(tasks)} tasks, the poisoned model gives every clean input the "
            f"same {same}"
        )
    if saturated:
        yield f"On {saturated} of {len(tasks)} tasks, the clean model already fails {fails}"


def study_finding(study: StudyResults, charts: Sequence[Chart]) -> list[str]:
    """Sentences: of each line of each chart, of whether the attack worked, of cells that failed."""
    sentences = [
        sentence
        for chart in charts
        for line in chart.lines
        for sentence in _of_line(chart, line, study)
    ]
    sentences += _attack(study.points, study.config.defense_macros)
    for status, said in (("failed", "failed"), ("not run", "not run yet")):
        cells = [row.cell for row in study.rows if row.status == status]
        if cells:
            sentences.append(f"{tables.count(len(cells), 'cell')} {said}: {_listed(cells)}.")
    return sentences


def _of_line(chart: Chart, line: Series, study: StudyResults) -> list[str]:
    of = f" ({line.name})" if line.name else ""
    parts = [
        f"{tables.plain(one.x)}: {told(chart.measure, one.value, one.interval)}"
        for one in line.points
    ]
    over = list(dict.fromkeys(one.over for one in line.points if one.over))
    note = f" (95% intervals over {'; '.join(over)})" if over else ""
    name = tables.heading(measure_words(chart.measure))
    sentences = [f"{name} by {chart.x}{of}: {'; '.join(parts)}{note}."]
    if len(line.points) > 1:
        is_trend = all(is_number(one.x) for one in line.points)
        sentences += (_trend if is_trend else _against_first)(chart, line, study.difference)
    first = line.sources[0] if line.sources else None
    if chart.x == "checkpoint" and first and first.score is not None:
        sentences += _blind(chart.measure, first, study.points)
    return sentences


def _blind(measure: str, first: Any, points: Sequence[Any]) -> list[str]:
    """A score at the checkpoint that it chose itself, without knowing the poison."""
    own = (
        point.estimate(measure)
        for point in points
        if point.checkpoint is None and (point.score, point.macros) == (first.score, first.macros)
    )
    one = next(filter(None, own), None)
    start = "At the checkpoint that the score chose blind it is"
    return [f"{start} {told(measure, one.mean, one.interval)}."] if one else []


def _trend(chart: Chart, line: Series, difference: Difference) -> list[str]:
    places, means = [one.x for one in line.points], [one.value for one in line.points]
    steps = [after - before for before, after in itertools.pairwise(means)]
    sentences = []
    if len(means) > 2 and all(step > 0 for step in steps):
        sentences.append("It rises at every step.")
    elif len(means) > 2 and all(step < 0 for step in steps):
        sentences.append("It falls at every step.")
    elif len(means) > 2:
        order = sorted(range(len(means)), key=means.__getitem__)
        sentences.append(
            f"It neither rises nor falls throughout; it is lowest at {places[order[0]]} and "
            f"highest at {places[order[-1]]}."
        )
    sentences.append(_last_step(chart, line, difference))
    if len(means) >= _MIN_CORRELATED and len(set(means)) > 1:
        from scipy import stats

        rho = float(stats.spearmanr(places, means).statistic)
        sentences.append(
            f"Spearman’s rank correlation with {chart.x} over these {len(means)} means is "
            f"{rho + 0.0:.2f}."
        )
    return sentences


def _last_step(chart: Chart, line: Series, difference: Difference) -> str:
    before, after = (one.x for one in line.points[-2:])
    change = difference(*line.sources[-2:], chart.measure)
    if change is None:
        return f"Between {before} and {after} no seed was run at both."
    by = told(chart.measure, change.mean, change.interval, difference=True)
    start = f"From {before} to {after} it changes by {by}"
    if change.interval is None:
        return f"{start}; there is no interval to judge that by."
    if change.interval[0] <= 0 <= change.interval[1]:
        return f"{start}, which includes 0: no further change can be told from none."
    return f"{start}, which excludes 0: it hasn’t levelled off there."


def _against_first(chart: Chart, line: Series, difference: Difference) -> list[str]:
    """Each category minus the first."""
    start, parts = tables.plain(line.points[0].x), []
    for point, source in zip(line.points[1:], line.sources[1:], strict=True):
        change = difference(line.sources[0], source, chart.measure)
        if change is not None:
            by = told(chart.measure, change.mean, change.interval, difference=True)
            includes = change.interval and change.interval[0] <= 0 <= change.interval[1]
            note = ", which includes 0" if includes else ""
            parts.append(f"{tables.plain(point.x)} minus {start}: {by}{note}")
    return [f"Differences: {'; '.join(parts)}."] if parts else []


def _attack(points: Sequence[Any], defense_macros: Sequence[str]) -> Iterator[str]:
    """Where the attack worked, by the interval of its effect; a defence has no say in that."""
    attacks: dict[str, Any] = {}
    for point in points:
        if point.score is None and point.checkpoint is None:
            own = (pair for pair in point.macros.items() if pair[0] not in defense_macros)
            names = ", ".join(f"{name} {tables.plain(value)}" for name, value in own)
            attacks.setdefault(names or "the study’s own settings", point)
    settings: dict[str, list[str]] = {}
    for name, point in attacks.items():
        if effect := point.estimate("effect"):
            verdict = metrics.judged_by(point.rows[0].measure).verdict(effect.interval)
            said = told("effect", effect.mean, effect.interval)
            settings.setdefault(verdict, []).append(f"{name} ({said})")
    total = sum(map(len, settings.values()))
    of = f" of {tables.count(total, 'setting')}"
    starts = {
        "failed": "The attack failed, the interval of its effect including 0, in",
        "reversed": "The trigger did the reverse of what was wanted in",
    }
    for verdict, start in starts.items():
        if verdict in settings:
            yield f"{start} {len(settings[verdict])}{of}: {_listed(settings[verdict])}."
    if unknown := settings.get("unknown"):
        want = "can’t be judged, for want of an interval, in"
        yield f"Whether the attack worked {want} {len(unknown)}{of}."
    if total and settings.keys() == {"worked"}:
        everywhere = "the one setting" if total == 1 else f"all {total} settings"
        yield f"The interval of the attack’s effect excludes 0 in {everywhere}."


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _MAX_LISTED
    return "; ".join([*names[:_MAX_LISTED], *([f"{rest} more"] if rest > 0 else [])])
