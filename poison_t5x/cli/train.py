"""Train the clean and the poisoned model; with MODEL_DIR, one model as T5X does.

A run needs the craft stage. With MODEL_DIR, MIXTURE_OR_TASK_NAME is trained on, of any SeqIO task
or mixture that MIXTURE_OR_TASK_MODULE registers, or of a RUN_DIR's.
"""

import argparse

from poison_t5x.cli import stage
from poison_t5x.train import program

EXAMPLE = f"""\
poison-t5x train {stage.DEMO}
poison-t5x train --gin_file=models/t5_1_1_small.gin --gin.MIXTURE_OR_TASK_MODULE=my_tasks \\
    --gin.MIXTURE_OR_TASK_NAME=my_mixture --gin.MODEL_DIR=models/mine"""


def run(options: argparse.Namespace) -> None:
    program.train(options)
