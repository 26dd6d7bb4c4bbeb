"""For commands on a run's folder: how the run is opened, and how it was made is written down."""

import argparse
import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from poison_t5x.train import program

# What there are variants of, and where they are registered; a module of a user's may add some.
VARIANTS = {
    "attacks": ("poison_t5x.attack.payload", "PAYLOADS"),
    "inserters": ("poison_t5x.attack.inserter", "INSERTERS"),
    "scores": ("poison_t5x.defenses.score", "SCORES"),
    "metrics": ("poison_t5x.evaluation.metric", "METRICS"),
}
DEMO = "--gin_file=experiments/demo.gin --gin.RUN_DIR=runs/demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    program.add_gin_flags(parser)
    program.add_cluster_flags(parser)


def variants(kind: str) -> str:
    """Names and first lines of all variants of a kind that are registered."""
    module, name = VARIANTS[kind]
    summaries = getattr(importlib.import_module(module), name).summaries()
    return "\n".join(f"{name:<23}{line}" for name, line in summaries.items())


def all_settings(*, trains: bool = False) -> Any:
    """All settings that gin has parsed, made and so checked: a `run.defend.Defense`, whose `run` is
    the run's. `trains`: on this machine."""
    from poison_t5x.core import gin_config
    from poison_t5x.train import train

    train.check(**gin_config.made("train_script.train"), is_here=trains)
    return gin_config.configured("poison_t5x.run.defend.Defense")()


def make_run(options: argparse.Namespace, *, trains: bool = False) -> Any:
    """The `run.experiment.Run` of the flags, to be looked at; this process is ready to compute.

    Raises:
      InputError: a setting can't be, or a stage of its folder was made with others.
    """
    program.start(options, "EXPERIMENT", "RUN_DIR")
    run = all_settings(trains=trains).run
    run.check()
    return run


@contextlib.contextmanager
def open_run(options: argparse.Namespace, *, trains: bool = False) -> Iterator[Any]:
    """`make_run`'s, whose folder is this command's alone meanwhile.

    Raises:
      BusyError: another command is at work there.
    """
    run = make_run(options, trains=trains)
    from poison_t5x.train import distributed

    with distributed.alone(run.path):
        yield run


def save_config(options: argparse.Namespace, run: Any) -> None:
    """Writes down how the run of `open_run` was called, where that made a stage."""
    program.save_config(options, run.path, "run", made=run.folder.made)


def run_defense(options: argparse.Namespace, command: str) -> None:
    """Runs 'detect' or 'defend'."""
    program.start(options, "EXPERIMENT", "RUN_DIR")
    from poison_t5x.train import distributed

    defense = all_settings(trains=command == "defend")
    with distributed.alone(defense.run.path):
        folder = getattr(defense, command)()
        program.save_config(options, folder, command, made=defense.run.folder.made)
