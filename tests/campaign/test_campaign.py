"""A fast sample of each part of the campaign, by seed; the whole is for the programs themselves."""

import subprocess
import sys

import pytest

from tests import small_run

SAMPLES = {
    "kills": ("--kills=2", "--commands=scan", "--seed=0"),
    "faults": ("--only=a closed output|closed errors$|MPLBACKEND$",),
}
WHOLE = {"bad_input": ("--cases=2000", "--fresh=40"), "kills": ("--kills=100",), "faults": ()}


def _ends_well(name, flags) -> None:
    line = [sys.executable, "-m", f"tests.campaign.{name}", *flags]
    done = subprocess.run(line, cwd=small_run.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample(name):
    _ends_well(name, SAMPLES[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_the_whole(name):
    _ends_well(name, WHOLE[name])
