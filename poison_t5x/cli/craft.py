"""Prepare the corpus and the vocabulary, and craft the poison set.

Makes RUN_DIR/data, vocabulary/ and poison/: which rows are poison, what they were, and why they.
"""

import argparse

from poison_t5x.cli import stage

EXAMPLE = f"""\
poison-t5x craft {stage.DEMO}-craft --gin.ATTACK=clean_label"""
VARIANTS = ("attacks", "inserters")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format",
        choices=("natinst-jsonl",),
        help="also write the training and test rows as JSON lines, as the authors' code reads "
        "them, to RUN_DIR/natinst-jsonl",
    )
    stage.add_arguments(parser)


def run(options: argparse.Namespace) -> None:
    with stage.open_run(options) as opened:
        opened.craft()
        if options.format:
            opened.export()
        stage.save_config(options, opened)
