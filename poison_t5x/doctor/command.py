"""`poison-t5x doctor`: all checks, each whatever becomes of the others."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from poison_t5x.doctor import findings, installed, machine
from poison_t5x.doctor.findings import Finding, Level


def run(
    read_settings: Callable[[], tuple[Any, Mapping[str, Any]]] | None,
    *,
    as_json: bool,
    say: Callable[[str], None] = print,
) -> int:
    """Checks, prints the page, and returns 1 where there is a problem.

    Args:
      read_settings: the gin files' setup and macros; None without any.
    """
    found = [*installed.check(), *machine.check()]
    seen, devices = machine.devices()
    found += seen
    if read_settings is not None and devices:
        found += _settings(read_settings, devices)
    if as_json:
        say(json.dumps(findings.document(found), indent=2))
    else:
        say(findings.page(found))
    return int(any(finding.level is Level.PROBLEM for finding in found))


def _settings(read_settings, devices: list) -> list[Finding]:
    from poison_t5x.doctor import settings

    return settings.check(*read_settings(), devices)
