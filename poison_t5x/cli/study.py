"""Run a grid of settings (STUDY_GRID), several runs at once, and sum it up.

Each cell is a run in RUN_DIR/cells/NAME. Done cells are skipped; after each, RUN_DIR holds a table
(study.csv), figures, and a finding (index.html). Exits with 1 where a cell failed.
"""

import argparse
from collections.abc import Mapping
from typing import Any

from poison_t5x.cli import stage
from poison_t5x.core import errors
from poison_t5x.train import program

EXAMPLE = """\
poison-t5x study --gin_file=studies/q04_what_saturates.gin --gin.RUN_DIR=runs/q04
poison-t5x study --gin_file=experiments/demo.gin --gin.RUN_DIR=runs/seeds \\
    --gin.STUDY_GRID="{'SEED': (0, 1, 2), 'NUM_POISON': (25, 50, 100)}" --list"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--list", action="store_true", help="print the cells, and run none")
    program.add_gin_flags(parser)


def run(options: argparse.Namespace) -> int:
    program.start(options, "RUN_DIR")
    from poison_t5x.core import gin_config
    from poison_t5x.studies import command, grid

    config = grid.from_macros(gin_config.macros())
    for cell in grid.cells(config):
        _check(cell.name, grid.settings(cell, config))
    # The cells': all but what is the study's own.
    others = [pair for pair in options.bindings if not pair[0].startswith("STUDY_")]
    flags = program.gin_flags(options, others)
    study = command.Study(config, options.arguments, flags, gin_config.parameters())
    return study.show(print) if options.list else study.run(print)


def _check(cell: str, macros: Mapping[str, Any]) -> None:
    """Raises InputError where a cell's settings can't be, before any of them has begun."""
    from poison_t5x.core import gin_config

    try:
        with gin_config.changed(macros):
            stage.all_settings()
    except errors.InputError as error:
        raise errors.InputError(f"cell {cell}: {errors.first_line(error)}") from None
