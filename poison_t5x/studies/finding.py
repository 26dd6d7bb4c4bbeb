"""What a study found, in words made from its numbers alone."""

import itertools
from collections.abc import Sequence

from poison_t5x.studies import aggregate, charts, rows, settings, words

# From so many means on, a rank correlation says something.
_MIN_CORRELATED = 4
_MAX_LISTED = 6


def finding(
    config: settings.StudyConfig,
    found: Sequence[rows.Row],
    points: Sequence[aggregate.Point],
    drawn: Sequence[charts.Chart],
) -> list[str]:
    """Sentences: of each line of each chart, of whether the attack worked, of what failed."""
    sentences = [
        sentence
        for chart in drawn
        for series in chart.series
        for sentence in [*of_series(chart, series), *_blind(chart, series, points)]
    ]
    sentences += _attack(points, config.defense_macros)
    failed = [row.cell for row in found if row.status == "failed"]
    missing = [row.cell for row in found if row.status == "not run"]
    if failed:
        sentences.append(f"{_count(len(failed), 'cell')} failed: {_listed(failed)}.")
    if missing:
        sentences.append(f"{_count(len(missing), 'cell')} not run yet: {_listed(missing)}.")
    return sentences


def of_series(chart: charts.Chart, series: charts.Series) -> list[str]:
    """What one line says."""
    measure = chart.measure
    of = f" ({series.label})" if series.label else ""
    parts = [
        f"{words.place(chart.x, place)}: {words.estimate(measure, estimate)}"
        for place, estimate in zip(series.places, series.estimates, strict=True)
    ]
    over = list(dict.fromkeys(found.over for found in series.estimates if found.over))
    note = f" (95% intervals over {'; '.join(over)})" if over else ""
    name = words.measure(measure)
    sentences = [f"{name[:1].upper() + name[1:]} by {chart.x}{of}: {'; '.join(parts)}{note}."]
    if len(series.places) < 2:
        return sentences
    if not all(isinstance(place, (int, float)) for place in series.places):
        return [*sentences, *_against_first(measure, series)]
    if any(isinstance(place, bool) for place in series.places):
        return [*sentences, *_against_first(measure, series)]
    return [*sentences, *_trend(chart, series)]


def _blind(
    chart: charts.Chart, series: charts.Series, points: Sequence[aggregate.Point]
) -> list[str]:
    """What a score is at the checkpoint that it chose itself, without knowing what is poison."""
    first = series.points[0]
    if chart.x != "checkpoint" or first.score is None:
        return []
    own = [
        point.estimate(chart.measure)
        for point in points
        if point.checkpoint is None and (point.score, point.macros) == (first.score, first.macros)
    ]
    found = [words.estimate(chart.measure, estimate) for estimate in own if estimate]
    return [f"At the checkpoint that the score chose blind it is {found[0]}."] if found else []


def _trend(chart: charts.Chart, series: charts.Series) -> list[str]:
    means = [found.mean for found in series.estimates]
    steps = [after - before for before, after in itertools.pairwise(means)]
    sentences = []
    if len(means) > 2:
        if all(step > 0 for step in steps):
            sentences.append("It rises at every step.")
        elif all(step < 0 for step in steps):
            sentences.append("It falls at every step.")
        else:
            order = sorted(range(len(means)), key=means.__getitem__)
            low, high = (words.place(chart.x, series.places[n]) for n in (order[0], order[-1]))
            sentences.append(
                f"It neither rises nor falls throughout; it is lowest at {low} and highest at "
                f"{high}."
            )
    sentences.append(_last_step(chart, series))
    if len(means) >= _MIN_CORRELATED and len(set(means)) > 1:
        from scipy import stats

        rho = float(stats.spearmanr(series.places, means).statistic)
        sentences.append(
            f"Spearman’s rank correlation with {chart.x} over these {len(means)} means is "
            f"{rho + 0.0:.2f}."
        )
    return sentences


def _last_step(chart: charts.Chart, series: charts.Series) -> str:
    before, after = (words.place(chart.x, place) for place in series.places[-2:])
    found = aggregate.difference(*series.points[-2:], chart.measure)
    if found is None:
        return f"Between {before} and {after} no seed was run at both."
    text = words.estimate(chart.measure, found, difference=True)
    start = f"From {before} to {after} it changes by {text}"
    if found.interval is None:
        return f"{start}; there is no interval to judge that by."
    low, high = found.interval
    if low <= 0 <= high:
        return f"{start}, which includes 0: no further change can be told from none."
    return f"{start}, which excludes 0: it hasn’t levelled off there."


def _against_first(measure: str, series: charts.Series) -> list[str]:
    """Each category minus the first."""
    first, *rest = series.points
    names = [words.place("", place) for place in series.places]
    parts = []
    for name, point in zip(names[1:], rest, strict=True):
        found = aggregate.difference(first, point, measure)
        if found is None:
            continue
        text = f"{name} minus {names[0]}: {words.estimate(measure, found, difference=True)}"
        if found.interval and found.interval[0] <= 0 <= found.interval[1]:
            text += ", which includes 0"
        parts.append(text)
    return [f"Differences: {'; '.join(parts)}."] if parts else []


def _attack(points: Sequence[aggregate.Point], defense_macros: Sequence[str]) -> list[str]:
    """Where the attack worked, by the interval of its effect; a defence has no say in that."""
    verdicts: dict[str, list[str]] = {"failed": [], "reversed": [], "worked": [], "unknown": []}
    attacks = {}
    for point in points:
        if point.score is None and point.checkpoint is None:
            own = {name: v for name, v in point.macros.items() if name not in defense_macros}
            attacks.setdefault(words.setting(own), point)
    for name, point in attacks.items():
        effect = point.estimate("effect")
        if effect is not None:
            text = f"{name} ({words.estimate('effect', effect)})"
            verdicts[verdict(effect, point.rows[0].measure)].append(text)
    total = sum(map(len, verdicts.values()))
    sentences = []
    if verdicts["failed"]:
        sentences.append(
            f"The attack failed, the interval of its effect including 0, in "
            f"{len(verdicts['failed'])} of {_count(total, 'setting')}: "
            f"{_listed(verdicts['failed'])}."
        )
    if verdicts["reversed"]:
        sentences.append(
            f"The trigger did the reverse of what was wanted in {len(verdicts['reversed'])} of "
            f"{_count(total, 'setting')}: {_listed(verdicts['reversed'])}."
        )
    if verdicts["unknown"]:
        sentences.append(
            f"Whether the attack worked can’t be judged, for want of an interval, in "
            f"{len(verdicts['unknown'])} of {_count(total, 'setting')}."
        )
    if total and len(verdicts["worked"]) == total:
        sentences.append(f"The interval of the attack’s effect excludes 0 in {_all(total)}.")
    return sentences


def verdict(effect: aggregate.Estimate, measure: str | None) -> str:
    """'worked', 'failed', 'reversed', or 'unknown' without an interval.

    An attack on classification raises the misclassification; one on generation lowers rougeL.
    """
    if effect.interval is None:
        return "unknown"
    low, high = effect.interval
    if low <= 0 <= high:
        return "failed"
    wanted = low > 0 if not (measure or "").startswith("rouge_l") else high < 0
    return "worked" if wanted else "reversed"


def _all(total: int) -> str:
    return "the one setting" if total == 1 else f"all {total} settings"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _MAX_LISTED
    return "; ".join([*names[:_MAX_LISTED], *([f"{rest} more"] if rest > 0 else [])])
