"""Say what this machine has, whether a gin file goes with it, and what is half-written.

Exits with 1 where there is a problem.
"""

import argparse
from typing import Any

from poison_t5x.train import program

EXAMPLE = """\
poison-t5x doctor
poison-t5x doctor runs/demo
poison-t5x doctor --gin_file=experiments/polarity.gin --gin_file=models/t5_1_1_large.gin"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folders", nargs="*", metavar="DIR", help="of runs, models or stores, to look into"
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    program.add_gin_flags(parser)


def setup(one_hot: bool) -> Any:
    """The steps as the gin files set them, without any data: a `memory_estimate.Setup`."""
    from poison_t5x.core import gin_config
    from poison_t5x.corpus import vocabulary
    from poison_t5x.model import config as model_config
    from poison_t5x.tools import memory_estimate

    config = gin_config.configured("vocabulary.VocabularyConfig")()
    pieces = vocabulary.size(config.path) if config.path else config.size
    rows = model_config.padded_vocab_size(pieces + config.extra_ids)
    return memory_estimate.make_setup(gin_config.configured, rows, one_hot)


def run(options: argparse.Namespace) -> int:
    from poison_t5x.tools import doctor

    def read_macros():
        program.parse_gin(options)
        from poison_t5x.core import gin_config

        return gin_config.macros()

    given = program.has_gin(options)
    return doctor.run(
        read_macros if given else None, setup, folders=options.folders, as_json=options.json
    )
