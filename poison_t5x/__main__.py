"""`python -m poison_t5x` is `poison-t5x`."""

import sys

from poison_t5x.cli import main

if __name__ == "__main__":
    sys.exit(main.main())
