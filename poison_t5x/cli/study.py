"""Run a grid of settings (STUDY_GRID), several runs at once, and sum it up.

Each cell is a run in RUN_DIR/cells/NAME. Done cells are skipped; after each, RUN_DIR holds a table
(study.csv), figures, and a finding (index.html). Exits with 1 where a cell failed.
"""

import argparse

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
    from poison_t5x.studies import command

    macros, parameters = gin_config.macros(), gin_config.parameters()
    return command.run(macros, parameters, options.arguments, options.list)
