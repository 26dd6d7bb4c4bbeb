"""What a check found: a line, and whether it is well."""

import enum
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple


class Level(enum.Enum):
    """How it is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(NamedTuple):
    """One line of the page.

    Attributes:
      part: the heading that it stands under.
      name: of what.
      level: how it is.
      text: what was found and, where it isn't well, what to do.
    """

    part: str
    name: str
    level: Level
    text: str


def guarded(part: str, name: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """What `check` finds; where it fails, that, so that the other checks are made."""
    found: list[Finding] = []
    try:
        for finding in check():
            found.append(finding)
    except Exception as error:  # whatever a broken installation raises is what is to be told
        text = f"can't be checked: {one_line(error)}"
        found.append(Finding(part, name, Level.PROBLEM, text))
    return found


def one_line(error: BaseException) -> str:
    """An error's class and the first line of its message."""
    message = str(error).strip()
    return type(error).__name__ + (f": {message.splitlines()[0]}" if message else "")


def page(findings: list[Finding]) -> str:
    """The findings as a page of text, under their headings, and a last line that sums up."""
    lines: list[str] = []
    width = max((len(finding.name) for finding in findings), default=0)
    part = None
    for finding in findings:
        if finding.part != part:
            part = finding.part
            lines += ["", part] if lines else [part]
        lines.append(f"  {finding.level.value:<8} {finding.name:<{width}}  {finding.text}")
    lines += ["", _summary(findings)]
    return "\n".join(lines)


def _count(findings: list[Finding], level: Level) -> int:
    return sum(finding.level is level for finding in findings)


def _summary(findings: list[Finding]) -> str:
    problems, warnings = (_count(findings, level) for level in (Level.PROBLEM, Level.WARNING))
    if not problems + warnings:
        return "all is well"
    return f"problems: {problems}, warnings: {warnings}"


def document(findings: list[Finding]) -> dict[str, Any]:
    """The findings for JSON, with the numbers of problems and of warnings."""
    rows = [{**finding._asdict(), "level": finding.level.value} for finding in findings]
    return {
        "problems": _count(findings, Level.PROBLEM),
        "warnings": _count(findings, Level.WARNING),
        "findings": rows,
    }
