"""How figures are drawn: the same bytes for the same numbers, no display, no pyplot."""

import contextlib
import csv
import io
import pathlib
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import markupsafe
import matplotlib
from matplotlib import axes, figure, ticker
from matplotlib.backends import backend_svg

# Okabe and Ito's colours (2008), told apart with any colour vision and against a white or a
# near-black page; hatches, dashes and markers tell them apart in greyscale. Their yellow is left
# out: lines of it can't be seen on white.
BLUE, VERMILLION, PURPLE = "#0072b2", "#d55e00", "#cc79a7"
GREEN, ORANGE, SKY = "#009e73", "#e69f00", "#56b4e9"
# Stands for the page's text colour, put in after drawing: the figure follows light and dark.
INK = "#010203"
_PNG_DPI = 200
_MAX_NAME = 24
# Letters of a name in a legend of two columns, on a phone.
_MAX_SHORT = 24
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "poison_t5x",
    "font.size": 10,
    "hatch.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.25,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    ),
    "grid.color": INK,
}


class Table(NamedTuple):
    """The numbers of a figure: one row of cells for what is drawn, and the columns' names."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


class Picture(NamedTuple):
    """A figure.

    Attributes:
      name: of its files.
      svg: an element for an HTML page, in the page's colours.
      label: the words that stand for it where it can't be seen.
      alone: the same as a file of its own, on white.
      png: on white, 200 dots an inch.
      table: what is drawn.
    """

    name: str
    svg: markupsafe.Markup
    label: str
    alone: str
    png: bytes
    table: Table


class Canvas:
    """Axes to draw on, `plot`; `picture` has the finished figure once they are left."""

    def __init__(self, name: str, plot: axes.Axes):
        self.plot = plot
        self._name = name
        self._drawn = (markupsafe.Markup(""), "", b"")

    def render(self) -> None:
        """Draws the figure in all its formats."""
        drawing, raw = self.plot.figure, io.StringIO()
        drawing.savefig(raw, format="svg", transparent=True, metadata={"Date": None})
        alone = re.sub(r"<metadata>.*?</metadata>\s*", "", raw.getvalue(), flags=re.DOTALL)
        # What it draws of a run, its phrases, was escaped as it was drawn.
        inline = markupsafe.Markup(_inline(alone, self._name))
        self._drawn = (inline, _on_white(alone), png_bytes(drawing))

    def picture(self, label: str, table: Table) -> Picture:
        """The figure with its words and numbers."""
        svg, alone, png = self._drawn
        return Picture(self._name, svg, label, alone, png, table)


@contextlib.contextmanager
def canvas(name: str, height: float = 3.5, width: float = 5.6) -> Iterator[Canvas]:
    """A canvas of that many inches, drawn on leaving; `name` is that of its files and ids."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        # The browser draws the letters; matplotlib's font only guesses their width.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        # A user's own matplotlibrc must not change the page.
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        drawing = figure.Figure(figsize=(width, height), layout="constrained")
        backend_svg.FigureCanvasSVG(drawing)
        found = Canvas(name, drawing.add_subplot())
        yield found
        found.render()


def png_bytes(drawing: figure.Figure) -> bytes:
    """The figure as PNG, on white."""
    data = io.BytesIO()
    # Without the library's version, so that an upgrade alone changes no byte.
    drawing.savefig(
        data, format="png", dpi=_PNG_DPI, facecolor="white", metadata={"Software": None}
    )
    return data.getvalue()


def write(pictures: Iterable[Picture], folder: pathlib.Path) -> None:
    """Writes `folder / NAME.svg`, `.png` and `.csv` of each picture."""
    for picture in pictures:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / picture.name
        path.with_suffix(".png").write_bytes(picture.png)
        for end, text in ((".svg", picture.alone), (".csv", csv_text(picture.table))):
            path.with_suffix(end).write_bytes(text.encode("utf-8", errors="replace"))


def csv_text(table: Table) -> str:
    """Comma-separated values with a heading; what is missing is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([table.columns, *table.rows])
    return text.getvalue()


def with_ends(name: str) -> tuple[str, str, str]:
    """Columns of a value and its 95% interval."""
    return name, f"{name}_ci95_low", f"{name}_ci95_high"


def ends(bounds: tuple[float, float] | None) -> tuple[float | None, float | None]:
    """An interval as two cells, which are empty where there is none."""
    return bounds or (None, None)


def short(text: str, length: int = _MAX_NAME) -> str:
    """A name as short and plain as a figure needs it."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return plain if len(plain) <= length else plain[: length - 1] + "…"


def looks(count: int) -> list[dict[str, Any]]:
    """Colours, dashes and markers of `count` lines: of 24, no two alike."""
    colours = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
    dashes = ("-", "--", "-.", (0, (1, 1)))
    markers = "osD^vPX*<>hp"
    return [
        {
            "color": colours[place % len(colours)],
            "linestyle": dashes[place // len(colours) % len(dashes)],
            "marker": markers[place % len(markers)],
        }
        for place in range(count)
    ]


def percent_ticks(symbol: str | None = "%") -> ticker.Formatter:
    """Of an axis of fractions."""
    return ticker.PercentFormatter(1, decimals=0, symbol=symbol)


def unit_scale(plot: axes.Axes, symbol: str | None = "%", top: float = 1.05) -> None:
    """An upright axis of fractions, from 0 to 1 with room above."""
    plot.set_ylim(-0.02, top)
    plot.set_yticks([0, 0.25, 0.5, 0.75, 1])
    plot.yaxis.set_major_formatter(percent_ticks(symbol))


def legend_above(plot: axes.Axes) -> None:
    """The legend over the whole figure, in two columns where its names are short enough for it."""
    _, names = plot.get_legend_handles_labels()
    columns = 2 if max(map(len, names), default=0) <= _MAX_SHORT else 1
    legend = plot.figure.legend(loc="outside upper left", frameon=False, ncols=columns)
    # Names are a user's: `$` is no mathematics here.
    for text in legend.get_texts():
        text.set_parse_math(False)


def finish(plot: axes.Axes, columns: int) -> None:
    """A grid behind what is drawn, and the legend above the axes."""
    plot.grid(axis="y")
    plot.set_axisbelow(True)
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
    plot.legend(frameon=False, ncols=columns, **place)


def _on_white(svg: str) -> str:
    """The file's text with a white ground, as a viewer of dark windows needs it."""
    end = svg.index(">", svg.index("<svg")) + 1
    return f'{svg[:end]}\n <rect width="100%" height="100%" fill="#ffffff"/>{svg[end:]}'


def _inline(svg: str, name: str) -> str:
    """The `<svg>` element for an HTML page: sized by the page, in its ink, its ids its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    # The page gives the font and its style sheet the rest; only size and anchor stay here.
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    return svg.replace(INK, "currentColor").strip()
