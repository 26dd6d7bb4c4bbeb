"""Pages and texts: one Jinja environment, one base template, one style, one script of ours."""

import base64
import functools
import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any

from poison_t5x.core import artifacts, metrics, reading
from poison_t5x.report import tables
from poison_t5x.report.tables import TEMPLATES


def write_page(path: pathlib.Path, template: str, context: Mapping[str, Any]) -> None:
    """Writes the page of a template and what it names, self-contained and all escaped.

    The page's policy lets a browser run the one script whose hash it names, and load nothing.
    A name that the template isn't given is an error.
    """
    values = {"sections": {}, "browses": False, **context}
    write_text(path, _environment().get_template(template).render(values))


def text(template: str, **values: Any) -> str:
    """A plain text, of which nothing is escaped, without a newline at its end."""
    return _environment().get_template(template).render(values).removesuffix("\n")


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes UTF-8; a lone surrogate, which JSON allows and UTF-8 doesn't, becomes '?'."""
    artifacts.write_atomically(path, text.encode("utf-8", errors="replace"))


@functools.cache
def _environment() -> Any:
    # Here, not above: `--help` must not wait for them.
    import jinja2
    import markupsafe

    def breakable(text: str) -> markupsafe.Markup:
        """A long name, which may go on in the next line after each of its underscores."""
        return markupsafe.Markup("_<wbr>").join(text.split("_"))

    def align(text: str) -> str:
        """Lines of cells that tabs divide, as a table."""
        lines = tables.align(line.split("\t") for line in text.strip("\n").split("\n"))
        return "\n".join(lines) + "\n"

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    dumps = {"ensure_ascii": False, "separators": (",", ":"), "allow_nan": False}
    environment.policies["json.dumps_kwargs"] = dumps
    script = reading.read_text(TEMPLATES / "browser.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals.update(
        script=markupsafe.Markup(script),
        script_digest=digest,
        metrics=metrics,
        words=tables.WORDS,
        models=metrics.MODELS,
        main_conditions=metrics.CONDITIONS,
    )
    environment.filters.update(
        align=align,
        amount=tables.amount,
        breakable=breakable,
        count=tables.count,
        decimal=tables.DECIMAL.text,
        duration=tables.duration,
        heading=tables.heading,
        interval=tables.interval,
        level=lambda share: f"{100 * float(share):g}%",
        percent=tables.percent,
        points=tables.points,
        quote=repr,
        quoted="“{}”".format,
        value=lambda number, measure: tables.value(measure, number),
    )
    return environment
