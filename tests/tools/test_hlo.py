"""Compiled programs' text: types, loops' trip counts, and what moves, against known answers."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from poison_t5x.tools import hlo, traffic
from poison_t5x.train.partitioning import PartitionConfig, Partitioner

# Written by hand in TPU's manner: no trip count is written beside a loop; i goes from 1 to 7 in
# steps of 2, and the inner loop runs five times; an async pair, a reduce-scatter in a fusion, VMEM
# (S(1)).
TPU = (pathlib.Path(__file__).parents[1] / "golden" / "hlo" / "tpu.txt").read_text()


def test_types():
    (one, two, three) = hlo.arrays("(bf16[4,8]{1,0:T(8,128)(2,1)S(1)}, f32[], pred[3]{0})")
    assert (one.shape, one.nbytes, one.space) == ((4, 8), 64, 1)
    assert (two.shape, two.nbytes, two.space) == ((), 4, 0)
    assert three.nbytes == 3
    assert hlo.arrays("f8e4m3fn[5]{0}")[0].nbytes == 5


def test_loops_multiply():
    program = hlo.Program(TPU)
    times = {instruction.name: number for _, instruction, number in program.runs()}
    assert (times["loop"], times["inner"], times["gathered"]) == (1, 3, 15)
    assert program.unknown_loops == []


def test_known_traffic():
    found = traffic.measure(hlo.Program(TPU))
    assert found.collectives == {
        "all-gather": 15 * 64 * 3 // 4,
        "all-reduce": 0,
        # Half of the all-reduce that it is written as: 3 / 4 of the operand.
        "reduce-scatter": 256 * 3 // 4,
        "all-to-all": 0,
        "collective-permute": 3 * 64,
    }
    # The fusion reads its operand from HBM and writes to VMEM; the inner gathers read and write.
    assert found.hbm == 256 + 15 * (64 + 64) + 3 * (64 + 64)


def test_a_loop_that_cant_be_told_is_named():
    program = hlo.Program(TPU.replace("direction=LT", "direction=NE"))
    assert traffic.measure(program).unknown_loops == ("loop", "inner")


LAYERS, ROWS, WIDTH = 6, 16, 32


def _compiled(scan: bool, layers: int = LAYERS, backward: bool = True) -> traffic.Traffic:
    """Layers of two products over a model axis of 4."""
    partitioner = Partitioner(PartitionConfig(num_partitions=4))

    def sharding(*spec):
        return NamedSharding(partitioner.mesh, PartitionSpec(*spec))

    def layer(x, weights):
        hidden = jnp.tanh(x @ weights[0])
        x = jnp.tanh(hidden @ weights[1])
        return jax.lax.with_sharding_constraint(x, sharding("data")), None

    def loss(weights, x):
        if scan:
            return jnp.sum(jax.lax.scan(layer, x, weights)[0] ** 2)
        for number in range(layers):
            x, _ = layer(x, jax.tree.map(lambda leaf, n=number: leaf[n], weights))
        return jnp.sum(x**2)

    layout = sharding(None, None, "model"), sharding(None, "model", None)
    weights = tuple(jax.ShapeDtypeStruct((layers, WIDTH, WIDTH), jnp.float32) for _ in layout)
    x = jax.ShapeDtypeStruct((ROWS, WIDTH), jnp.float32)
    function = jax.grad(loss, argnums=(0, 1)) if backward else loss
    arguments = layout, sharding("data")
    out = arguments if backward else sharding()
    step = jax.jit(function, in_shardings=arguments, out_shardings=out)
    return traffic.measure(hlo.Program(step.lower(weights, x).compile().as_text()))


def test_scanned_and_unrolled_programs_get_the_same_figures():
    forward, straight = (_compiled(scan, backward=False) for scan in (True, False))
    assert forward.collectives == straight.collectives
    # All-reduces of an activation of each layer, over four devices, and of the loss, over two.
    activation = 2 * (ROWS // 2 * WIDTH * 4) * 3 // 4
    assert forward.collective_bytes == LAYERS * activation + 4
    scanned, unrolled = _compiled(True), _compiled(False)
    # Going back, straight code leaves out one that nobody needs, where a loop can't tell.
    assert scanned.collective_bytes - unrolled.collective_bytes in (0, activation)
    assert scanned.unknown_loops == ()
    # A loop's carry is written and read again between layers, which straight code fuses.
    assert 0.5 < scanned.hbm / unrolled.hbm < 2
    # The compiler's own figure, of a body once, would be a sixth.
    assert _compiled(True, 3).collective_bytes == pytest.approx(
        scanned.collective_bytes / 2, rel=0.2
    )


def test_a_slice_of_a_stack_counts_as_the_slice():
    def forward(weights, x):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    def hbm(layers):
        weights = np.zeros((layers, 64, 64), np.float32)
        text = jax.jit(forward).lower(weights, np.zeros((4, 64), np.float32)).compile().as_text()
        return traffic.measure(hlo.Program(text)).hbm

    # Were the whole stack counted each time, it would grow with the square.
    assert hbm(16) / hbm(4) < 5
