"""Stages that many processes make together, and one writes."""

from collections.abc import Callable, Mapping
from typing import Any

from etils import epath

from poison_t5x.core import artifacts
from poison_t5x.train import distributed


def together(
    directory: artifacts.AnyPath,
    name: str,
    settings: Mapping[str, Any],
    make: Callable[[epath.Path], None],
    log: Callable[[str], None],
) -> None:
    """A stage that all processes make, and only the main one writes.

    `make` is called in every process with the same folder, once it is there; what a killed attempt
    left in it is kept.
    """
    is_there = distributed.broadcast_from_main(lambda: artifacts.read_record(directory) is not None)

    def begin(folder: epath.Path) -> None:
        distributed.broadcast_from_main(lambda: str(folder))
        make(folder)

    if distributed.is_main():
        artifacts.run_stage(directory, name, settings, begin, log=log, keep_partial=True)
    elif not is_there:
        make(epath.Path(distributed.broadcast_from_main(lambda: None)))
    distributed.barrier()
