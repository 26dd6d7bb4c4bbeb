"""Print every macro with its value and meaning, and the gin files that there are.

Any gin file or flag may be given, to see what they change; no RUN_DIR is needed. Files in other
folders than the project's are found as for any command.
"""

import argparse
import textwrap

from poison_t5x.core import gin_macros
from poison_t5x.train import program

EXAMPLE = """\
poison-t5x config | less
poison-t5x config --gin_file=experiments/demo.gin --gin.NUM_POISON=50"""
_WIDTH = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    program.add_gin_flags(parser)


def run(options: argparse.Namespace) -> None:
    for name, macro in program.read_macros(options).items():
        print(f"{name} = {macro.value!r}  [{macro.origin}]")
        if macro.meaning:
            print(textwrap.fill(macro.meaning, _WIDTH, initial_indent="  ", subsequent_indent="  "))
    print(f"\ngin files, in {gin_macros.project_folder()}:")
    for name in gin_macros.project_files():
        header, *_ = (gin_macros.project_folder() / name).read_text(encoding="utf-8").split("\n#\n")
        text = " ".join(line.lstrip("# ") for line in header.splitlines() if line.startswith("#"))
        print(f"  {name:<46}{textwrap.shorten(text, _WIDTH, placeholder=' …')}")
