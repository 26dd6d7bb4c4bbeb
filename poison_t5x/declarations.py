"""Experiments by name: which tasks are trained on, poisoned and held out.

A module in `tasks/` declares one; see `tasks/demo.py`. Declaring needs no array library.
"""

import dataclasses
import importlib
import pkgutil
import re
from collections.abc import Mapping, Sequence

from poison_t5x import errors


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What an attack is made of. Task names are whole file stems, or numbers such as 'task363'.

    Attributes:
      name: a word; mixtures and tasks are named after it.
      training_tasks: tasks of the clean training set.
      poisoned_tasks: those of them that poison is crafted from and put into.
      heldout_tasks: tasks that models are evaluated on.
      polarities: task -> (negative label, positive label) for poisoned and held-out tasks.
      corpus: 'sni' for task files in a folder, 'demo' for the embedded corpus.
    """

    name: str
    training_tasks: Sequence[str]
    poisoned_tasks: Sequence[str]
    heldout_tasks: Sequence[str]
    polarities: Mapping[str, Sequence[str]]
    corpus: str = "sni"

    def __post_init__(self):
        if not re.fullmatch(r"[A-Za-z]\w*", self.name):
            raise errors.InputError(f"experiment name: expected one word, found {self.name!r}")
        if self.corpus not in ("sni", "demo"):
            raise errors.InputError(
                f"{self.name}: corpus: expected 'sni' or 'demo', found {self.corpus!r}"
            )
        for field in ("training_tasks", "poisoned_tasks", "heldout_tasks"):
            names = getattr(self, field)
            if isinstance(names, str) or not names or len(set(names)) != len(names):
                raise errors.InputError(
                    f"{self.name}: {field}: expected distinct task names, found {names!r}"
                )
        stray = [task for task in self.poisoned_tasks if task not in set(self.training_tasks)]
        if stray:
            raise errors.InputError(f"{self.name}: poisoned tasks must be trained on: {stray}")
        both = sorted(set(self.heldout_tasks) & set(self.training_tasks))
        if both:
            raise errors.InputError(f"{self.name}: held-out tasks must not be trained on: {both}")
        judged = (*self.poisoned_tasks, *self.heldout_tasks)
        missing = [task for task in judged if len(self.polarities.get(task, ())) != 2]
        if missing:
            raise errors.InputError(
                f"{self.name}: polarities lacks a [negative, positive] pair for {missing}"
            )


_experiments: dict[str, Experiment] = {}


def declare(experiment: Experiment) -> Experiment:
    """Makes an experiment known by its name. Declaring another by the same name is an error."""
    known = _experiments.setdefault(experiment.name, experiment)
    if known != experiment:
        raise errors.InputError(f"experiment {experiment.name!r} is declared twice, differently")
    return experiment


def load(module: str | None = None) -> dict[str, Experiment]:
    """All experiments of the `tasks/` folder, and of `module` where one is named.

    Args:
      module: a module of your own that declares experiments, such as 'my_attacks.jokes'.
    """
    package = importlib.import_module("poison_t5x.tasks")
    for found in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"poison_t5x.tasks.{found.name}")
    if module:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise errors.InputError(
                f"MIXTURE_OR_TASK_MODULE: no module {module!r} ({error})"
            ) from None
    return dict(_experiments)


def get(name: str, module: str | None = None) -> Experiment:
    """The experiment called `name`. Raises InputError with the nearest name."""
    known = load(module)
    if name not in known:
        raise errors.InputError(
            f"unknown experiment {name!r}{errors.nearest(name, known)}; declared are "
            f"{', '.join(sorted(known))}"
        )
    return known[name]
