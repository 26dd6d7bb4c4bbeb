"""`poison-t5x COMMAND`: each command is a file of this folder, with its arguments and its run.

What a command needs is imported when it runs, so that `--help` is fast.
"""

import argparse
import importlib
import sys
import textwrap
import warnings
from collections.abc import Sequence
from typing import Protocol, cast

from poison_t5x import __version__
from poison_t5x.cli import stage
from poison_t5x.core import errors
from poison_t5x.train import program


class Command(Protocol):
    """A file of this folder. Its docstring is its help; `poison-t5x --help` has the first line.

    It may have `add_arguments(parser)`, else it takes the flags of a run's stage; and `VARIANTS`,
    kinds that its help lists the variants of.
    """

    EXAMPLE: str

    def run(self, options: argparse.Namespace) -> int | None:
        """Does it, and returns the exit code; None is 0."""


# In this order in `--help`, what is common first.
GROUPS = {
    "run an experiment": ("run", "craft", "train", "eval", "report"),
    "look at data": ("scan",),
    "defend, on a finished run": ("detect", "defend"),
    "run many experiments": ("study",),
    "see what there is": ("tasks", "config"),
    "checkpoints and caches": ("convert", "cache"),
    "machines": ("doctor", "precompile"),
}
# Commands and flags by the names that they had; those still work, and warn, for one version.
_RENAMED = {
    "sweep": "study --gin_file=studies/count_or_rate.gin",
    "--optimizer-state": "--optimizer_state",
    "--extra-ids": "--extra_ids",
}
_START = "poison-t5x run --gin_file=experiments/demo.gin --gin.RUN_DIR=runs/demo"


def command(name: str) -> Command:
    """A command by its name."""
    return cast(Command, importlib.import_module(f"poison_t5x.cli.{name}"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code, see `program.run`."""
    if arguments is None:
        program.prepare_process()
    given = sys.argv[1:] if arguments is None else arguments
    return program.run(lambda: _main(_renamed(given)))


def _main(arguments: list[str]) -> int | None:
    options = program.parse_arguments(_parser(arguments), arguments)
    return command(options.command).run(options)


def _renamed(arguments: Sequence[str]) -> list[str]:
    """Arguments by their names of today."""
    renamed: list[str] = []
    for number, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name not in _RENAMED or (number and not name.startswith("-")):
            renamed.append(argument)
            continue
        text = f"{name} is `{_RENAMED[name]}` now; the next version won't know the old name"
        warnings.warn(text, errors.InputWarning, stacklevel=2)
        *first, last = _RENAMED[name].split()
        renamed += [*first, last + equals + value]
    return renamed


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="poison-t5x",
        usage="%(prog)s COMMAND …",
        description="A laboratory for data poisoning of instruction-tuned T5 models, and for the "
        "defences against it.",
        epilog=_list_commands(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", help=argparse.SUPPRESS, prog="poison-t5x"
    )
    for name in (name for names in GROUPS.values() for name in names):
        module = command(name)
        one = commands.add_parser(
            name,
            description=module.__doc__,
            epilog=f"example:\n{textwrap.indent(module.EXAMPLE, '  ')}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name in arguments:  # the others' may take a moment
            getattr(module, "add_arguments", stage.add_arguments)(one)
            for kind in getattr(module, "VARIANTS", ()):
                one.add_argument_group(kind, stage.variants(kind))
    return parser


def _list_commands() -> str:
    lines = []
    for title, names in GROUPS.items():
        lines.append(f"\n{title}:")
        for name in names:
            first, *_ = (command(name).__doc__ or "").splitlines()
            lines.append(f"  {name:<12}{first[0].lower()}{first[1:].rstrip('.')}")
    lines.append("\nexit codes:")
    for code, meaning in errors.EXIT_CODES.items():
        lines += textwrap.wrap(f"  {code:<5}{meaning}", 100, subsequent_indent=" " * 7)
    lines += [
        "\n`poison-t5x COMMAND --help` says what each takes. To begin:",
        f"  {_START}",
    ]
    return "\n".join(lines).lstrip("\n")
