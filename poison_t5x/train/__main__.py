"""`python -m poison_t5x.train`, as T5X users type it, is `poison-t5x train`."""

import sys

from poison_t5x.cli import main

if __name__ == "__main__":
    sys.exit(main.main(["train", *sys.argv[1:]]))
