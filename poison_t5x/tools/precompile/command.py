"""`poison-t5x precompile`: from settings to a verdict."""

import argparse
import pathlib
from collections.abc import Callable
from typing import Any

from poison_t5x.core import artifacts, errors


def run(setup: Any, options: argparse.Namespace, say: Callable[[str], None] = print) -> int:
    """Compiles, prints, and returns the exit code: 0 where all fit, 1 where not.

    Args:
      setup: a `footprint.setup.Setup`.
      options: topology, program, search, output.

    Raises:
      InputError: an unknown topology, or settings that don't go with its chips.
    """
    if options.output:
        _check_output(options.output)
    if options.search:
        return _search(setup, options, say)
    from poison_t5x.tools.footprint import remedies
    from poison_t5x.tools.precompile import compiling, table

    names = ("train", "rank") if options.program == "both" else (options.program,)
    outcomes = []
    for name in names:
        outcome = compiling.compile_for(setup, name, options.topology)
        outcomes.append(outcome)
        say("\n".join([*table.lines(outcome), ""]))
        if not outcome.fits:
            say(f"the {name} step doesn't fit; what would help, by arithmetic:")
            for flag, saved in remedies.savings(setup, outcome.num_chips):
                say(f"  {flag:<40} {saved / 1e9:.2f} GB less a chip")
    _write(options.output, [table.document(outcome) for outcome in outcomes])
    return 0 if all(outcome.fits for outcome in outcomes) else 1


def _search(setup: Any, options: argparse.Namespace, say: Callable[[str], None]) -> int:
    from poison_t5x.tools.precompile import search, table

    tried, best = search.search(setup, options.topology, say)
    say("\n".join(table.search_lines(tried)))
    _write(options.output, [table.document(candidate.outcome) for candidate in tried])
    if best is None:
        say(f"none of {len(tried)} settings fits {options.topology}; take more chips")
        return 1
    say(f"fastest that fits: {' '.join(search.flags(best))}")
    return 0


def _check_output(path: str) -> None:
    folder = pathlib.Path(path).absolute().parent
    if not folder.is_dir() or pathlib.Path(path).is_dir():
        raise errors.InputError(f"--output: {path} can't be written: {folder} isn't its folder")


def _write(path: str | None, documents: list[dict]) -> None:
    if path:
        artifacts.write_atomically(pathlib.Path(path), artifacts.dump_json({"programs": documents}))
