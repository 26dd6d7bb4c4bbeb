"""Train again without suspected rows, or with less capacity, and evaluate.

Evaluates it beside the other two, in RUN_DIR/defenses/DEFENSE/ and in the run's report.
FILTER_SCORE and FILTER_BUDGET say what is removed; TRAIN_STEPS, LEARNING_RATE or a models/*.gin
file given here hold for the defended model.
"""

import argparse

from poison_t5x.cli import stage

EXAMPLE = f"""\
poison-t5x defend {stage.DEMO} \\
    --gin.DEFENSE=filtered --gin.FILTER_SCORE=trigger_search --gin.FILTER_BUDGET=0.05"""
VARIANTS = ("scores",)


def run(options: argparse.Namespace) -> None:
    stage.run_defense(options, "defend")
