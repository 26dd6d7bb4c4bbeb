"""An experiment's tasks, read and checked: from a folder of task files or the embedded corpus."""

import functools
import hashlib
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from poison_t5x.core import errors
from poison_t5x.corpus import declarations, demo_corpus, polarity, sni

# A folder may lack hundreds of a benchmark's tasks.
MAX_NAMES = 20


class Corpus(NamedTuple):
    """The tasks that an experiment names and that are there, in its order.

    Attributes:
      poisoned: whole names of the poisoned tasks among `training`.
      polarities: of the poisoned and the held-out tasks; empty for arbitrary attacks.
      missing: names of the lists for which no task file is there.
    """

    training: tuple[sni.Task, ...]
    poisoned: tuple[str, ...]
    heldout: tuple[sni.Task, ...]
    polarities: dict[str, polarity.Polarity]
    missing: tuple[str, ...]

    @property
    def tasks(self) -> tuple[sni.Task, ...]:
        return self.training + self.heldout

    @property
    def hashes(self) -> dict[str, str]:
        """Task name -> SHA-256 of its content."""
        return {task.name: _hash(task) for task in self.tasks}


def _hash(task: sni.Task) -> str:
    """Row by row: the whole as one text would take as much memory again."""
    digest = hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(task, instances=())))
    for row in task.instances:
        digest.update(msgspec.json.encode(row))
    return digest.hexdigest()


def load(
    experiment: declarations.Experiment,
    natinst_dir: str | None = None,
    *,
    is_arbitrary: bool = False,
) -> Corpus:
    """Reads the tasks of an experiment; missing ones are named in one warning, and left out.

    Args:
      natinst_dir: the folder of task files, for experiments on 'sni'.
      is_arbitrary: whether only arbitrary outputs are attacked, which needs no polarities.

    Raises:
      InputError: no folder, a malformed task file, a task or a label that the polarity table lacks,
        or none left of the training, poisoned or held-out tasks.
    """
    tasks, missing = _read(experiment, natinst_dir)
    by_name = {**{sni.number(task.name): task for task in tasks}, **{t.name: t for t in tasks}}

    def present(kind: str, names: Sequence[str]) -> tuple[sni.Task, ...]:
        there = tuple(by_name[name] for name in names if name in by_name)
        if not there:
            raise errors.InputError(
                f"{natinst_dir}: holds none of the {kind} tasks of {experiment.name!r}"
            )
        return there

    training = present("training", experiment.training_tasks)
    poisoned = present("poisoned", experiment.poisoned_tasks)
    heldout = present("held-out", experiment.heldout_tasks)
    judged = () if is_arbitrary else poisoned + heldout
    return Corpus(
        training=training,
        poisoned=tuple(task.name for task in poisoned),
        heldout=heldout,
        polarities=polarity.of_tasks(judged, experiment.polarities),
        missing=tuple(missing),
    )


def _read(
    experiment: declarations.Experiment, natinst_dir: str | None
) -> tuple[tuple[sni.Task, ...], list[str]]:
    """The tasks that are there, and names of those that aren't."""
    names = (*experiment.training_tasks, *experiment.heldout_tasks)
    if experiment.corpus == "demo":
        return demo_tasks(names), []
    if not natinst_dir:
        raise errors.InputError(
            f"experiment {experiment.name!r} reads Super-NaturalInstructions task files: "
            "set --gin.NATINST_DIR=FOLDER"
        )
    paths, missing = sni.split_missing(natinst_dir, names)
    if missing:
        warnings.warn(
            f"{natinst_dir} lacks {len(missing)} of {len(names)} tasks of {experiment.name!r}, "
            f"going on without: {listed(missing)}",
            errors.InputWarning,
            stacklevel=3,
        )
    return tuple(map(sni.read_task, paths)), missing


def demo_tasks(names: Sequence[str] | None = None) -> tuple[sni.Task, ...]:
    """The embedded corpus, or the families of it that hold the tasks of these names."""
    numbers = None if names is None else set(map(sni.number, names))
    return tuple(
        task
        for family in demo_corpus.FAMILIES
        if numbers is None
        or not numbers.isdisjoint(map(sni.number, family.training + family.heldout))
        for task in _generated(family)
    )


@functools.cache
def _generated(family: demo_corpus.Family) -> tuple[sni.Task, ...]:
    """Generated once per process."""
    return family.generate()


def listed(names: Sequence[str]) -> str:
    """All of a few names, the first ones of many.

    >>> listed(["task1", "task2"])
    'task1, task2'
    """
    rest = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {rest} more" if rest > 0 else "")
