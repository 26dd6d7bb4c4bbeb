"""Stages of a run on many processes: one process makes them, or all together, and one writes."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from poison_t5x.core import artifacts
from poison_t5x.train import distributed


def alone(
    directory: pathlib.Path,
    name: str,
    settings: Mapping[str, Any],
    make: Callable[[pathlib.Path], None],
    say: Callable[[str], None],
) -> None:
    """A stage that the main process makes, see `artifacts.run_stage`; the others wait."""
    distributed.run_on_main(lambda: artifacts.run_stage(directory, name, settings, make, say=say))


def together(
    directory: pathlib.Path,
    name: str,
    settings: Mapping[str, Any],
    make: Callable[[pathlib.Path], None],
    say: Callable[[str], None],
) -> None:
    """A stage that all processes make, and only the main one writes.

    Args:
      make: called in every process with the same folder, once it is there; what a killed attempt
        left in it is kept.
    """
    is_there = distributed.broadcast_from_main(lambda: artifacts.read_record(directory) is not None)

    def begin(folder: pathlib.Path) -> None:
        distributed.broadcast_from_main(lambda: str(folder))
        make(folder)

    if distributed.is_main():
        artifacts.run_stage(directory, name, settings, begin, say=say, keep_partial=True)
    elif not is_there:
        make(pathlib.Path(distributed.broadcast_from_main(lambda: None)))
    distributed.barrier()


_PLACES = {
    "poison": "craft",
    "data": "prepare data",
    "vocabulary": "prepare vocabulary",
    "models/clean": "train clean",
    "models/poisoned": "train poisoned",
    "eval/predictions/clean": "evaluate clean",
    "eval/predictions/poisoned": "evaluate poisoned",
}


def seconds(run_dir: pathlib.Path) -> dict[str, float]:
    """What each stage of a run that is done took, from its record."""
    records = {name: artifacts.read_record(run_dir / place) for place, name in _PLACES.items()}
    return {name: record["seconds"] for name, record in records.items() if record}
