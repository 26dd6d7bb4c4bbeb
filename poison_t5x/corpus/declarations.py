"""Experiments by name: which tasks are trained on, poisoned and held out.

A module in `tasks/` declares one; see `tasks/demo.py`. Declaring needs no array library.
"""

import dataclasses
import importlib
import pkgutil
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Literal

from poison_t5x.core import errors, failures, settings
from poison_t5x.corpus import sni


@dataclasses.dataclass(frozen=True)
class Experiment(settings.Settings):
    """The tasks of an attack. Their names are whole file stems, or numbers such as 'task363'.

    Polarities are task -> (negative label, positive label) of poisoned and held-out tasks; none are
    needed where only arbitrary outputs are attacked.
    """

    # Mixtures and SeqIO tasks are named after it.
    name: Annotated[str, settings.matching("one word", r"[A-Za-z]\w*")]
    training_tasks: settings.Phrases
    poisoned_tasks: settings.Phrases  # training tasks that poison is crafted from and put into
    heldout_tasks: settings.Phrases
    polarities: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    corpus: Literal["sni", "demo"] = "sni"  # task files in a folder; or 'demo', the embedded corpus

    def __post_init__(self):
        super().__post_init__()
        for field in ("training_tasks", "poisoned_tasks", "heldout_tasks"):
            names = getattr(self, field)
            bare = set(names) & set(map(sni.number, names))
            stems = [sni.number(name) for name in names if name not in bare]
            if len(names) > len({*names}) or bare & {*stems}:
                raise errors.InputError(
                    f"{self.name}: {field}: expected distinct task names, found {names!r}"
                )
        trained = [task for task in self.heldout_tasks if _is_among(task, self.training_tasks)]
        stray = [task for task in self.poisoned_tasks if not _is_among(task, self.training_tasks)]
        wrong = [
            task
            for task, labels in self.polarities.items()
            if not len(labels) == len({*labels}) == 2
        ]
        for problem, tasks in (
            ("poisoned tasks must be trained on", stray),
            ("held-out tasks must not be trained on", trained),
            ("polarities: expected [negative, positive] pairs, found others for", wrong),
        ):
            if tasks:
                raise errors.InputError(f"{self.name}: {problem}: {tasks}")


def _is_among(task: str, names: Collection[str]) -> bool:
    """Whether a task is one of `names`, where a bare number means any stem that begins with it.

    Three numbers of the benchmark stand for two tasks each, so stems of one number may differ.
    """
    number = sni.number(task)
    if task == number:
        return number in map(sni.number, names)
    return task in names or number in names


_experiments: dict[str, Experiment] = {}


def declare(experiment: Experiment) -> Experiment:
    """Makes an experiment known by its name. Declaring another by the same name is an error."""
    if _experiments.setdefault(experiment.name, experiment) != experiment:
        raise errors.InputError(f"experiment {experiment.name!r} is declared twice, differently")
    return experiment


def load(module: str | None = None) -> dict[str, Experiment]:
    """All experiments of the `tasks/` folder, and of a module of the user's where one is named."""
    package = importlib.import_module("poison_t5x.tasks")
    for info in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"poison_t5x.tasks.{info.name}")
    import_module(module)
    return dict(_experiments)


def import_module(name: str | None) -> None:
    """Imports a user's module: it declares experiments, registers SeqIO tasks or variants of ours.

    Raises:
      InputError: there is none of that name, or it fails: with its own error, file and line.
    """
    if name is None:
        return
    settings.checked("MIXTURE_OR_TASK_MODULE", name, settings.Module)
    try:
        importlib.import_module(name)
    except (Exception, SystemExit) as error:
        problem = failures.of_import(name, error)
        raise errors.InputError(f"MIXTURE_OR_TASK_MODULE: {problem}") from error


def get(name: str, module: str | None = None) -> Experiment:
    """The experiment called `name`. Raises InputError with the nearest name."""
    known = load(module)
    if not isinstance(name, str) or name not in known:
        raise errors.InputError(
            f"unknown experiment {name!r}{errors.nearest(str(name), known)}; declared are "
            f"{', '.join(sorted(known))}"
        )
    return known[name]
