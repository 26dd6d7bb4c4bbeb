"""Print the table and write a run's report, or compare finished runs.

With gin flags: RUN_DIR/report/index.html and results.json of one run, which needs the eval stage.
With folders of finished runs: --output/index.html, comparison.csv, comparison.json and figures/; a
folder is finished where it holds report/results.json. Runs of classification and of generation
tasks get a table each.
"""

import argparse

from poison_t5x.cli import stage

EXAMPLE = f"""\
poison-t5x report {stage.DEMO}
poison-t5x report runs/seed_0 runs/seed_1 runs/seed_2 --output runs/seeds"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs", nargs="*", metavar="RUN_DIR", help="folders of finished runs, to compare them"
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        default="comparison",
        help="for the comparison (default: %(default)s)",
    )
    stage.add_arguments(parser)


def run(options: argparse.Namespace) -> None:
    if options.runs:
        from poison_t5x.core import locks
        from poison_t5x.report import comparison

        with locks.alone(options.output, beside=True):
            comparison.write_comparison(options.runs, options.output, print)
        return
    with stage.open_run(options) as opened:
        opened.report()
        stage.save_config(options, opened)
