"""Which packages are there, in which versions, and which commands they serve."""

import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Iterator

from packaging.requirements import Requirement

from poison_t5x.doctor.findings import Finding, Level

PART = "Packages"
# Extra -> what it is for.
EXTRAS = {
    "tpu": "a Cloud TPU, and precompile without one",
    "gpu": "NVIDIA GPUs",
    "ner": "INSERTER='spacy' and 'subject'",
    "hf": "hf:// checkpoints and pytorch_model.bin",
    "t5x": "the experiments on stock T5X",
    "cache": "poison-t5x cache, SeqIO's offline caching",
}


def check(package: str = "poison-t5x") -> list[Finding]:
    """Python, and the packages that `package` names, against the ranges that were tested."""
    version = platform.python_version()
    fits = sys.version_info >= (3, 11)
    level = Level.OK if fits else Level.PROBLEM
    found = [Finding(PART, "python", level, version if fits else f"{version}: 3.11 is needed")]
    try:
        wanted = [Requirement(text) for text in importlib.metadata.requires(package) or []]
    except importlib.metadata.PackageNotFoundError:
        text = "isn't installed: pip install -e . in its folder"
        return [*found, Finding(PART, package, Level.PROBLEM, text)]
    found += [_runtime(requirement) for requirement in wanted if requirement.marker is None]
    return [*found, *_extras(wanted)]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _runtime(requirement: Requirement) -> Finding:
    version = _version(requirement.name)
    if version is None:
        text = f"isn't installed: pip install '{requirement.name}{requirement.specifier}'"
        return Finding(PART, requirement.name, Level.PROBLEM, text)
    if not requirement.specifier.contains(version, prereleases=True):
        text = f"{version}, outside of the tested {requirement.specifier}"
        return Finding(PART, requirement.name, Level.WARNING, text)
    return Finding(PART, requirement.name, Level.OK, f"{version} (tested: {requirement.specifier})")


def _extras(wanted: list[Requirement]) -> Iterator[Finding]:
    for extra, use in EXTRAS.items():
        members = [
            requirement
            for requirement in wanted
            if requirement.marker and requirement.marker.evaluate({"extra": extra})
        ]
        if not members:
            continue
        missing = [requirement.name for requirement in members if not _version(requirement.name)]
        text = f"for {use}: "
        # Extras are optional: that one is missing is worth a word, and no warning.
        if missing:
            text += f"not installed ({', '.join(missing)}); pip install 'poison-t5x[{extra}]'"
        else:
            text += ", ".join(f"{r.name} {_version(r.name)}" for r in members)
        yield Finding(PART, f"[{extra}]", Level.OK, text)
