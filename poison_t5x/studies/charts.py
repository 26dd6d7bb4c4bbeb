"""What is drawn and told of a study: a measure along the x axis, a line for each other setting."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from poison_t5x.studies import aggregate, settings, words


@dataclasses.dataclass(frozen=True)
class Series:
    """One line: a label, places along the x axis in order, and what is there."""

    label: str
    places: tuple[Any, ...]
    points: tuple[aggregate.Point, ...]
    estimates: tuple[aggregate.Estimate, ...]


@dataclasses.dataclass(frozen=True)
class Chart:
    """One measure along one dimension."""

    x: str
    measure: str
    series: tuple[Series, ...]

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.measure}_by_{self.x}".replace(".", "_")

    @property
    def places(self) -> list[Any]:
        """All places, ascending if they are numbers, else as they come."""
        return ordered(place for series in self.series for place in series.places)

    @property
    def is_numeric(self) -> bool:
        return all(map(_is_number, self.places))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def ordered(found) -> list[Any]:
    """Distinct values, ascending if they are numbers, else as they come."""
    distinct = list({repr(value): value for value in found}.values())
    return sorted(distinct) if all(map(_is_number, distinct)) else distinct


def charts(config: settings.StudyConfig, found: Sequence[aggregate.Point]) -> list[Chart]:
    """A chart for each of STUDY_X and STUDY_MEASURES that there is something to show of.

    Where there are several of STUDY_X, each shows the points that have the study's own values of
    the others: one factor at a time.
    """
    made = []
    for x in config.x:
        for measure in config.measures:
            points = [point for point in found if _belongs(point, x, config)]
            points = [point for point in points if measure in point.measures()]
            if points:
                made.append(Chart(x, measure, _series(points, x, measure, config)))
    return made


def _belongs(point: aggregate.Point, x: str, config: settings.StudyConfig) -> bool:
    at_checkpoints = "checkpoint" in (x, *config.lines)
    if (point.checkpoint is not None) != at_checkpoints:
        return False
    if x == "score" and point.score is None:
        return False
    others = [name for name in config.x if name != x and name not in settings.DIMENSIONS]
    return all(
        repr(point.place(name, config.base)) == repr(config.base.get(name)) for name in others
    )


def _series(
    points: Sequence[aggregate.Point], x: str, measure: str, config: settings.StudyConfig
) -> tuple[Series, ...]:
    names = [name for name in config.lines if name != x]
    groups = _groups(points, names, config.base)
    if any(_clash(group, x, config.base) for group in groups.values()):
        rest = [name for name in varying(points, config.base) if name not in (x, *names)]
        names = [*names, *rest]
        groups = _groups(points, names, config.base)
    shown = [name for name in names if name in varying(points, config.base)]
    return tuple(_one_series(group, x, measure, shown, config.base) for group in groups.values())


def _groups(
    points: Sequence[aggregate.Point], names: Sequence[str], base: Mapping[str, Any]
) -> dict[str, list[aggregate.Point]]:
    found: dict[str, list[aggregate.Point]] = {}
    for point in points:
        key = repr([point.place(name, base) for name in names])
        found.setdefault(key, []).append(point)
    return found


def _clash(group: Sequence[aggregate.Point], x: str, base: Mapping[str, Any]) -> bool:
    places = [repr(point.place(x, base)) for point in group]
    return len(set(places)) < len(places)


def varying(points: Sequence[aggregate.Point], base: Mapping[str, Any]) -> list[str]:
    """Names of macros, 'score' and 'checkpoint' in which points differ."""
    names = dict.fromkeys(name for point in points for name in point.macros)
    return [
        name
        for name in (*names, *settings.DIMENSIONS)
        if len({repr(point.place(name, base)) for point in points}) > 1
    ]


def _one_series(
    group: Sequence[aggregate.Point],
    x: str,
    measure: str,
    names: Sequence[str],
    base: Mapping[str, Any],
) -> Series:
    order = [repr(place) for place in ordered(point.place(x, base) for point in group)]
    group = sorted(group, key=lambda point: order.index(repr(point.place(x, base))))
    common = set.intersection(*(set(point.seeds) for point in group))
    if common:  # else a line would go from one seed's value to another's
        group = [point.only(common) for point in group]
    label = ", ".join(_label(name, group[0].place(name, base)) for name in names)
    estimates = [point.estimate(measure) for point in group]
    return Series(
        label,
        tuple(point.place(x, base) for point in group),
        tuple(group),
        tuple(found for found in estimates if found is not None),
    )


def _label(name: str, value: Any) -> str:
    if name == "score":
        return str(value)
    return f"{'step' if name == 'checkpoint' else name} {words.place(name, value)}"
