"""`python -m poison_t5x.studies.leash PARENT CORES COMMAND…`: a command that ends with its parent.

Becomes the command, on the given cores, once the system knows to kill it when the process that
started it is gone, however that one ended. A program of its own, since a function that runs between
fork and exec isn't safe in a process of many threads. Standard library alone.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def main(arguments: list[str]) -> None:
    """Doesn't return.

    Args:
      arguments: the parent's process id, cores separated by commas (or '-' for all), the command.
    """
    parent, cores, *command = arguments
    if sys.platform == "linux":
        # SIGKILL: one that saved first might still write when the next study starts it anew.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(parent):  # gone before the system was told
            os.kill(os.getpid(), signal.SIGKILL)
        if cores != "-":
            os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
