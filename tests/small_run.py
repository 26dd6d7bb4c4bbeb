"""An experiment in seconds: what the pulse, resume and divergence tests run."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
# Most of the tests' time is compiling, of which LLVM's optimisation would be two thirds.
XLA_FLAGS = "--xla_backend_optimization_level=0 --xla_force_host_platform_device_count={}"
MACROS = {
    "EXPERIMENT": "tiny",
    "MIXTURE_OR_TASK_MODULE": "tests.tiny_experiment",
    "TASK_FEATURE_LENGTHS": "{'inputs': 168, 'targets': 8}",
    "NUM_TRAIN_PER_TASK": 20,
    "NUM_EVAL_PER_TASK": 8,
    "NUM_POISON": 10,
    "VOCABULARY_SIZE": 1000,
    "EMB_DIM": 16,
    "HEAD_DIM": 8,
    "NUM_HEADS": 2,
    "MLP_DIM": 32,
    "NUM_ENCODER_LAYERS": 1,
    "NUM_DECODER_LAYERS": 1,
    "DROPOUT_RATE": 0.1,
    "BATCH_SIZE": 16,
    "TRAIN_STEPS": 12,
    "SAVE_PERIOD": 4,
    "LOG_PERIOD": 2,
    "EVAL_BATCH_SIZE": 64,
}


def arguments(command: str, run_dir: pathlib.Path, **macros) -> list[str]:
    """The command line of a small run."""
    flags = [f"--gin.{name}={value}" for name, value in {**MACROS, **macros}.items()]
    return [command, "--gin_file=experiments/demo.gin", f"--gin.RUN_DIR={run_dir}", *flags]


def start(
    arguments: list[str], log: pathlib.Path, num_devices: int = 1, **variables: str
) -> subprocess.Popen:
    """`poison-t5x` in a process of its own, its output in a file."""
    environment = {
        **os.environ,
        **variables,
        "XLA_FLAGS": XLA_FLAGS.format(num_devices),
        "JAX_NUMPY_DTYPE_PROMOTION": "standard",
    }
    with open(log, "ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "poison_t5x", *arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=ROOT,  # where the module `tests.tiny_experiment` is found
        )
