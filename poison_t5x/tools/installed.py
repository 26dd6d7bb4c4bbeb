"""Packages against the ranges that were tested, and which extras are there."""

import importlib.metadata
from collections.abc import Iterator

from packaging.requirements import Requirement

from poison_t5x.tools.machine import Finding, Level

PART = "Packages"


def check(package: str = "poison-t5x") -> Iterator[Finding]:
    """A line about each package that `package` needs, and about each of its extras' packages."""
    try:
        wanted = [Requirement(text) for text in importlib.metadata.requires(package) or []]
        extras = importlib.metadata.metadata(package).get_all("Provides-Extra") or []
    except importlib.metadata.PackageNotFoundError:
        text = "isn't installed: pip install -e . in its folder"
        yield Finding(PART, package, text, Level.PROBLEM)
        return
    for requirement in wanted:
        if requirement.marker is None:
            yield _state(requirement, requirement.name, f"pip install '{requirement}'")
    for extra in sorted({*extras} - {"test"}):
        for requirement in wanted:
            marker = requirement.marker
            # Of jax[cuda12] the line about devices tells.
            if marker and marker.evaluate({"extra": extra}) and not requirement.extras:
                name, how = f"[{extra}] {requirement.name}", f"pip install 'poison-t5x[{extra}]'"
                # Extras are optional: that one is missing is worth a word, and no warning.
                yield _state(requirement, name, how, Level.OK)


def _state(
    requirement: Requirement, name: str, how: str, missing: Level = Level.PROBLEM
) -> Finding:
    tested = requirement.specifier
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(PART, name, f"isn't installed: {how}", missing)
    if tested.contains(version, prereleases=True):
        return Finding(PART, name, f"{version} (in {tested})")
    text = f"{version}, outside of {tested}, the range that was tested"
    return Finding(PART, name, text, Level.WARNING)
