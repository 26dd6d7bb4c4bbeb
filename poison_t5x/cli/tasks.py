"""List experiments and their tasks, or show examples as a model reads them.

NAME is a task of the embedded corpus, or with a run's gin flags: a task file's stem or number
(task363), a mixture (demo_poisoned), or a SeqIO task of one (demo_eval_triggered.task9031_…), read
as training reads it. Without NAME, all experiments are listed, MIXTURE_OR_TASK_MODULE's too.
"""

import argparse

from poison_t5x.cli import stage
from poison_t5x.core import checks
from poison_t5x.train import program

EXAMPLE = f"""\
poison-t5x tasks
poison-t5x tasks task9001
poison-t5x tasks demo_poisoned -n 10 {stage.DEMO}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="a task or mixture to show")
    parser.add_argument(
        "-n", "--num", type=int, default=3, help="how many examples (default: %(default)s)"
    )
    program.add_gin_flags(parser)


def run(options: argparse.Namespace) -> None:
    from poison_t5x.cli import listing
    from poison_t5x.corpus import declarations

    checks.whole_number("--num", options.num)
    if options.name is None:
        macros = program.read_macros(options)
        experiments = declarations.load(macros.get_value("MIXTURE_OR_TASK_MODULE"))
        print("\n\n".join(map(listing.describe, experiments.values())))
        return
    if program.has_gin(options):
        examples = listing.of_run(stage.open_run(options), options.name)
    else:
        examples = listing.of_demo(options.name)
    for number, (title, prompt, target) in enumerate(examples, start=1):
        print(f"--- {options.name}, example {number}{title}\n{prompt}\n>>> {target}\n")
        if number == options.num:
            return
