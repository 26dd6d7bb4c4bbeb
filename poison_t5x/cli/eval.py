"""Evaluate both models under the clean, triggered and control conditions.

Needs the train stage. Writes RUN_DIR/eval/predictions/MODEL/CONDITION/TASK.jsonl and results.json.
"""

import argparse

from poison_t5x.cli import stage

EXAMPLE = f"""\
poison-t5x eval {stage.DEMO}"""
VARIANTS = ("metrics",)


def run(options: argparse.Namespace) -> None:
    with stage.open_run(options) as opened:
        opened.evaluate()
        stage.save_config(options, opened)
