"""Write the rows of a run's training tasks into SeqIO's offline cache, with Beam.

Needs the craft stage. Training reads it with --gin.USE_CACHED_TASKS=True
--gin.TASK_CACHE_DIRS="['DIR']".
"""

import argparse

from poison_t5x.cli import stage
from poison_t5x.train import program

EXAMPLE = f"""\
poison-t5x cache caches/demo {stage.DEMO}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", help="where; tasks that are there are kept")
    parser.add_argument(
        "--num_shards", type=int, default=16, help="files of a task (default: %(default)s)"
    )
    program.add_gin_flags(parser)


def run(options: argparse.Namespace) -> None:
    from poison_t5x.core import locks

    with stage.open_run(options) as opened, locks.alone(options.directory):
        from poison_t5x.data import caching

        mixtures = opened.register().items()
        names = [name for mixture, tasks in mixtures if "_eval_" not in mixture for name in tasks]
        caching.cache(names, options.directory, options.num_shards, print)
