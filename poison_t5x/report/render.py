"""Pages: one Jinja environment, one base template, one style, one script of ours at most."""

import base64
import functools
import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any

from poison_t5x.core import artifacts, metrics
from poison_t5x.report import tables

_SCRIPT = pathlib.Path(__file__).parent / "templates" / "browser.js"


def write_page(path: pathlib.Path, template: str, context: Mapping[str, Any]) -> None:
    """Writes the page of a template and what it names, self-contained and all escaped.

    The page's policy lets a browser run the one script whose hash it names, and load nothing.
    A name that the template isn't given is an error.
    """
    values = {"sections": {}, "browses": False, **context}
    write_text(path, _environment().get_template(template).render(values))


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes UTF-8; a lone surrogate, which JSON allows and UTF-8 doesn't, becomes '?'."""
    write_bytes(path, text.encode("utf-8", errors="replace"))


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Writes a file whole, and its folder where there is none."""
    artifacts.write_atomically(path, content)


@functools.cache
def _environment() -> Any:
    # Here, not above: `--help` must not wait for them.
    import jinja2
    import markupsafe

    def joined(glue: str, text: str) -> markupsafe.Markup:
        return markupsafe.Markup(glue + "<wbr>").join(text.split(glue))

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("poison_t5x.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    script = _SCRIPT.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals.update(
        script=markupsafe.Markup(script),
        script_digest=digest,
        models=metrics.MODELS,
        main_conditions=metrics.CONDITIONS,
        condition_words=metrics.CONDITION_WORDS,
    )
    environment.filters.update(
        amount=tables.amount,
        # A long name may go on in the next line after each of its underscores.
        breakable=functools.partial(joined, "_"),
        count=tables.count,
        decimal=tables.DECIMAL.text,
        duration=tables.duration,
        heading=tables.heading,
        interval=tables.interval,
        level=lambda share: f"{100 * float(share):g}%",
        percent=tables.percent,
        points=tables.points,
        value=lambda number, measure: tables.value(measure, number),
    )
    return environment
