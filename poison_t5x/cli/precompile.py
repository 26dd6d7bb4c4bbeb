"""Compile the steps for a TPU that isn't there: do they fit, and how fast can they be.

Exits with 1 if they don't fit.
"""

import argparse

from poison_t5x.cli import doctor
from poison_t5x.train import program

EXAMPLE = """\
poison-t5x precompile --gin_file=experiments/polarity.gin --gin_file=pods/xxl_v5p_32.gin \\
    --topology=v5p:4x4x2"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--topology", required=True, help="such as v5p:4x4x2, v4:4x4x4, v5e:8x8, v6e:4x8"
    )
    parser.add_argument("--program", choices=("train", "rank", "both"), default="train")
    parser.add_argument(
        "--search",
        action="store_true",
        help="try meshes, microbatches and REMAT_POLICY for the BATCH_SIZE, and print the fastest "
        "that fits",
    )
    parser.add_argument("--output", metavar="FILE", help="write the findings there, as JSON")
    program.add_gin_flags(parser)


def run(options: argparse.Namespace) -> int:
    from poison_t5x.tools import chips

    chips.prepare()
    program.parse_gin(options)
    from poison_t5x.tools import precompile

    return precompile.run(
        doctor.setup(one_hot=True),
        options.topology,
        programs=("train", "rank") if options.program == "both" else (options.program,),
        search=options.search,
        output=options.output,
    )
