"""Do everything: craft the poison set, train both models, evaluate, report.

Stages that are done are skipped, so that the same command goes on where it was stopped. All is in
RUN_DIR: poison/, models/, eval/ and report/index.html.
"""

import argparse
import functools

from poison_t5x.cli import stage

EXAMPLE = f"""\
poison-t5x run {stage.DEMO}
poison-t5x run --gin_file=experiments/polarity_smoke.gin --gin.RUN_DIR=runs/smoke \\
    --gin.NATINST_DIR=natural-instructions/tasks --gin.TRIGGER="Joe Biden\""""


def run(options: argparse.Namespace) -> None:
    with stage.open_run(options, trains=True) as opened:
        opened.run(functools.partial(stage.save_config, options, opened))
