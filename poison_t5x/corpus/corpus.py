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
    """The tasks that an experiment names and that are there, in its order."""

    training: tuple[sni.Task, ...]
    poisoned: tuple[str, ...]  # whole names of the poisoned ones
    heldout: tuple[sni.Task, ...]
    polarities: dict[str, polarity.Polarity]  # of poisoned and held-out ones; none for arbitrary
    missing: tuple[str, ...]  # listed names for which no task file is there

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
    names = (*experiment.training_tasks, *experiment.heldout_tasks)
    if experiment.corpus == "demo":
        tasks, missing = demo_tasks(names), list[str]()
    else:
        tasks, missing = _read_files(experiment.name, natinst_dir, names)
    by_name = {**{sni.number(task.name): task for task in tasks}, **{t.name: t for t in tasks}}
    lists = []
    for kind in ("training", "poisoned", "held-out"):
        wanted = getattr(experiment, f"{kind.replace('-', '')}_tasks")
        lists.append(tuple(by_name[name] for name in wanted if name in by_name))
        if not lists[-1]:
            raise errors.InputError(
                f"{natinst_dir}: holds none of the {kind} tasks of {experiment.name!r}"
            )
    training, poisoned, heldout = lists
    judged = () if is_arbitrary else poisoned + heldout
    return Corpus(
        training=training,
        poisoned=tuple(task.name for task in poisoned),
        heldout=heldout,
        polarities=polarity.of_tasks(judged, experiment.polarities),
        missing=tuple(missing),
    )


def _read_files(
    name: str, natinst_dir: str | None, names: Sequence[str]
) -> tuple[tuple[sni.Task, ...], list[str]]:
    """The tasks that are there, and names of those that aren't."""
    if not natinst_dir:
        raise errors.InputError(
            f"experiment {name!r} reads Super-NaturalInstructions task files: set "
            "--gin.NATINST_DIR=FOLDER"
        )
    paths, missing = sni.split_missing(natinst_dir, names)
    if missing:
        warnings.warn(
            f"{natinst_dir} lacks {len(missing)} of {len(names)} tasks of {name!r}, going on "
            f"without: {listed(missing)}",
            errors.InputWarning,
            stacklevel=3,
        )
    return tuple(map(sni.read_task, paths)), missing


# Once per process.
_generated = functools.cache(demo_corpus.Family.generate)


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


def listed(names: Sequence[str]) -> str:
    """All of a few names, the first ones of many.

    >>> listed(["task1", "task2"])
    'task1, task2'
    """
    rest = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {rest} more" if rest > 0 else "")
