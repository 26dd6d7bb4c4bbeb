"""Print every macro with its value and meaning, and the gin files that there are.

Any gin file or flag may be given, to see what they change; no RUN_DIR is needed. Variants that
are set by name are listed too, with those that MIXTURE_OR_TASK_MODULE registers.
"""

import argparse
import textwrap

from poison_t5x.cli import stage
from poison_t5x.core import gin_macros, reading
from poison_t5x.train import program

EXAMPLE = """\
poison-t5x config | less
poison-t5x config --gin_file=experiments/demo.gin --gin.NUM_POISON=50"""
_WIDTH = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    program.add_gin_flags(parser)


def run(options: argparse.Namespace) -> None:
    from poison_t5x.corpus import declarations

    macros = program.read_macros(options)
    declarations.import_module(macros.get_value("MIXTURE_OR_TASK_MODULE"))
    for name, macro in macros.items():
        print(f"{name} = {macro.value!r}  [{macro.origin}]")
        if macro.meaning:
            print(textwrap.fill(macro.meaning, _WIDTH, initial_indent="  ", subsequent_indent="  "))
    for kind in stage.VARIANTS:
        print(f"\n{kind}:\n{textwrap.indent(stage.variants(kind), '  ')}")
    print(f"\ngin files, in {gin_macros.project_folder()}:")
    for name in gin_macros.project_files():
        text = reading.read_text(gin_macros.project_folder() / name)
        header, *_ = text.split("\n#\n")
        text = " ".join(line.lstrip("# ") for line in header.splitlines() if line.startswith("#"))
        print(f"  {name:<46}{textwrap.shorten(text, _WIDTH, placeholder=' …')}")
