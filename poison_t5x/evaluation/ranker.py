"""Label ranking over a whole data set: batches by length, one compilation per shape."""

import functools
from collections.abc import Sequence

import jax
import numpy as np
import tensorflow as tf

from poison_t5x.evaluation import batching
from poison_t5x.model import decoding, network
from poison_t5x.train.partitioning import Partitioner


@functools.lru_cache(maxsize=1)
def _compiled(model, mesh, rules, length_normalized: bool):
    """One compiled ranking for all models of a network; a trace is of one mesh and its rules."""
    del mesh, rules
    return jax.jit(
        functools.partial(decoding.rank_labels, model, length_normalized=length_normalized)
    )


class Ranker:
    """A network with its parameters, ready to rank."""

    def __init__(
        self,
        model: network.Transformer,
        params,
        partitioner: Partitioner,
        *,
        batch_size: int,
        max_length: int,
        length_normalized: bool = False,
    ):
        """Makes the compiled ranking.

        Args:
          batch_size: rows, rounded up to a multiple of the mesh's data axis.
          max_length: the longest input, in tokens.
        """
        self._max_length = max_length
        self._params = params
        self._partitioner = partitioner
        self._batch_size = batching.round_up(batch_size, partitioner.num_data)
        self._rank = _compiled(model, partitioner.mesh, partitioner.rules, length_normalized)

    def rank(self, inputs: Sequence[np.ndarray], labels: Sequence[Sequence[int]]) -> np.ndarray:
        """Log-probabilities of each label for each input.

        Args:
          inputs: N token arrays with EOS, int32, unpadded.
          labels: L token lists with EOS.

        Returns:
          (N, L) float32, nats.
        """
        width = batching.round_up(max(len(tokens) for tokens in labels), 4)
        labels_LxT = np.zeros((len(labels), width), np.int32)
        for row, tokens in enumerate(labels):
            labels_LxT[row, : len(tokens)] = tokens
        scores_NxL = np.zeros((len(inputs), len(labels)), np.float32)
        with self._partitioner.scope():
            batches = batching.by_length(inputs, self._batch_size, self._max_length)
            ranked = batching.gathered(
                self._partitioner,
                batches,
                lambda batch: self._rank(self._params, batch["encoder_input_tokens"], labels_LxT),
            )
        for rows, scores_BxL in ranked:
            scores_NxL[rows] = scores_BxL[: len(rows)]
        return scores_NxL


class TaskPredictor:
    """The `predict_fn` of a `seqio.Evaluator`, for one task's label space.

    Attributes:
      log_probabilities: (N, L) float32, in the order of the rows, once it has been called.
    """

    def __init__(self, ranker: Ranker, labels: Sequence[Sequence[int]]):
        self._ranker = ranker
        # SeqIO makes one array of all predictions; decoding stops at EOS, before the padding.
        width = max(len(tokens) for tokens in labels)
        self._labels = [[*tokens, *[0] * (width - len(tokens))] for tokens in labels]
        self.log_probabilities = np.zeros((0, len(labels)), np.float32)

    def __call__(self, dataset: tf.data.Dataset) -> list[tuple[int, list[int]]]:
        """Args: dataset: (index, model features) pairs. Returns: (index, label tokens) pairs."""
        indices, inputs = batching.read_inputs(dataset)
        self.log_probabilities = self._ranker.rank(inputs, self._labels)
        best = self.log_probabilities.argmax(axis=1)
        return [(index, self._labels[choice]) for index, choice in zip(indices, best, strict=True)]
