"""Two processes, and what they share with one: a network, and a task whose rows are numbers."""

import dataclasses
import os
import socket
import subprocess
import sys

import numpy as np
import seqio
import tensorflow as tf

from poison_t5x.data import input_pipeline
from tests import mesh_model, small_run

TIMEOUT = 400
# Tensors of a size that files' headers are small against.
NETWORK = dataclasses.replace(mesh_model.CONFIG, vocab_size=4096, emb_dim=128, mlp_dim=1024)
TASK = "numbers"
ROWS = 40


def _rows(split: str, shuffle_files: bool = False, seed: int | None = None) -> tf.data.Dataset:
    del split, shuffle_files, seed
    values = np.arange(2, 2 + ROWS, dtype=np.int32)[:, np.newaxis]
    return tf.data.Dataset.from_tensor_slices({"inputs": values, "targets": values})


def dataset(num_shards: int) -> input_pipeline.DatasetConfig:
    """The registered task as training data: eight rows a batch."""
    if TASK not in seqio.TaskRegistry.names():
        feature = seqio.Feature(seqio.PassThroughVocabulary(64), add_eos=False)
        seqio.TaskRegistry.add(
            TASK,
            source=seqio.FunctionDataSource(_rows, splits=["train"]),
            preprocessors=[],
            output_features={"inputs": feature, "targets": feature},
        )
    lengths = {"inputs": 1, "targets": 1}
    return input_pipeline.DatasetConfig(TASK, lengths, batch_size=8, num_shards=num_shards)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def run(module: str, *arguments, num_devices: int = 1, **variables) -> list[tuple[int, str]]:
    """Exit code and output of each process of two; '{}' in `arguments` and `variables` is its
    number."""
    variables |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": small_run.XLA_FLAGS.format(num_devices)}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", module, *(str(one).format(number) for one in arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {name: text.format(number) for name, text in variables.items()},
            cwd=small_run.ROOT,
        )
        for number in (0, 1)
    ]
    try:
        outputs = [process.communicate(timeout=TIMEOUT)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, text) for process, text in zip(started, outputs, strict=True)]
