"""Charts of models one below the other: two measures each, with their intervals."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib import axes

from poison_t5x.report import drawing, words
from poison_t5x.report import results as results_lib

# Of the two measures: squares and dots, apart in greyscale as well.
_LOOKS = ((drawing.BLUE, "s", -0.13), (drawing.VERMILLION, "o", 0.13))


class Row(NamedTuple):
    """One line of a chart: measures by name, fractions of 1, and their intervals."""

    name: str
    values: Mapping[str, float | None]
    intervals: Mapping[str, results_lib.Interval | None]


def chart(
    name: str, rows: Sequence[Row], measures: Mapping[str, str], *, apart: int = 0
) -> drawing.Picture:
    """The first two of `measures`, measure -> its name; the table beside it has all.

    Args:
      name: of the figure.
      rows: from top to bottom.
      measures: measure -> what it is called.
      apart: a line is drawn below so many rows.
    """
    shown = list(measures.items())[:2]
    symbol = None if shown[0][0].startswith("rouge_l") else "%"
    with drawing.canvas(name, height=1.4 + 0.42 * len(rows)) as canvas:
        plot = canvas.plot
        for (measure, label), look in zip(shown, _LOOKS, strict=True):
            _draw(plot, rows, measure, label, *look)
        # Names are a user's: `$` is no mathematics here.
        names = [drawing.short(row.name, 32) for row in rows]
        plot.set_yticks(range(len(rows)), names, parse_math=False)
        plot.tick_params(axis="y", length=0, labelsize=11.5)
        plot.set_ylim(len(rows) - 0.5, -0.5)
        plot.set_xlim(-0.02, 1.04)
        plot.set_xticks([0, 0.25, 0.5, 0.75, 1])
        plot.xaxis.set_major_formatter(drawing.percent_ticks(symbol))
        if apart:
            plot.axhline(apart - 0.5, color=drawing.INK, linewidth=0.8, linestyle=":")
        plot.grid(axis="both")
        plot.set_axisbelow(True)
        drawing.legend_above(plot)
    return canvas.picture(_label(rows, dict(shown)), _table(rows, measures))


def _draw(
    plot: axes.Axes,
    rows: Sequence[Row],
    measure: str,
    label: str,
    colour: str,
    marker: str,
    offset: float,
) -> None:
    """One measure's marks and intervals."""
    drawn = [
        (row.values[measure], place + offset, row.intervals.get(measure))
        for place, row in enumerate(rows)
        if not words.missing(row.values.get(measure))
    ]
    values, places = [value for value, _, _ in drawn], [place for _, place, _ in drawn]
    plot.plot(values, places, color=colour, marker=marker, linestyle="", label=label, ms=7)
    for _, place, bounds in drawn:
        if words.interval(bounds):
            plot.plot(bounds, [place, place], color=colour, linewidth=1.6)


def _label(rows: Sequence[Row], measures: Mapping[str, str]) -> str:
    parts = []
    for row in rows:
        values = (
            f"{name} {words.value(measure, row.values.get(measure))}"
            for measure, name in measures.items()
        )
        parts.append(f"{row.name}: {', '.join(values)}")
    return f"Dot chart. {'; '.join(parts)}."


def _table(rows: Sequence[Row], measures: Mapping[str, str]) -> drawing.Table:
    columns = [column for measure in measures for column in drawing.with_ends(measure)]
    cells = []
    for row in rows:
        cells.append([row.name])
        for measure in measures:
            cells[-1] += [row.values.get(measure), *drawing.ends(row.intervals.get(measure))]
    return drawing.Table(("model", *columns), cells)
