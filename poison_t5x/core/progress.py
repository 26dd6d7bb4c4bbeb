"""Progress bars of the long stages."""

import sys
from collections.abc import Iterable

import tqdm

# Seconds: short stages show none, and a log file gets a line now and then rather than hundreds.
_DELAY = 1.0
_INTERVAL = 0.5
_INTERVAL_OF_LOGS = 10.0


def bar(iterable: Iterable | None = None, **options) -> tqdm.tqdm:
    """A tqdm bar on standard error; `options` are tqdm's."""
    interval = _INTERVAL if sys.stderr.isatty() else _INTERVAL_OF_LOGS
    return tqdm.tqdm(iterable, delay=_DELAY, mininterval=interval, **options)
