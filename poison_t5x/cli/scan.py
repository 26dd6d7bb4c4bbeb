"""Look for poison in instruction data of unknown origin.

FILE is a file, or a folder of files: JSON in any common shape (Super-NaturalInstructions, Alpaca,
prompts and completions, chats, preferences), CSV, TSV, Parquet or a folder of `datasets`,
compressed or not. What can't be read is named in a warning. Writes a report into --output, and
exits with 1 where something passes the alarm level.
"""

import argparse

from poison_t5x.train import program

EXAMPLE = """\
poison-t5x scan natural-instructions/tasks/task363_*.json
poison-t5x scan data/ --input_field prompt --target_field completion --output scans/data"""
VARIANTS = ("scores",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="or a folder of such files")
    parser.add_argument(
        "--output", metavar="DIR", default="scan", help="for the report (default: %(default)s)"
    )
    parser.add_argument(
        "--scores", metavar="NAMES", help="separated by commas (default: all that can be made)"
    )
    parser.add_argument(
        "--alarm_level",
        type=float,
        default=0.001,
        metavar="P",
        help="raise the alarm where a phrase goes with an answer that much beyond chance: a "
        "probability, corrected for all phrases looked at (default: %(default)s)",
    )
    parser.add_argument(
        "--model", metavar="DIR", help="a finished model's folder, for scores that need one"
    )
    for field, text in (("input", "text"), ("target", "answer"), ("task", "task")):
        parser.add_argument(
            f"--{field}_field",
            metavar="NAME",
            help=f"where the {text} is, in rows that name it in their own way",
        )
    parser.add_argument(
        "--module", metavar="NAME", help="a module that registers scores of your own"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N")


def run(options: argparse.Namespace) -> int:
    if options.model:
        program.import_tensorflow()
    from poison_t5x.defenses import scan

    return scan.run(options)
