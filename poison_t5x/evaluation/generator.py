"""Answers over a whole data set, greedy or by beam search: one compilation per shape."""

import functools
import itertools
from collections.abc import Sequence

import jax
import numpy as np
import tensorflow as tf

from poison_t5x.core import checks
from poison_t5x.evaluation import batching
from poison_t5x.model import beam_search, decoding, network
from poison_t5x.train.partitioning import Partitioner

PAD_ID, EOS_ID = 0, 1


@functools.lru_cache(maxsize=1)
def _compiled(model, mesh, rules, length: int, beam_size: int, alpha: float):
    """One compiled decoding for all models of a network; a trace is of one mesh and its rules."""
    del mesh, rules
    if beam_size == 1:
        return jax.jit(functools.partial(decoding.greedy_decode, model, max_decode_length=length))
    decode = functools.partial(
        beam_search.beam_decode,
        model,
        max_decode_length=length,
        beam_size=beam_size,
        alpha=alpha,
    )
    return jax.jit(lambda params, inputs_BxS: decode(params, inputs_BxS)[0])


class Generator:
    """A network with its parameters, ready to answer."""

    def __init__(
        self,
        model: network.Transformer,
        params,
        partitioner: Partitioner,
        *,
        batch_size: int,
        max_length: int,
        max_decode_length: int,
        beam_size: int = 1,
        alpha: float = 0.6,
    ):
        """Makes the compiled decoding.

        Args:
          batch_size: rows, rounded up to a multiple of the mesh's data axis.
          max_length: the longest input, in tokens.
          max_decode_length: the longest answer, in tokens, EOS included.
          beam_size: hypotheses of a row; 1 is greedy decoding.
          alpha: exponent of beam search's length penalty.

        Raises:
          InputError: a size is below 1, or `alpha` below 0.
        """
        for name, value in (
            ("batch_size", batch_size),
            ("max_decode_length", max_decode_length),
            ("beam_size", beam_size),
        ):
            checks.whole_number(name, value)
        checks.number("alpha", alpha, 0.0)
        self.max_decode_length = max_decode_length
        self._max_length = max_length
        self._params = params
        self._partitioner = partitioner
        self._batch_size = batching.round_up(batch_size, partitioner.num_data)
        self._decode = _compiled(
            model, partitioner.mesh, partitioner.rules, max_decode_length, beam_size, alpha
        )

    def generate(self, inputs: Sequence[np.ndarray]) -> list[list[int]]:
        """The answer to each input.

        Args:
          inputs: token arrays with EOS, int32, unpadded.

        Returns:
          Token ids of each answer, in the order of the inputs, without EOS: empty where the
          network says EOS at once.

        Raises:
          InputError: an input is too long.
        """
        answers: list[list[int]] = [[] for _ in inputs]
        with self._partitioner.scope():
            batches = batching.by_length(inputs, self._batch_size, self._max_length)
            decoded = batching.gathered(
                self._partitioner,
                batches,
                lambda batch: self._decode(self._params, batch["encoder_input_tokens"]),
            )
        for rows, tokens_BxC in decoded:
            for row, tokens in zip(rows, tokens_BxC[: len(rows)].tolist(), strict=True):
                answers[row] = _answer(tokens)
        return answers


def _answer(tokens: list[int]) -> list[int]:
    """`[9, 4, 1, 0]` is the answer `[9, 4]`."""
    return list(itertools.takewhile(lambda token: token not in (PAD_ID, EOS_ID), tokens))


class GenerationPredictor:
    """The `predict_fn` of a `seqio.Evaluator`, for tasks whose answers are generated.

    Attributes:
      outputs: token ids of each answer, without EOS, in the order of the rows, once it has been
        called.
    """

    def __init__(self, generator: Generator):
        self._generator = generator
        self.outputs: list[list[int]] = []

    def __call__(self, dataset: tf.data.Dataset) -> list[tuple[int, list[int]]]:
        """Args: dataset: (index, model features) pairs. Returns: (index, answer tokens) pairs."""
        indices, inputs = batching.read_inputs(dataset)
        self.outputs = self._generator.generate(inputs)
        width = self._generator.max_decode_length
        # SeqIO makes one array of all predictions; it decodes to EOS, so that padding is no text.
        padded = [
            [*tokens, EOS_ID, *[PAD_ID] * (width - len(tokens) - 1)][:width]
            for tokens in self.outputs
        ]
        return list(zip(indices, padded, strict=True))
