"""Pages from templates: self-contained, everything escaped, with one script of ours at most."""

import base64
import functools
import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any

import jinja2
import markupsafe

from poison_t5x.report import words

_SCRIPT = "browser.js.j2"


def page(template: str, context: Mapping[str, Any]) -> str:
    """The page's text, of the template and what it names.

    The page's policy lets a browser run the one script whose hash it names, and load nothing.
    """
    environment = _environment()
    # As it stands in the file: its braces are no template's, and its bytes are hashed.
    script = environment.loader.get_source(environment, _SCRIPT)[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    values = {
        **context,
        "script": markupsafe.Markup(script),
        "script_source": f"; script-src 'sha256-{digest}'",
    }
    return environment.get_template(template).render(values)


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes UTF-8; a lone surrogate, which JSON allows and UTF-8 doesn't, becomes '?'."""
    path.write_bytes(text.encode("utf-8", errors="replace"))


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("poison_t5x.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        amount=words.amount,
        breakable=_breakable,
        broken=lambda text: markupsafe.Markup(",<br>").join(text.split(", ")),
        condition_name=words.condition,
        decimal=words.decimal,
        difference=words.difference,
        duration=words.duration,
        heading=words.heading,
        interval=words.interval,
        level=lambda share: f"{100 * float(share):g}%",
        percent=words.percent,
        points=words.points,
        value=lambda number, measure: words.value(measure, number),
    )
    return environment


def _breakable(text: str) -> markupsafe.Markup:
    """A long name that may go on in the next line after each of its underscores."""
    return markupsafe.Markup("_<wbr>").join(text.split("_"))
