"""Bytes by arithmetic against the compiler's own count, on the CPU's virtual devices."""

import dataclasses

import jax
import pytest

from poison_t5x.model import network
from poison_t5x.model.config import REMAT_POLICIES, T5Config
from poison_t5x.model.network import Transformer
from poison_t5x.tools.footprint import memory, remedies
from poison_t5x.tools.footprint.setup import Setup
from poison_t5x.tools.precompile import programs
from poison_t5x.train import optimizers, steps
from poison_t5x.train.partitioning import PartitionConfig, Partitioner

MODEL = T5Config(
    vocab_size=256,
    emb_dim=128,
    num_heads=8,
    head_dim=32,
    mlp_dim=512,
    num_encoder_layers=3,
    num_decoder_layers=3,
    mlp_activations=("gelu", "linear"),
    scan_layers=True,
    one_hot_embedding=False,
)
SETUP = Setup(
    MODEL,
    optimizers.OptimizerConfig(name="adamw"),
    optimizers.ScheduleConfig(),
    steps.LossConfig(),
    PartitionConfig(2, 1, 2),
    sources=256,
    targets=64,
    batch_size=32,
    num_microbatches=1,
    eval_batch_size=32,
    total_steps=10,
)


def _compiled(setup: Setup):
    """XLA's memory analysis of the step on eight devices."""
    mesh = Partitioner(setup.partition)
    rows = setup.batch_size // mesh.num_data
    # Inputs, and the decoder's inputs, targets, weights and marks of poison.
    batch_bytes = 4 * rows * (setup.sources + 4 * setup.targets)
    return programs.lower(setup, "train", mesh).compile().memory_analysis(), batch_bytes


@pytest.mark.parametrize(
    ("name", "partition"),
    [
        ("adamw", (1, 1, 1)),
        ("adamw", (2, 1, 2)),
        ("adafactor", (2, 1, 1)),
        ("adafactor", (4, 2, 2)),
    ],
)
def test_parameters_and_state_are_exact(name, partition):
    optimizer = dataclasses.replace(SETUP.optimizer, name=name)
    setup = dataclasses.replace(
        SETUP, optimizer=optimizer, partition=PartitionConfig(*partition), sources=16, targets=8
    )
    found = memory.footprint(setup, 8 // partition[0])
    analysis, batch_bytes = _compiled(setup)
    # Beside them the batch, the key (8 bytes) and the step (4).
    others = analysis.argument_size_in_bytes - found.parameters - found.optimizer_state
    assert others == batch_bytes + 8 + 4 - _placeholders(setup)


def _placeholders(setup: Setup) -> int:
    """Bytes of what Adafactor keeps in place of statistics that a tensor hasn't.

    No step reads them, so that the compiled program doesn't take them.
    """
    if setup.optimizer.name != "adafactor":
        return 0
    model = Transformer(setup.model)
    params = jax.eval_shape(lambda key: network.initial_params(model, key), jax.random.key(0))
    optimizer = optimizers.make(setup.optimizer, lambda step: step)
    leaves = jax.tree.leaves(jax.eval_shape(optimizer.init, params))
    return sum(4 * leaf.size for leaf in leaves if leaf.shape and leaf.shape[-1] == 1)


@pytest.mark.parametrize(
    ("policy", "num_microbatches"), [("none", 1), ("minimal", 1), ("full", 1), ("none", 4)]
)
def test_the_peak_is_near_what_xla_counts(policy, num_microbatches):
    setup = remedies.changed(SETUP, remat_policy=policy, num_microbatches=num_microbatches)
    analysis, _ = _compiled(setup)
    peak = analysis.argument_size_in_bytes + analysis.temp_size_in_bytes
    # The CPU's compiler keeps more than a layer's work at once; TPU's less: see docs/PODS.md.
    assert 0.5 < memory.footprint(setup, 4).total / peak < 1.5


def test_policies_keep_less_and_less():
    kept = [
        memory.footprint(remedies.changed(SETUP, remat_policy=policy), 4).activations
        for policy in REMAT_POLICIES
    ]
    assert kept == sorted(kept, reverse=True) and kept[-1] > 0


def test_what_would_help_is_open_and_helps():
    found = dict(remedies.savings(SETUP, 8))
    assert all(saved > 0 for saved in found.values())
    assert "--gin.REMAT_POLICY=full" in found and "--gin.OPTIMIZER=adafactor" in found
    # Already so.
    assert not any("PARAMETER_PARTITIONING_DIMS" in flag or "SCAN" in flag for flag in found)
    smallest = remedies.changed(
        dataclasses.replace(SETUP, optimizer=optimizers.OptimizerConfig(name="adafactor")),
        remat_policy="full",
        dtype="bfloat16",
        num_partitions=8,
        num_microbatches=32,
    )
    assert remedies.savings(smallest, 8) == []
