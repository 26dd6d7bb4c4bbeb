"""A fast sample of bad settings and faults, by seed; the whole is for the programs themselves.

Killed runs are in tests/run/test_resume.py.
"""

import subprocess
import sys

import pytest

from tests import small_run

_SAMPLE = """
import sys
from tests.campaign import bad_input, faults

sys.exit(
    bad_input.main(["--cases=40", "--files=0", "--seed=0"])
    or faults.main(["--only=, help$|MPLBACKEND$"])
)
"""
WHOLE = {"bad_input": ("--cases=2000", "--fresh=40"), "kills": ("--kills=100",), "faults": ()}


def _ends_well(*line: str) -> None:
    done = subprocess.run(
        [sys.executable, *line], cwd=small_run.ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_sample():
    _ends_well("-c", _SAMPLE)


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_the_whole(name):
    _ends_well("-m", f"tests.campaign.{name}", *WHOLE[name])
