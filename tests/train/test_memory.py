"""Freed memory stays with the process: the next step doesn't fault its pages in again."""

import subprocess
import sys

import pytest

MEGABYTES = 64
SCRIPT = f"""
import ctypes, resource, sys
from poison_t5x.train import program
if sys.argv[1] == "keep":
    program.keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
def step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = ctypes.c_void_p(libc.malloc({MEGABYTES} << 20))
    libc.memset(block, 1, ctypes.c_size_t({MEGABYTES} << 20))
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
step()
print(step())
"""


def _faults(word: str) -> int:
    command = [sys.executable, "-c", SCRIPT, word]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc's")
def test_a_second_step_faults_no_pages_in():
    # Of 4 KB, or huge ones where the system has them: a few, against all of them.
    kept, mapped_anew = _faults("keep"), _faults("leave")
    assert mapped_anew >= MEGABYTES // 2
    assert kept < mapped_anew / 4
