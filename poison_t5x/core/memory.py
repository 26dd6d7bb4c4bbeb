"""How the process's memory allocator treats what the network's steps free."""

import contextlib
import ctypes
import sys

# M_MMAP_MAX, M_TRIM_THRESHOLD and M_ARENA_MAX of glibc's malloc.h: no block is mapped by itself,
# nothing is trimmed, one arena for all.
_SETTINGS = {-4: 0, -1: -1, -8: 1}


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
