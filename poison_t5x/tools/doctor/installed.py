"""Which packages are there, in which versions, and which commands they serve."""

import importlib.metadata
import importlib.util
import pathlib
import platform
import re
import sys
from collections.abc import Iterator, Mapping

from packaging.requirements import Requirement

from poison_t5x.tools.doctor.findings import Finding, Level, guarded

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
# What comes from elsewhere than an extra: extra -> (module, what, how to get it).
_BESIDE = {
    "ner": ("en_core_web_sm", "its model", "python -m spacy download en_core_web_sm"),
    "t5x": ("t5x", "T5X itself", "launch/t5x.sh"),
}
_LOCK = pathlib.Path(__file__).parents[2] / "launch" / "requirements.lock"
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


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
    pins = locked(_LOCK)
    for requirement in wanted:
        if requirement.marker is None:
            found += guarded(PART, requirement.name, lambda r=requirement: [_runtime(r, pins)])
    return [*found, *guarded(PART, "extras", lambda: _extras(wanted))]


def locked(path: pathlib.Path) -> dict[str, str]:
    """Package -> version of a lock file; none where it isn't there, as in an installed package."""
    if not path.is_file():
        return {}
    pins = _PIN.findall(path.read_text(encoding="utf-8"))
    return {_canonical(name): version for name, version in pins}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _runtime(requirement: Requirement, pins: Mapping[str, str]) -> Finding:
    name, version = requirement.name, _version(requirement.name)
    if version is None:
        text = f"isn't installed: pip install '{name}{requirement.specifier}'"
        return Finding(PART, name, Level.PROBLEM, text)
    if broken := _broken(name):
        text = f"{version} is broken ({broken}): pip install --force-reinstall {name}=={version}"
        return Finding(PART, name, Level.PROBLEM, text)
    if not requirement.specifier.contains(version, prereleases=True):
        text = f"{version}, outside of {requirement.specifier}, the range that was tested"
        return Finding(PART, name, Level.WARNING, text)
    pin = pins.get(_canonical(name))
    tested = f", tested with {pin}" if pin else ""
    return Finding(PART, name, Level.OK, f"{version} (in {requirement.specifier}{tested})")


def _broken(name: str) -> str | None:
    """What is missing of a package that has its metadata; nothing is imported."""
    for path in importlib.metadata.files(name) or ():
        if path.name == "__init__.py" and len(path.parts) == 2 and not path.locate().exists():
            return f"{path} is missing"
    return None


def _extras(wanted: list[Requirement]) -> Iterator[Finding]:
    for extra, use in EXTRAS.items():
        members = [
            requirement
            for requirement in wanted
            if requirement.marker and requirement.marker.evaluate({"extra": extra})
        ]
        if not members:
            continue
        members = [inner for member in members for inner in _with_plugins(member)]
        missing = [requirement.name for requirement in members if not _version(requirement.name)]
        text = f"for {use}: "
        # Extras are optional: that one is missing is worth a word, and no warning.
        if missing:
            text += f"not installed ({', '.join(missing)}); pip install 'poison-t5x[{extra}]'"
            yield Finding(PART, f"[{extra}]", Level.OK, text)
            continue
        text += ", ".join(f"{r.name} {_version(r.name)}" for r in members)
        level = Level.OK
        for requirement in members:
            version = _version(requirement.name) or ""
            if not requirement.specifier.contains(version, prereleases=True):
                level = Level.WARNING
                text += f"; {requirement.name} {version} is outside of {requirement.specifier}"
        yield Finding(PART, f"[{extra}]", level, text + _beside(extra))


def _with_plugins(requirement: Requirement) -> list[Requirement]:
    """A requirement with extras of its own, as jax[cuda12], is met by what those name."""
    found = [requirement]
    for extra in requirement.extras:
        for text in importlib.metadata.requires(requirement.name) or []:
            inner = Requirement(text)
            if inner.marker and not inner.marker.evaluate({"extra": ""}):
                found += [inner] if inner.marker.evaluate({"extra": extra}) else []
    return found


def _beside(extra: str) -> str:
    """A word on what an extra can't install."""
    if extra not in _BESIDE:
        return ""
    module, what, how = _BESIDE[extra]
    there = importlib.util.find_spec(module) is not None
    return f"; {what} is there" if there else f"; {what} isn't there: {how}"
