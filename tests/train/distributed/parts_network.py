"""A small network, and a SeqIO task whose rows are numbers: what two processes and one share."""

import dataclasses

import numpy as np
import seqio
import tensorflow as tf

from poison_t5x.data import input_pipeline
from tests import mesh_model

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
