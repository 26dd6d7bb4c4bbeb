"""Self-contained HTML pages from the Jinja templates of a package."""

from collections.abc import Callable, Mapping
from typing import Any

from poison_t5x.report import render as render_lib


def render(template: str, filters: Mapping[str, Callable], values: Mapping[str, Any]) -> str:
    """A page, every value escaped, and a name that the template doesn't get an error."""
    environment = render_lib._environment()
    environment.filters.update(filters)
    return environment.get_template(template).render(values)
