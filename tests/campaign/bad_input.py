"""`python -m tests.campaign.bad_input --cases 2000 --seed 0`: bad settings and files are refused.

Half of the cases are settings, the other half files. Prints each case that ended otherwise than it
should, and a sum; exits with 1 where there was one. `--fresh N` also starts N of them as processes
of their own, whose ends must be the same.
"""

import argparse
import collections
import itertools
import os
import pathlib
import random
import re
import sys
import tempfile
from collections.abc import Sequence

from tests.campaign import bad_files, bad_settings, judge


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at_once", type=int, default=os.cpu_count())
    parser.add_argument("--fresh", type=int, default=0, help="of them in processes of their own")
    parser.add_argument("--files", type=float, default=0.5, help="share of cases that are files")
    parser.add_argument("--no_run", action="store_true", help="leave out the files of a run")
    parser.add_argument("--folder", help="keeps the whole files for the next call")
    parser.add_argument("--only", default="", help="cases whose name has it")
    return parser.parse_args(arguments)


def choose(options: argparse.Namespace, folder: pathlib.Path) -> list[judge.Case]:
    """The cases of a seed."""
    chance = random.Random(options.seed)
    num_files = round(options.cases * options.files)
    sources = bad_files.make_sources(folder, with_run=not options.no_run) if num_files else {}
    settings = bad_settings.cases(random.Random(chance.random()))
    chosen = list(itertools.islice(settings, options.cases - num_files))
    damaged = bad_files.cases(random.Random(chance.random()), sources) if num_files else iter(())
    chosen += itertools.islice(damaged, options.cases - len(chosen))
    return [case for case in chosen if options.only in case.name]


def said(verdict: judge.Verdict) -> str:
    """Its message without the folder's name."""
    return re.sub(r"\S*/case-\w+/here", "HERE", verdict.errors)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    with tempfile.TemporaryDirectory(prefix="whole-") as temporary:
        folder = pathlib.Path(options.folder or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        judge.import_all()
        cases = choose(options, folder)
        verdicts = []
        for verdict in judge.in_forked_processes(cases, options.at_once):
            verdicts.append(verdict)
            if verdict.mistakes:
                print(f"{verdict.case.name}: {'; '.join(verdict.mistakes[:4])}")
                print("   ", "\n    ".join(said(verdict).splitlines()[-2:])[:400], flush=True)
        differ = 0
        for verdict in random.Random(options.seed).sample(verdicts, options.fresh):
            other = judge.in_new_process(verdict.case)
            if (other.code, said(other)) != (verdict.code, said(verdict)):
                differ += 1
                print(f"{verdict.case.name}: {other.code} in a process of its own: {said(other)}")
    wrong = sum(bool(verdict.mistakes) for verdict in verdicts)
    codes = collections.Counter(verdict.code for verdict in verdicts)
    print(
        f"{len(verdicts) - wrong} of {len(verdicts)} cases ended as they should (seed "
        f"{options.seed}); exit codes {dict(sorted(codes.items()))}; at most "
        f"{max(verdict.seconds for verdict in verdicts):.1f} s of computing and "
        f"{max(verdict.memory for verdict in verdicts) / 2**30:.1f} GB; "
        f"{options.fresh - differ} of {options.fresh} the same in a process of their own"
    )
    return int(bool(wrong or differ))


if __name__ == "__main__":
    sys.exit(main())
