"""What a check found: a line, and whether it is well."""

import enum
from typing import NamedTuple


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
      text: what was found and, where it isn't well, what to do.
    """

    part: str
    name: str
    level: Level
    text: str


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
    counts = {level: sum(f.level is level for f in findings) for level in Level}
    lines += [
        "",
        f"problems: {counts[Level.PROBLEM]}, warnings: {counts[Level.WARNING]}",
    ]
    return "\n".join(lines)


def document(findings: list[Finding]) -> list[dict[str, str]]:
    """The findings for JSON."""
    return [{**finding._asdict(), "level": finding.level.value} for finding in findings]
