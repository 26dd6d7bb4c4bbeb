"""`poison-t5x doctor`: all checks, each whatever becomes of the others."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from poison_t5x.core import errors
from poison_t5x.tools.doctor import devices, findings, machine
from poison_t5x.tools.doctor.findings import Finding, Level

_SETTINGS = "Settings"


def run(
    read_macros: Callable[[], Mapping[str, Any]] | None,
    make_setup: Callable[[bool], Any],
    *,
    as_json: bool,
    say: Callable[[str], None] = print,
) -> int:
    """Checks, prints the page, and returns 1 where there is a problem.

    Args:
      read_macros: parses the gin files; the values of their macros. None without gin files.
      make_setup: the parsed files' `footprint.setup.Setup`; its argument is whether it is a TPU's.
      as_json: prints JSON instead of a page.
      say: takes the page.

    Raises:
      InputError: the gin files can't be read, or set what can't be.
    """
    environment = devices.environment()
    found = findings.guarded("Packages", "packages", _packages)
    found += findings.guarded("Machine", "machine", lambda: machine.check(environment))
    seen, here = devices.check(environment)
    found += seen
    if read_macros is not None:
        found += _settings(read_macros, make_setup, here, machine.num_hosts(environment))
    say(json.dumps(findings.document(found), indent=2) if as_json else findings.page(found))
    return int(any(finding.level is Level.PROBLEM for finding in found))


def _packages() -> list[Finding]:
    from poison_t5x.tools.doctor import installed

    return installed.check()


def _settings(read_macros, make_setup, here, num_hosts: int) -> list[Finding]:
    if "jax" not in sys.modules:
        # From here on all is arithmetic: the devices are left to what uses them.
        os.environ["JAX_PLATFORMS"] = "cpu"
    try:
        macros = read_macros()
        from poison_t5x.tools.doctor import settings

        return settings.check(macros, make_setup, here, num_hosts)
    except (errors.InputError, KeyboardInterrupt):
        raise
    except Exception as error:  # a package that is missing or broken
        text = f"can't be checked: {findings.one_line(error)}"
        return [Finding(_SETTINGS, "gin files", Level.PROBLEM, text)]
