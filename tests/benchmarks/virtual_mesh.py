"""A train step of one network on 1 to 64 virtual CPU devices, everything sharded.

    python tests/benchmarks/virtual_mesh.py

All devices share this machine's cores, so that the same batch takes as long on any number of them,
but for what parting and joining costs; a device's bytes should fall as one over their number.
"""

import argparse
import json
import os
import subprocess
import sys
import time

DEVICES = (1, 2, 4, 8, 16, 32, 64)


def _measure(num_devices: int, num_partitions: int, steps_timed: int) -> None:
    """In a process of its own: the number of devices is fixed at its start."""
    import statistics

    import jax
    import numpy as np

    from poison_t5x.model.config import T5Config
    from poison_t5x.model.network import Transformer
    from poison_t5x.train import optimizers, partitioning, steps, train_state

    mesh = partitioning.Partitioner(partitioning.PartitionConfig(num_partitions, 1, 2))
    model = Transformer(
        T5Config(
            vocab_size=4096,
            emb_dim=256,
            num_heads=8,
            head_dim=32,
            mlp_dim=1024,
            num_encoder_layers=4,
            num_decoder_layers=4,
            mlp_activations=("gelu", "linear"),
            scan_layers=True,
        )
    )
    schedule = optimizers.learning_rate(optimizers.ScheduleConfig(), 100)
    optimizer = optimizers.make(optimizers.OptimizerConfig(name="adamw"), schedule)
    layout = train_state.layout(train_state.abstract(model, optimizer, mesh))
    step = steps.make_train_step(model, optimizer, schedule, steps.LossConfig(), mesh, layout)
    rng = np.random.default_rng(0)
    shapes = {"encoder_input_tokens": (64, 128)}
    shapes |= dict.fromkeys(
        ("decoder_input_tokens", "decoder_target_tokens", "decoder_loss_weights"), (64, 32)
    )
    batch = mesh.put_batch({name: rng.integers(1, 9, s, np.int32) for name, s in shapes.items()})
    key = jax.device_put(jax.random.key(0), mesh.replicated)
    state = train_state.create(model, optimizer, mesh, seed=0)
    compiled = step.lower(state, batch, key).compile()
    seconds = []
    for _ in range(steps_timed + 1):
        begin = time.monotonic()
        state, metrics = compiled(state, batch, key)
        jax.block_until_ready((state, metrics))
        seconds.append(time.monotonic() - begin)
    analysis = compiled.memory_analysis()
    print(
        json.dumps(
            {
                "mesh": list(mesh.mesh.shape.values()),
                "seconds": statistics.median(seconds[1:]),
                "arguments": analysis.argument_size_in_bytes,
                "temporaries": analysis.temp_size_in_bytes,
                "loss": float(metrics["loss"][0] / metrics["loss"][1]),
            }
        )
    )


def main() -> None:
    """Prints a row for each number of devices."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--devices", type=int)
    parser.add_argument("--num_partitions", type=int, default=1)
    options = parser.parse_args()
    if options.devices:
        _measure(options.devices, options.num_partitions, options.steps)
        return
    print(
        "| devices | mesh | s a step | arguments, MB a device | temporaries, MB a device | loss |"
    )
    print("|---|---|---|---|---|---|")
    for number in DEVICES:
        partitions = max(1, min(8, number // 4))
        flags = f"--xla_force_host_platform_device_count={number}"
        done = subprocess.run(
            [
                *(sys.executable, __file__, f"--devices={number}", f"--steps={options.steps}"),
                f"--num_partitions={partitions}",
            ],
            env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
        row = json.loads(done.stdout.splitlines()[-1])
        print(
            f"| {number} | {' x '.join(map(str, row['mesh']))} | {row['seconds']:.2f} "
            f"| {row['arguments'] / 1e6:.1f} | {row['temporaries'] / 1e6:.1f} "
            f"| {row['loss']:.4f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
