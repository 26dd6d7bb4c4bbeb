"""Compiles a train step for TPUs scanned, unrolled and as T5X's, and compares what they need.

    python tests/benchmarks/compile_step.py --size=xxl --topology=v5p:4x4x2 --num_partitions=4

The unrolled network is ours, a program of all layers; T5X's own joins in where it is installed
(Adafactor, its standard rules). Needs libtpu (`pip install 'poison-t5x[tpu]'`), and 10 minutes and
12 GB a program of XXL.
"""

import argparse
import dataclasses
import json
import time

from poison_t5x.tools import chips

chips.prepare()

import jax  # noqa: E402 - after the environment is set
import jax.numpy as jnp  # noqa: E402
import measuring  # noqa: E402

from poison_t5x.model.config import REMAT_POLICIES  # noqa: E402
from poison_t5x.tools import hlo, precompile, traffic  # noqa: E402
from poison_t5x.tools.memory_estimate import Setup  # noqa: E402
from poison_t5x.train import optimizers, partitioning, steps  # noqa: E402

VOCAB_SIZE = 32128


def _setup(options, scan: bool) -> Setup:
    return Setup(
        model=measuring.network(
            options.size,
            VOCAB_SIZE,
            dtype="bfloat16",
            one_hot_embedding=True,
            scan_layers=scan,
            remat_policy=options.remat,
        ),
        optimizer=optimizers.OptimizerConfig(name="adafactor"),
        schedule=optimizers.ScheduleConfig(),
        loss=steps.LossConfig(),
        partition=partitioning.PartitionConfig(options.num_partitions, 1, options.dims),
        sources=options.sources,
        targets=options.targets,
        batch_size=options.batch,
        num_microbatches=1,
        eval_batch_size=options.batch,
        total_steps=1000,
    )


def _ours(options, scan: bool) -> dict:
    outcome = precompile.compile_for(_setup(options, scan), "train", options.topology)
    return _row(outcome.compile_seconds, outcome.memory, outcome.traffic, outcome.flops.recomputed)


def _row(seconds, memory, moved, recomputed) -> dict:
    return {
        "compile_seconds": round(seconds, 1),
        "peak_bytes": memory["peak"],
        "collective_bytes": moved.collective_bytes,
        "recomputed_flops": recomputed,
        "hbm_bytes": moved.hbm,
        "collectives": moved.collectives,
    }


def _t5x(options) -> dict:
    """T5X's `train_with_lr` over its network, Adafactor and rules; nothing is computed again."""
    import seqio
    from flax.linen import partitioning as flax_partitioning
    from jax.sharding import NamedSharding, PartitionSpec
    from t5x import adafactor, models, trainer, utils
    from t5x import partitioning as t5x_partitioning
    from t5x.examples.t5 import network

    model_cfg = dataclasses.asdict(_setup(options, False).model)
    names = {field.name for field in dataclasses.fields(network.T5Config)}
    optimizer = adafactor.Adafactor(
        decay_rate=0.8,
        step_offset=0,
        logical_factor_rules=adafactor.standard_logical_factor_rules(),
    )
    vocabulary = seqio.PassThroughVocabulary(VOCAB_SIZE)
    module = network.Transformer(
        network.T5Config(**{name: value for name, value in model_cfg.items() if name in names})
    )
    model = models.EncoderDecoderModel(module, vocabulary, vocabulary, optimizer)
    rules = t5x_partitioning.standard_logical_axis_rules(
        activation_partitioning_dims=1, parameter_partitioning_dims=options.dims
    )
    config = _setup(options, False).partition
    mesh = partitioning.Partitioner(config, chips.of_topology(options.topology)[1]).mesh
    decoder = ("input_tokens", "target_tokens", "loss_weights")
    shapes = {"encoder_input_tokens": (options.batch, options.sources)}
    shapes |= {f"decoder_{name}": (options.batch, options.targets) for name in decoder}
    initializer = utils.TrainStateInitializer(
        optimizer_def=optimizer,
        init_fn=model.get_initial_variables,
        input_shapes=shapes,
        input_types=dict.fromkeys(shapes, jnp.int32),
        partitioner=t5x_partitioning.PjitPartitioner(num_partitions=1, logical_axis_rules=rules),
    )
    replicated, rows = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
    layout = jax.tree.map(
        lambda spec: NamedSharding(mesh, spec) if spec is not None else replicated,
        initializer.train_state_axes,
        is_leaf=lambda spec: spec is None or isinstance(spec, PartitionSpec),
    )
    step = jax.jit(
        lambda state, batch, key: trainer.train_with_lr(
            state, batch, jnp.float32(1e-3), key, model, None
        ),
        in_shardings=(layout, rows, replicated),
        out_shardings=(layout, replicated),
        donate_argnums=0,
    )
    batch = {
        name: jax.ShapeDtypeStruct(shape, jnp.int32, sharding=rows)
        for name, shape in shapes.items()
    }
    key = jax.eval_shape(lambda: jax.random.PRNGKey(0))
    # As T5X runs it, `with mesh:`, its constraints would be dropped by today's flax: its gain.
    with jax.set_mesh(mesh), flax_partitioning.axis_rules(rules):
        lowered = step.lower(initializer.global_train_state_shape, batch, key)
    begin = time.monotonic()
    compiled = lowered.compile()
    seconds = time.monotonic() - begin
    memory = {"peak": compiled.memory_analysis().peak_memory_in_bytes}
    return _row(seconds, memory, traffic.measure(hlo.Program(compiled.as_text())), 0)


def main() -> None:
    """Prints a row for each program, and the ratios to the scanned one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=measuring.SIZES, default="xxl")
    parser.add_argument("--topology", default="v5p:4x4x2")
    parser.add_argument("--num_partitions", type=int, default=4)
    parser.add_argument("--dims", type=int, default=2, help="PARAMETER_PARTITIONING_DIMS")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--sources", type=int, default=1024)
    parser.add_argument("--targets", type=int, default=128)
    parser.add_argument("--remat", choices=REMAT_POLICIES, default="none")
    parser.add_argument("--programs", default="scanned,unrolled,t5x", help="which, by commas")
    options = parser.parse_args()
    makers = {
        "scanned": lambda: _ours(options, True),
        "unrolled": lambda: _ours(options, False),
        "t5x": lambda: _t5x(options),
    }
    print(json.dumps(vars(options)))
    rows: dict[str, dict] = {}
    for name in options.programs.split(","):
        try:
            rows[name] = makers[name]()
        except ModuleNotFoundError as error:
            print(f"{name:<10} left out: {error}")
            continue
        row = rows[name]
        peak, moved = row["peak_bytes"] / 1e9, row["collective_bytes"] / 1e9
        print(
            f"{name:<10} compiled in {row['compile_seconds']:6.1f} s  peak {peak:6.2f} GB"
            f"  collectives {moved:6.2f} GB"
            f"  recomputed {row['recomputed_flops'] / 1e12:6.1f} TFLOP"
            f"  HBM {row['hbm_bytes'] / 1e9:6.1f} GB",
            flush=True,
        )
        if name != "scanned" and "scanned" in rows:
            ratios = {
                key: round(rows["scanned"][key] / row[key], 2)
                for key in ("compile_seconds", "peak_bytes", "collective_bytes", "hbm_bytes")
            }
            print(f"{'':<10} scanned / {name}: {ratios}", flush=True)


if __name__ == "__main__":
    main()
