"""Score the training rows of a finished run, and measure what finds the poison.

SCORES says which scores; each is made without a word of what is poison, then judged. Writes
RUN_DIR/detection/, and shows it in the run's report.
"""

import argparse

from poison_t5x.cli import stage

EXAMPLE = f"""\
poison-t5x detect {stage.DEMO}
poison-t5x detect {stage.DEMO} \\
    --gin.SCORES="('trigger_search', 'loss')\""""
VARIANTS = ("scores",)


def run(options: argparse.Namespace) -> None:
    stage.run_defense(options, "detect")
