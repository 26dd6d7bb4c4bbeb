"""Experiments by name: which tasks are trained on, poisoned and held out.

A module in `tasks/` declares one; see `tasks/demo.py`. Declaring needs no array library.
"""

import dataclasses
import importlib
import pkgutil
import re
from collections.abc import Collection, Mapping, Sequence

from poison_t5x.core import errors


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What an attack is made of. Task names are whole file stems, or numbers such as 'task363'.

    Attributes:
      name: a word; mixtures and tasks are named after it.
      training_tasks: tasks of the clean training set.
      poisoned_tasks: those of them that poison is crafted from and put into.
      heldout_tasks: tasks that models are evaluated on.
      polarities: task -> (negative label, positive label) for poisoned and held-out tasks; none
        where only arbitrary outputs are attacked.
      corpus: 'sni' for task files in a folder, 'demo' for the embedded corpus.
    """

    name: str
    training_tasks: Sequence[str]
    poisoned_tasks: Sequence[str]
    heldout_tasks: Sequence[str]
    polarities: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
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
            if isinstance(names, str) or not names or not _are_distinct(names):
                raise errors.InputError(
                    f"{self.name}: {field}: expected distinct task names, found {names!r}"
                )
        stray = [task for task in self.poisoned_tasks if not _is_among(task, self.training_tasks)]
        if stray:
            raise errors.InputError(f"{self.name}: poisoned tasks must be trained on: {stray}")
        both = sorted(task for task in self.heldout_tasks if _is_among(task, self.training_tasks))
        if both:
            raise errors.InputError(f"{self.name}: held-out tasks must not be trained on: {both}")
        wrong = [task for task, labels in self.polarities.items() if not _is_pair(labels)]
        if wrong:
            raise errors.InputError(
                f"{self.name}: polarities: expected [negative, positive] pairs, found another "
                f"thing for {wrong}"
            )


def _is_among(task: str, names: Collection[str]) -> bool:
    """Whether a task is one of `names`, where a bare number means any stem that begins with it.

    Three numbers of the benchmark stand for two tasks each, so stems of one number may differ.
    """
    number = task.split("_", 1)[0]
    if task == number:
        return number in {name.split("_", 1)[0] for name in names}
    return task in names or number in names


def _are_distinct(names: Sequence[str]) -> bool:
    numbers = {name for name in names if "_" not in name}
    stems = [name for name in names if "_" in name]
    return len(set(names)) == len(names) and not any(s.split("_", 1)[0] in numbers for s in stems)


def _is_pair(labels: Sequence[str]) -> bool:
    return not isinstance(labels, str) and len(labels) == 2 and labels[0] != labels[1]


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
    import_module(module)
    return dict(_experiments)


def import_module(name: str | None) -> None:
    """Imports a user's module, which declares experiments or registers SeqIO tasks.

    Raises:
      InputError: there is none of that name.
    """
    if name is None:
        return
    try:
        importlib.import_module(name)
    except (ModuleNotFoundError, TypeError, ValueError, AttributeError) as error:
        raise errors.InputError(f"MIXTURE_OR_TASK_MODULE: no module {name!r} ({error})") from None


def get(name: str, module: str | None = None) -> Experiment:
    """The experiment called `name`. Raises InputError with the nearest name."""
    known = load(module)
    if not isinstance(name, str) or name not in known:
        raise errors.InputError(
            f"unknown experiment {name!r}{errors.nearest(str(name), known)}; declared are "
            f"{', '.join(sorted(known))}"
        )
    return known[name]
