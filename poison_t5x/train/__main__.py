"""`python -m poison_t5x.train`, as T5X users type it; see gin/runs/finetune.gin."""

import argparse
import sys

from poison_t5x.train import program


def main() -> int:
    program.prepare_process()
    parser = argparse.ArgumentParser(
        "python -m poison_t5x.train", description=program.train.__doc__
    )
    program.add_gin_flags(parser)
    program.add_cluster_flags(parser)
    return program.run(lambda: program.train(program.parse_arguments(parser, sys.argv[1:])))


if __name__ == "__main__":
    sys.exit(main())
