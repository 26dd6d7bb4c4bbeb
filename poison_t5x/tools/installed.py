"""Which packages are there, in which versions, and which commands they serve."""

import importlib.metadata
import importlib.util
import pathlib
import platform
import re
from collections.abc import Iterator, Mapping

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from poison_t5x.tools.machine import Finding, Level, guarded

PART = "Packages"
# Extra -> its use.
EXTRAS = {
    "tpu": "a Cloud TPU, and precompile without one",
    "gpu": "NVIDIA GPUs",
    "ner": "INSERTER='spacy' and 'subject'",
    "hf": "hf:// checkpoints and pytorch_model.bin",
    "t5x": "the experiments on stock T5X",
    "cache": "poison-t5x cache, SeqIO's offline caching",
}
# What comes from elsewhere than an extra: extra -> (module, its name, how to get it).
_BESIDE = {
    "ner": ("en_core_web_sm", "its model", "python -m spacy download en_core_web_sm"),
    "t5x": ("t5x", "T5X itself", "launch/t5x.sh"),
}
_LOCK = pathlib.Path(__file__).parents[2] / "launch" / "requirements.lock"
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


def check(package: str = "poison-t5x") -> list[Finding]:
    """Python, and the packages that `package` names, against the ranges that were tested."""
    version = platform.python_version()
    is_new = SpecifierSet(">=3.11").contains(version, prereleases=True)
    findings = [
        Finding(PART, "python", version)
        if is_new
        else Finding(PART, "python", f"{version}: 3.11 is needed", Level.PROBLEM)
    ]
    try:
        wanted = [Requirement(text) for text in importlib.metadata.requires(package) or []]
    except importlib.metadata.PackageNotFoundError:
        text = "isn't installed: pip install -e . in its folder"
        return [*findings, Finding(PART, package, text, Level.PROBLEM)]
    pins = locked(_LOCK)
    for requirement in wanted:
        if requirement.marker is None:
            findings += guarded(PART, requirement.name, lambda r=requirement: [_runtime(r, pins)])
    return [*findings, *guarded(PART, "extras", lambda: _extras(wanted))]


def locked(path: pathlib.Path) -> dict[str, str]:
    """Package -> version of a lock file; none where it isn't there, as in an installed package."""
    if not path.is_file():
        return {}
    pins = _PIN.findall(path.read_text(encoding="utf-8"))
    return {canonicalize_name(name): version for name, version in pins}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _runtime(requirement: Requirement, pins: Mapping[str, str]) -> Finding:
    name, tested = requirement.name, requirement.specifier
    version, level = _version(name), Level.PROBLEM
    if version is None:
        text = f"isn't installed: pip install '{name}{tested}'"
    elif missing := _missing_file(name):
        text = f"{version} is broken ({missing} is missing): "
        text += f"pip install --force-reinstall {name}=={version}"
    elif not tested.contains(version, prereleases=True):
        text, level = f"{version}, outside of {tested}, the range that was tested", Level.WARNING
    else:
        pin = pins.get(canonicalize_name(name))
        text = f"{version} (in {tested}{f', tested with {pin}' if pin else ''})"
        level = Level.OK
    return Finding(PART, name, text, level)


def _missing_file(name: str) -> str | None:
    """A file that a package's metadata lists, and that isn't there; nothing is imported."""
    for path in importlib.metadata.files(name) or ():
        if path.name == "__init__.py" and len(path.parts) == 2 and not path.locate().exists():
            return str(path)
    return None


def _extras(wanted: list[Requirement]) -> Iterator[Finding]:
    for extra, use in EXTRAS.items():
        members = [
            inner
            for requirement in wanted
            if requirement.marker and requirement.marker.evaluate({"extra": extra})
            for inner in _with_plugins(requirement)
        ]
        if not members:
            continue
        versions = {member.name: _version(member.name) for member in members}
        text, level = f"for {use}: ", Level.OK
        # Extras are optional: that one is missing is worth a word, and no warning.
        if missing := [name for name, version in versions.items() if not version]:
            text += f"not installed ({', '.join(missing)}); pip install 'poison-t5x[{extra}]'"
            yield Finding(PART, f"[{extra}]", text)
            continue
        text += ", ".join(f"{name} {version}" for name, version in versions.items())
        for member in members:
            version = versions[member.name]
            if not member.specifier.contains(version, prereleases=True):
                level = Level.WARNING
                text += f"; {member.name} {version} is outside of {member.specifier}"
        if extra in _BESIDE:
            module, name, how = _BESIDE[extra]
            there = importlib.util.find_spec(module) is not None
            text += f"; {name} is there" if there else f"; {name} isn't there: {how}"
        yield Finding(PART, f"[{extra}]", text, level)


def _with_plugins(requirement: Requirement) -> list[Requirement]:
    """A requirement with extras of its own, as jax[cuda12], is met by what those name."""
    members = [requirement]
    for extra in requirement.extras:
        inner = map(Requirement, importlib.metadata.requires(requirement.name) or [])
        members += [
            plugin
            for plugin in inner
            if plugin.marker
            and plugin.marker.evaluate({"extra": extra})
            and not plugin.marker.evaluate({"extra": ""})
        ]
    return members
