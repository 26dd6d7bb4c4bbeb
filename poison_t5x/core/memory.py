"""How the process's memory allocator treats what the network's steps free."""

import contextlib
import ctypes
import sys

# From glibc's malloc.h. No block is mapped by itself, nothing is trimmed (-1), one arena for all.
_M_MMAP_MAX, _M_TRIM_THRESHOLD, _M_ARENA_MAX = -4, -1, -8
_SETTINGS = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1, _M_ARENA_MAX: 1}


def keep_freed_memory() -> None:
    """Makes glibc keep freed memory for the next step, rather than give it back to the system.

    On a CPU, XLA allocates a step's buffers anew each time: by default every one is mapped, zeroed
    page by page and unmapped again, which was a third of the time of a small network's steps. The
    price is memory, some hundred MB in such a run. Call it before jax computes; on other systems
    than Linux it does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for setting, value in _SETTINGS.items():
            mallopt(setting, value)
