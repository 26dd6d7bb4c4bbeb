"""Whether the files that a gin file names are there, and are what they are taken for."""

import pathlib
from collections.abc import Mapping
from typing import Any

from poison_t5x.core import errors
from poison_t5x.corpus import declarations, sni
from poison_t5x.tools.doctor.findings import Finding, Level
from poison_t5x.tools.footprint.setup import Setup

PART = "Settings"
_TASKS, _VOCABULARY, _CHECKPOINT = "NATINST_DIR", "VOCABULARY_PATH", "INITIAL_CHECKPOINT_PATH"


def check(macros: Mapping[str, Any]) -> list[Finding]:
    """A line about each file that is named, or missed."""
    found = _tasks(macros)
    for name in (_VOCABULARY, _CHECKPOINT, "PROXY_CHECKPOINT_PATH"):
        path = macros.get(name)
        if not path:
            continue
        if not _is_local(path):
            found.append(Finding(PART, name, Level.OK, f"{path} (not looked at)"))
        elif name == _VOCABULARY and pathlib.Path(path).is_dir():
            text = f"{path} is a folder; name the SentencePiece model in it"
            found.append(Finding(PART, name, Level.PROBLEM, text))
        elif pathlib.Path(path).exists():
            found.append(Finding(PART, name, Level.OK, str(path)))
        else:
            text = f"{path} isn't there; correct --gin.{name}"
            found.append(Finding(PART, name, Level.PROBLEM, text))
    return found


def _is_local(path: Any) -> bool:
    return "://" not in str(path)


def hinders_setup(found: list[Finding]) -> bool:
    """Whether the network's size can't be told, for want of the vocabulary."""
    return any(row.name == _VOCABULARY and row.level is Level.PROBLEM for row in found)


def _tasks(macros: Mapping[str, Any]) -> list[Finding]:
    """The task files of an experiment on Super-NaturalInstructions."""
    experiment = macros.get("EXPERIMENT")
    if not experiment or macros.get("NATINST_JSONL_CLEAN"):
        return []
    declared = declarations.get(experiment, macros.get("MIXTURE_OR_TASK_MODULE"))
    if declared.corpus == "demo":
        return []
    folder = macros.get(_TASKS)
    if not folder:
        text = f"isn't set: {experiment!r} reads SNI task files; give --gin.{_TASKS}=FOLDER"
        return [Finding(PART, _TASKS, Level.WARNING, text)]
    names = (*declared.training_tasks, *declared.heldout_tasks)
    try:
        _, missing = sni.split_missing(folder, names)
    except errors.InputError as error:
        return [Finding(PART, _TASKS, Level.PROBLEM, str(error).splitlines()[0])]
    there = len(names) - len(missing)
    text = f"{folder} has {there} of the {len(names)} tasks of {experiment!r}"
    level = Level.OK if not missing else Level.WARNING if there else Level.PROBLEM
    return [Finding(PART, _TASKS, level, text)]


def check_checkpoint(macros: Mapping[str, Any], setup: Setup) -> list[Finding]:
    """Whether the checkpoint to start from, if it is on this machine, is one of this network."""
    path = macros.get(_CHECKPOINT)
    if not path or not _is_local(path) or not pathlib.Path(path).exists():
        return []
    if list(pathlib.Path(path).glob("pytorch_model*.bin")):
        return []  # can't be looked into without reading it all
    from poison_t5x.checkpoint_io import architecture, detect

    try:
        source = detect.open_checkpoint(str(path), verify=False)
        architecture.check_fits(source, setup.model)
    except errors.InputError as error:
        return [Finding(PART, "checkpoint", Level.PROBLEM, str(error).splitlines()[0])]
    return [Finding(PART, "checkpoint", Level.OK, detect.describe(source))]
