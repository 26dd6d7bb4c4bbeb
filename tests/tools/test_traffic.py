"""Bytes of single instructions, written by hand in the compiler's manner, against known answers."""

import pathlib

import pytest

from poison_t5x.tools import hlo, traffic

# A layer's weights W are 4 x 8 float32 (128 bytes), a stack of 5 layers 640, an x of 2 x 4 32.
TEXT = pathlib.Path(__file__).parents[1] / "golden" / "hlo" / "instructions.txt"
PROGRAM = hlo.Program(TEXT.read_text())
MAIN = PROGRAM.computations["main"]
X, W, Y = 2 * 4 * 4, 4 * 8 * 4, 2 * 8 * 4


@pytest.mark.parametrize(
    ("name", "nbytes"),
    [
        # Weights that reach a product through a view in a fusion of its own are read.
        ("plain", X + W + Y),
        ("nearer", W),
        # Of a stack a layer is read, or written, or both; what W replaces isn't read.
        ("of_layer", X + W + Y),
        ("written", W + W),
        ("accumulated", W + W + W),
        # Not in place: the sum is of the whole stack.
        ("doubled", 5 * W + W + 5 * W),
        # A fusion that is a view only copies.
        ("turned", W + W),
        ("fetched", X),
        ("put", X),
        ("part", W),
        ("sliced", W),
        ("updated", W + W),
        ("rows", 3 * 4 + 2 * 3 * 8 * 4),
        ("both", X + W + 3 * (X + W)),
        ("gathered", 0),
        ("added", W + W),
        ("moved", X + X),
        ("swapped", W + W),
    ],
)
def test_bytes_of_memory(name, nbytes):
    assert traffic.hbm_bytes(PROGRAM, MAIN, MAIN.instructions[name]) == nbytes


def test_bytes_between_devices():
    assert traffic.measure(PROGRAM).collectives == {
        # Two arrays in one instruction, over groups of three of the six devices.
        "all-gather": 3 * (X + W) * 2 // 3,
        # Empty groups are all devices.
        "all-reduce": 2 * W * 5 // 6,
        # A part of a mesh's axis, of two devices.
        "reduce-scatter": Y,
        "all-to-all": W * 2 // 3,
        "collective-permute": X,
    }
