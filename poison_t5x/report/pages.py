"""Self-contained HTML pages from the Jinja templates of a package."""

from collections.abc import Callable, Mapping
from typing import Any


def render(
    package: str, template: str, filters: Mapping[str, Callable], values: Mapping[str, Any]
) -> str:
    """A page, every value escaped, and a name that the template doesn't get an error.

    Args:
      package: the Python package whose folder has the template.
      template: the file's name.
      filters: name -> what the template calls by it.
      values: what it shows.
    """
    # Here, not above: `--help` must not wait for it.
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package, ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(filters)
    return environment.get_template(template).render(values)
