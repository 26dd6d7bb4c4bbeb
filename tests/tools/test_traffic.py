"""Bytes of single instructions, written by hand in the compiler's manner, against known answers."""

import pytest

from poison_t5x.tools import hlo, traffic

# A layer's weights W are 4 x 8 float32 (128 bytes), a stack of 5 layers 640, an x of 2 x 4 32.
TEXT = """\
HloModule jit_step, is_scheduled=true, num_partitions=6

%view (p: f32[1,4,8]) -> f32[4,8] {
  %p = f32[1,4,8]{2,1,0} parameter(0)
  ROOT %b = f32[4,8]{1,0} bitcast(%p)
}

%layer (p: f32[5,4,8], i: s32[]) -> f32[1,4,8] {
  %p = f32[5,4,8]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  ROOT %d = f32[1,4,8]{2,1,0} dynamic-slice(%p, %i), dynamic_slice_sizes={1,4,8}
}

%product (x: f32[2,4], w: f32[1,4,8]) -> f32[2,8] {
  %x = f32[2,4]{1,0} parameter(0)
  %w = f32[1,4,8]{2,1,0} parameter(1)
  %v = f32[4,8]{1,0} fusion(%w), kind=kLoop, calls=%view
  ROOT %c = f32[2,8]{1,0} convolution(%x, %v), dim_labels=bf_io->bf
}

%product_of_layer (x: f32[2,4], stack: f32[5,4,8], i: s32[]) -> f32[2,8] {
  %x = f32[2,4]{1,0} parameter(0)
  %stack = f32[5,4,8]{2,1,0} parameter(1)
  %i = s32[] parameter(2)
  %l = f32[1,4,8]{2,1,0} fusion(%stack, %i), kind=kLoop, calls=%layer
  %v = f32[4,8]{1,0} fusion(%l), kind=kLoop, calls=%view
  ROOT %c = f32[2,8]{1,0} convolution(%x, %v), dim_labels=bf_io->bf
}

%write (stack: f32[5,4,8], w: f32[1,4,8], i: s32[]) -> f32[5,4,8] {
  %stack = f32[5,4,8]{2,1,0} parameter(0)
  %w = f32[1,4,8]{2,1,0} parameter(1)
  %i = s32[] parameter(2)
  ROOT %u = f32[5,4,8]{2,1,0} dynamic-update-slice(%stack, %w, %i)
}

%accumulate (stack: f32[5,4,8], w: f32[1,4,8], i: s32[]) -> f32[5,4,8] {
  %stack = f32[5,4,8]{2,1,0} parameter(0)
  %w = f32[1,4,8]{2,1,0} parameter(1)
  %i = s32[] parameter(2)
  %before = f32[1,4,8]{2,1,0} dynamic-slice(%stack, %i), dynamic_slice_sizes={1,4,8}
  %sum = f32[1,4,8]{2,1,0} add(%before, %w)
  ROOT %u = f32[5,4,8]{2,1,0} dynamic-update-slice(%stack, %sum, %i)
}

%write_and_double (stack: f32[5,4,8], w: f32[1,4,8], i: s32[]) -> f32[5,4,8] {
  %stack = f32[5,4,8]{2,1,0} parameter(0)
  %w = f32[1,4,8]{2,1,0} parameter(1)
  %i = s32[] parameter(2)
  %u = f32[5,4,8]{2,1,0} dynamic-update-slice(%stack, %w, %i)
  ROOT %d = f32[5,4,8]{2,1,0} add(%u, %u)
}

%transposed (w: f32[4,8]) -> f32[8,4] {
  %w = f32[4,8]{1,0} parameter(0)
  ROOT %t = f32[8,4]{1,0} transpose(%w), dimensions={1,0}
}

ENTRY %main (x: f32[2,4], w: f32[1,4,8], stack: f32[5,4,8], i: s32[]) -> f32[] {
  %x = f32[2,4]{1,0} parameter(0)
  %w = f32[1,4,8]{2,1,0} parameter(1)
  %stack = f32[5,4,8]{2,1,0} parameter(2)
  %i = s32[] parameter(3)
  %near = f32[2,4]{1,0:T(8,128)S(1)} parameter(4)
  %flat = f32[4,8]{1,0} parameter(5)
  %ids = s32[3]{0} parameter(6)
  %plain = f32[2,8]{1,0} fusion(%x, %w), kind=kOutput, calls=%product
  %nearer = f32[2,8]{1,0:T(8,128)S(1)} fusion(%near, %w), kind=kOutput, calls=%product
  %of_layer = f32[2,8]{1,0} fusion(%x, %stack, %i), kind=kOutput, calls=%product_of_layer
  %written = f32[5,4,8]{2,1,0} fusion(%stack, %w, %i), kind=kLoop, calls=%write
  %accumulated = f32[5,4,8]{2,1,0} fusion(%stack, %w, %i), kind=kLoop, calls=%accumulate
  %doubled = f32[5,4,8]{2,1,0} fusion(%stack, %w, %i), kind=kLoop, calls=%write_and_double
  %turned = f32[8,4]{1,0} fusion(%flat), kind=kLoop, calls=%transposed
  %fetched = (f32[2,4]{1,0:T(8,128)S(1)}, f32[2,4]{1,0}, u32[]{:S(2)}) copy-start(%x)
  %put = (f32[2,4]{1,0}, f32[2,4]{1,0:T(8,128)S(1)}, u32[]{:S(2)}) copy-start(%near)
  %part = ((f32[5,4,8]{2,1,0}), f32[1,4,8]{2,1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%stack), slice={[0:1], [0:4], [0:8]}
  %sliced = f32[1,4,8]{2,1,0:T(8,128)S(1)} dynamic-slice(%stack, %i), dynamic_slice_sizes={1,4,8}
  %updated = f32[5,4,8]{2,1,0} dynamic-update-slice(%stack, %w, %i)
  %rows = f32[3,8]{1,0} gather(%flat, %ids), offset_dims={1}
  %both = ((f32[2,4]{1,0}, f32[1,4,8]{2,1,0}), (f32[6,4]{1,0}, f32[3,4,8]{2,1,0})) all-gather-start(%x, %w), replica_groups=[2,3]<=[6], dimensions={0}
  %gathered = (f32[6,4]{1,0}, f32[3,4,8]{2,1,0}) all-gather-done(%both)
  %added = f32[4,8]{1,0} all-reduce-start(%flat), replica_groups={}, to_apply=%add
  %total = f32[4,8]{1,0} all-reduce-done(%added)
  %moved = (f32[2,4]{1,0}, f32[2,4]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%x), source_target_pairs={{0,1}}
  %there = f32[2,4]{1,0} collective-permute-done(%moved)
  %swapped = f32[4,8]{1,0} all-to-all(%flat), replica_groups=mesh['a'=2,'b'=3] {'b'}, dimensions={0}
  %scattered = f32[2,8]{1,0} reduce-scatter(%flat), replica_groups=mesh['a'=6] {'a':(3)2}, to_apply=%add
  ROOT %r = f32[] constant(0)
}
"""  # noqa: E501 - the compiler's lines
PROGRAM = hlo.Program(TEXT)
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
